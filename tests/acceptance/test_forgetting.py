"""Forgetting with real parts: a canary is looked for everywhere afterwards, down to the bytes of files."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from askq.assistants.model import Assistant
from askq.embedded.stack import Embedded
from askq.jobs.model import State
from tests.acceptance.examples import example, step
from tests.acceptance.stack import Stack, running_stack
from tests.acceptance.test_embedded import Home
from tests.acceptance.test_many_servers import stack_on
from tests.parts import contents, eventually, redis_binary
from tests.servers import ClusterOfServers, running

pytestmark = pytest.mark.timeout(300)
PROTOCOLS = ("assistants", "responses")
Protocol = Literal["assistants", "responses"]
CANARY = "canary-5d0f71"
ECHO = {"default": {"answer": "About {question}: " + "word " * 400, "duration": 0.2}}
"""Longer than what is kept uncompressed."""


def assistant(protocol: Protocol, **fields: Any) -> Assistant:
    return Assistant(name="t", protocol=protocol, model="gpt-test", instructions=f"Be {CANARY}.", **fields)


def submit(stack: Stack, asked: Assistant, rows: int) -> Path:
    """Submit as a person does; the canary is in the question, in another column, in the row id and in the name."""
    folder = stack.folder / "lists"
    (folder / "assistants").mkdir(parents=True, exist_ok=True)
    keep = "" if asked.keep is None else "[keep]\n" + "".join(f'{k} = "{v}"\n' for k, v in asked.keep.items())
    (folder / "assistants" / "t.toml").write_text(
        f'protocol = "{asked.protocol}"\nmodel = "{asked.model}"\ninstructions = "{asked.instructions}"\n{keep}',
        "utf-8",
    )
    lines = [f"{CANARY}-{row},What of {CANARY} {row}?,{CANARY}" for row in range(rows)]
    path = folder / "questions.csv"
    path.write_text("\n".join(["id,question,other", *lines, ""]), "utf-8")
    return path


def run_submit(stack: Stack, asked: Assistant, rows: int) -> str:
    path = submit(stack, asked, rows)
    told = stack.askq(
        "submit", str(path), "--assistant", str(path.parent / "assistants" / "t.toml"), "--name", CANARY, "--json"
    )
    assert told.returncode == 0, told.stderr
    batch: str = json.loads(told.stdout)["batch"]
    return batch


def where(stack: Stack, servers: ClusterOfServers | None = None) -> list[str]:
    """Every place in which the canary is: keys, files, the ledger. `servers`: the nodes that have the jobs."""
    found = []
    for client in _clients(stack, servers):
        with client:
            for key in client.keys("*"):
                assert isinstance(key, bytes)
                values = _values(client, key)
                if any(CANARY.encode() in _plain(value) for value in [key, *values]):
                    found.append(f"redis {key!r}")
    for folder in ("redis", "cluster", "localapi", "home"):
        for path, content in contents(stack.folder / folder):
            if CANARY.encode() in content or CANARY in path.name:
                found.append(str(path.relative_to(stack.folder)))
    if any(CANARY in json.dumps(entry) for entry in stack.ledger()):
        found.append("ledger")
    return found


def _clients(stack: Stack, servers: ClusterOfServers | None) -> Iterator[redis.Redis]:
    yield stack.client()
    for node in () if servers is None else servers.nodes:
        client = node.client()
        # A replica shows what it has, too.
        client.execute_command("READONLY")
        yield client


def _values(client: Any, key: bytes) -> list[bytes]:
    match client.type(key):
        case b"string":
            value = client.get(key)  # none where its time has just run out
            return [] if value is None else [value]
        case b"hash":
            return [part for pair in client.hgetall(key).items() for part in pair]
        case b"zset":
            return list(client.zrange(key, 0, -1))
        case b"set":
            return list(client.smembers(key))
        case _:
            return list(client.lrange(key, 0, -1))


def _plain(value: bytes) -> bytes:
    return zlib.decompress(value[1:]) if value[:2] == b"zx" else value


def nowhere(stack: Stack, servers: ClusterOfServers | None = None) -> None:
    until = time.monotonic() + 60
    while places := where(stack, servers):
        assert time.monotonic() < until, f"the canary is still in {places}"
        time.sleep(0.2)


def objects(stack: Stack) -> dict[str, int]:
    """What there is at the service."""
    return {kind: count for kind, count in stack.admin("stats")["objects"].items() if count}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forget_leaves_nothing(tmp_path: Path, protocol: Protocol) -> None:
    with running_stack(tmp_path, script=ECHO, keyed=True) as stack:
        stack.worker()
        batch = run_submit(stack, assistant(protocol), 8)
        jobs = stack.wait(batch, seconds=120)
        assert {job.state for job in jobs} == {State.COMPLETED}
        places = where(stack)
        assert {place.split("/")[0].split(" ")[0] for place in places} >= {"redis", "localapi", "ledger"}, (
            "the test sees"
        )
        told = stack.askq("forget", batch, "--yes", "--json")
        assert told.returncode == 0, told.stderr + told.stdout
        receipt = json.loads(told.stdout)
        made = {"thread": 8, "assistant": 1} if protocol == "assistants" else {"conversation": 8, "response": 8}
        assert receipt == {
            "id": batch,
            "complete": True,
            "questions": 8,
            "deleted": made,
            "cannot_be_deleted": {},
            "not_deleted_yet": [],
            "files_may_be_in": [],
            "redis_files": "rewritten",
        }
        assert objects(stack) == {}, "I9: created − deleted = nothing"
        nowhere(stack)
        # Told again, it prints the same receipt.
        again = stack.askq("forget", batch, "--yes", "--json")
        assert (again.returncode, json.loads(again.stdout)) == (0, receipt)
        assert stack.askq("status", batch).returncode != 0
        found = stack.askq("sweep", "--json")
        assert json.loads(found.stdout)["findings"] == []
        cleaned = json.loads(stack.askq("cleanup", "--dry-run", "--json").stdout)
        assert (cleaned["orphans"], cleaned["refused"]) == ([], [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_files_are_forgotten_too(tmp_path: Path, protocol: Protocol) -> None:
    """The canary is in a file that is sent along, in its name, and in the files that runs have made. Once it is
    forgotten by somebody whose folder of files is another: a worker that has it does that part."""
    made = {"name": f"{CANARY}.csv", "text": f"{CANARY}\n1"}
    script = {"default": {"answer": f"{CANARY} {{files}}", "duration": 0.2, "code": [{"input": "1", "files": [made]}]}}
    with running_stack(tmp_path, script=script) as stack:
        stack.worker()
        folder = stack.folder / "lists"
        folder.mkdir()
        (folder / f"{CANARY}.txt").write_text(f"{CANARY} in a file", "utf-8")
        rows = [f"{row},What of {row}?,{CANARY}.txt" for row in range(3)]
        (folder / "questions.csv").write_text("\n".join(["id,question,file", *rows, ""]), "utf-8")
        (folder / "t.toml").write_text(
            f'protocol = "{protocol}"\nmodel = "gpt-test"\ntools = ["code_interpreter"]\n', "utf-8"
        )
        told = stack.askq("submit", str(folder / "questions.csv"), "--assistant", str(folder / "t.toml"), "--json")
        assert told.returncode == 0, told.stderr
        batch = json.loads(told.stdout)["batch"]
        jobs = stack.wait(batch, seconds=120)
        assert {job.state for job in jobs} == {State.COMPLETED}
        assert any(place.startswith("home/files") for place in where(stack)), "downloaded, and kept to be sent"
        assert objects(stack)["file"] >= 1
        settings = {"ASKQ_FILES": str(tmp_path / "elsewhere")} if protocol == "responses" else {}
        told = stack.askq("forget", batch, "--yes", "--json", settings=settings)
        assert told.returncode == 0, told.stdout + told.stderr
        assert objects(stack) == {}
        nowhere(stack)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forget_leaves_nothing_on_any_node_of_a_cluster(tmp_path: Path, protocol: Protocol) -> None:
    """Three masters, of which one has a replica; conversations, files that are sent along, and files that runs make."""
    made = {"name": f"{CANARY}.csv", "text": f"{CANARY}\n1"}
    script = {
        "default": {"answer": f"{CANARY} {{question}}", "duration": 0.2, "code": [{"input": "1", "files": [made]}]}
    }
    durable = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "3600 1")
    with (
        running(ClusterOfServers(redis_binary(), tmp_path / "cluster", *durable, replicas=1)) as servers,
        stack_on(tmp_path, servers, broker=True, script=script, replicas=0) as stack,
    ):
        stack.worker()
        folder = stack.folder / "lists"
        folder.mkdir()
        (folder / f"{CANARY}.txt").write_text(f"{CANARY} in a file", "utf-8")
        talks = [f"{CANARY}-{turn}-{who},And {turn}?,{CANARY} {who}," for turn in range(2) for who in ("Ann", "Ben")]
        files = [f"{CANARY}-f{row},What of {row}?,,{CANARY}.txt" for row in range(3)]
        (folder / "questions.csv").write_text("\n".join(["id,question,thread,file", *talks, *files, ""]), "utf-8")
        about = f'instructions = "Be {CANARY}."\ntools = ["code_interpreter"]\n'
        (folder / "t.toml").write_text(f'protocol = "{protocol}"\nmodel = "gpt-test"\n{about}', "utf-8")
        told = stack.askq("submit", str(folder / "questions.csv"), "--assistant", str(folder / "t.toml"), "--json")
        assert told.returncode == 0, told.stderr
        batch = json.loads(told.stdout)["batch"]
        jobs = stack.wait(batch, seconds=120)
        assert {job.state for job in jobs} == {State.COMPLETED}
        with_it = {place.split("/")[1] for place in where(stack, servers) if place.startswith("cluster/")}
        assert len(with_it) > 1, "nodes have a part of it each, on their disks"
        told = stack.askq("forget", batch, "--yes", "--json")
        assert told.returncode == 0, told.stderr + told.stdout
        receipt = json.loads(told.stdout)
        assert (receipt["complete"], receipt["questions"], receipt["redis_files"]) == (True, 7, "rewritten")
        thread = "thread" if protocol == "assistants" else "conversation"
        assert receipt["deleted"][thread] == 5, "three questions that stand alone, and two conversations"
        assert objects(stack) == {}
        nowhere(stack, servers)
        found = stack.askq("sweep", "--json")
        assert json.loads(found.stdout)["findings"] == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_not_to_be_kept_goes_when_it_has_ended(tmp_path: Path, protocol: Protocol) -> None:
    """Through kills of the worker around every deletion."""
    with running_stack(tmp_path, script=ECHO) as stack:
        hits = tmp_path / "hits"
        chaos = {"ASKQ_FAILPOINTS": "delete.*=kill:0.3,gone.*=kill:0.3", "ASKQ_FAILPOINTS_LOG": str(hits)}
        worker = stack.worker(settings=chaos)
        batch = run_submit(stack, assistant(protocol, keep={"threads": "no", "files": "no"}), 12)
        eventually(
            lambda: hits.exists() and len(hits.read_text().splitlines()) >= 3,
            seconds=120,
            what="processes were killed around three deletions",
        )
        worker.kill()
        stack.worker("steady")

        def all_gone() -> bool:
            return stack.status(batch).done and all(kind == "assistant" for kind in objects(stack))

        eventually(all_gone, seconds=120, what="nothing but the assistant is left at the service", every=0.2)
        jobs = stack.wait(batch, seconds=120)
        assert {job.state for job in jobs} == {State.COMPLETED}
        eventually(lambda: list(stack.store.all_buried()) == [], seconds=120, what="no tombstone is left")
        # What was kept is what the policy keeps: the assistant, and the answers.
        assert all(job.answer is not None and CANARY in (job.answer.text or "") for job in jobs)
        assert len(stack.ledger()) == 12


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_interrupted_forget_is_finished_by_the_workers(tmp_path: Path, protocol: Protocol) -> None:
    """Given runs at work, when forget is killed before anything is erased, then workers cancel, erase and delete."""
    with running_stack(tmp_path, script={"default": {"answer": "x", "duration": 900}}) as stack:
        stack.worker()
        batch = run_submit(stack, assistant(protocol), 4)
        eventually(lambda: stack.status(batch).counts[State.RUNNING] == 4, seconds=120, what="all runs are at work")
        stack.store.begin_forgetting(batch)
        eventually(lambda: stack.store.batch(batch) is None, seconds=120, what="the batch is erased")
        eventually(lambda: objects(stack) == {}, seconds=120, what="nothing is left at the service")
        told = stack.askq("forget", batch, "--yes", "--json")
        assert json.loads(told.stdout)["complete"], told.stdout
        assert json.loads(told.stdout)["questions"] == 4
        nowhere(stack)


def test_a_service_that_refuses_is_told_in_the_receipt(tmp_path: Path) -> None:
    with running_stack(tmp_path, script=ECHO) as stack:
        stack.worker()
        batch = run_submit(stack, assistant("responses"), 2)
        stack.wait(batch, seconds=120)
        fault = {"kind": "status", "method": "DELETE", "path": "/responses/", "status": 500}
        stack.admin("faults", fault)
        told = stack.askq("forget", batch, "--yes", "--json", "--timeout", "40")
        assert told.returncode == 1, told.stderr
        receipt = json.loads(told.stdout)
        assert not receipt["complete"]
        assert {entry["kind"] for entry in receipt["not_deleted_yet"]} == {"response"}
        assert all("500" in entry["why"] for entry in receipt["not_deleted_yet"])
        # What is still to be deleted there is filed under the question's id, which has its row id in it.
        told = [place for place in where(stack) if place.startswith("redis b")]
        assert [place for place in told if ":objects:" not in place and ":buried" not in place] == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_example_deletes_everything(protocol: str, tmp_path: Path) -> None:
    folder, home = example("clean-up", tmp_path), tmp_path / ".askq"
    # As beside `askq up`: each of a dozen commands would start what it needs, and end it.
    with Embedded(home) as parts:
        parts.redis_url()
        parts.local_api(engine="tutor")
        step(folder, "1-ask", "--protocol", protocol)
        step(folder, "2-ask-and-keep-nothing", "--protocol", protocol)
        one = step(folder, "3-forget-one")
        assert "1 question with everything about it erased from Redis" in one
        told = step(folder, "4-delete-everything")
        assert "2 questions with everything about them erased from Redis" in told
        assert "3 questions with everything about them erased from Redis" in told
        assert json.loads(step(folder, "5-look-for-the-rest"))["orphans"] == []
    eventually(Home(home).ended, what="the parts have ended")
    words = (b"15 * 4", b"20% of")
    left = [path for path, content in contents(home) if any(word in content for word in words)]
    assert left == []
    assert not (folder / "answers.csv").exists()
