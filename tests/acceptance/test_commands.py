"""The commands as a person uses them: real processes in an empty folder, killed, interrupted and come back to."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import ROOT
from tests.parts import eventually, free_port, redis_binary

# Whole programs, started several times by most tests: a machine that is busy takes its time.
pytestmark = pytest.mark.timeout(300)

ASKQ = [sys.executable, "-P", "-m", "producer.cli"]
SCRIPT = {"default": {"answer": "Answer to: {question}", "duration": [0.5, 4]}}
# Longer than the five seconds between two plain lines: one of them tells of running jobs however slow the machine is.
SLOW = {"default": {"answer": "Answer to: {question}", "duration": [9, 14]}}


class Folder:
    """An empty project folder, and whatever runs in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Every process started from here, however remote, carries this in its environment.
        self.mark = f"ASKQ_HOME={path / '.askq'}"
        self._started: list[subprocess.Popen[str]] = []

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        name, value = self.mark.split("=", 1)
        assistants = {"ASKQ_ASSISTANTS_DIR": str(ROOT / "assistants"), "PYTHONPATH": str(ROOT)}
        return kept | assistants | {"HOME": str(self.path), name: value} | more

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*ASKQ, *argv],
            cwd=self.path,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def askq(self, *argv: str, seconds: float = 200, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ASKQ, *argv],
            cwd=self.path,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def processes(self) -> list[int]:
        """Everything that runs for this folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    alive = (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
                    if alive and self.mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except (OSError, PermissionError):
                    continue
        return found

    def command_lines(self) -> dict[int, bytes]:
        """How each of them was started; one that ends meanwhile is not among them."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        return found

    def kill_everything(self) -> int:
        pids = self.processes()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(pids)

    def close(self) -> None:
        self.kill_everything()
        for process in self._started:
            process.communicate(timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("finds an askq's processes through /proc")
    made = Folder(tmp_path)
    yield made
    made.close()


def write_list(folder: Folder, count: int) -> None:
    lines = ["id,question", *(f"q{n},What is {n} + 1?" for n in range(count))]
    (folder.path / "list.csv").write_text("\n".join(lines) + "\n", "utf-8")


def scripted(folder: Folder, script: dict[str, Any] | None = None) -> dict[str, str]:
    path = folder.path / "script.json"
    path.write_text(json.dumps(SCRIPT if script is None else script), "utf-8")
    return {"ASKQ_LOCAL_ENGINE": "script", "ASKQ_SCRIPT": str(path)}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_until(process: subprocess.Popen[str], pattern: str, *, seconds: float = 120) -> str:
    """The first line of standard error that matches; fails loudly when none comes."""
    assert process.stderr is not None
    told = []
    os.set_blocking(process.stderr.fileno(), False)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line = process.stderr.readline()
        if line:
            told.append(line)
            if re.search(pattern, line):
                return line
        elif process.poll() is not None:
            break
        else:
            time.sleep(0.05)
    raise AssertionError(f"{pattern!r} was not said within {seconds:.0f} s:\n{''.join(told)}")


def test_a_first_run_needs_nothing(folder: Folder) -> None:
    """Given an empty folder, when the example's questions are run, then they are answered by computation."""
    (folder.path / "q.csv").write_text(
        'question\n"I need to solve the equation 3x + 11 = 14. Can you help me?"\nIs 91 prime?\n', "utf-8"
    )
    done = folder.askq("run", "q.csv", "-o", "answers.csv", "-o", "answers.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert re.search(r"Redis: .*embedded; data in", done.stderr)
    assert re.search(r"API: local API, tutor engine, embedded; data in", done.stderr)
    first, second = read_lines(folder.path / "answers.jsonl")
    assert "x = 1" in first["answer"]
    assert "not a prime" in second["answer"]
    assert "solve" in first["code"][0]["input"]
    assert first["code"][0]["output"].strip() == "x = 1"
    eventually(lambda: not folder.processes(), what="everything the run started has ended")


@pytest.mark.parametrize("protocol", ["assistants", "responses"])
def test_the_same_command_goes_on_after_everything_was_killed(folder: Folder, protocol: str) -> None:
    """Given a run at half, when every process is SIGKILLed and it is run again, then no run is paid for twice."""
    write_list(folder, 120)
    # Some long and some short, so that a line tells of a part.
    settings = scripted(folder, {"default": {"answer": "Answer to: {question}", "duration": [1, 20]}})
    argv = ["run", "list.csv", "-a", "plain", "--protocol", protocol, "-o", "answers.jsonl"]
    first = folder.start(*argv, **settings)
    # The first plain line that tells of completed questions comes some seconds after the start.
    read_until(first, r"[1-9]\d* completed")
    assert folder.kill_everything() >= 5
    assert not (folder.path / "answers.jsonl").exists()
    again = folder.askq(*argv, **settings, seconds=180)
    assert again.returncode == 0, again.stderr
    assert "goes on: 120 questions known, 0 added" in again.stderr
    lines = read_lines(folder.path / "answers.jsonl")
    assert [line["answer"] for line in lines] == [f"Answer to: What is {n} + 1?" for n in range(120)]
    ledger = Counter(entry["metadata"]["askq_job"] for entry in read_ledger(folder))
    assert ledger == Counter(line["id"] for line in lines)
    third = folder.askq(*argv, **settings)
    assert third.returncode == 0
    assert "answered before" in third.stderr


def read_ledger(folder: Folder) -> list[dict[str, Any]]:
    """The local API's ledger, read by starting it once more on its data."""
    data = folder.path / ".askq" / "localapi" / "data"
    argv = [sys.executable, "-m", "askq.localapi", "--port", "0", "--data", str(data), "--engine", "script"]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        base = json.loads(server.stdout.readline())["base_url"].removesuffix("/v1")
        with urllib.request.urlopen(f"{base}/_askq/ledger?limit=10000", timeout=60) as reply:
            found: list[dict[str, Any]] = json.load(reply)["data"]
            return found
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_ctrl_c_detaches_and_says_how_to_come_back(folder: Folder) -> None:
    write_list(folder, 30)
    # Longer than the progress may be late (5 s) and the workers may take to finish their open calls (12 s): no run ends
    # before they are gone, however slow the machine.
    settings = scripted(folder, {"default": {"answer": "Answer to: {question}", "duration": [30, 31]}})
    running = folder.start("run", "list.csv", "-a", "plain", **settings)
    batch = read_until(running, r"^Batch b_").split()[1].rstrip(":")
    read_until(running, "running")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "nothing is lost" in told
    assert f"askq results {batch} --partial" in told
    assert "Traceback" not in told
    eventually(lambda: not folder.processes(), what="everything has ended")
    assert folder.askq("status", batch, "--exit-status").returncode == 8
    again = folder.askq("run", "list.csv", "-a", "plain", seconds=180, **settings)
    assert again.returncode == 0, again.stderr
    assert folder.askq("status", batch, "--exit-status").returncode == 0


def test_a_worker_killed_during_a_run_is_replaced_and_said(folder: Folder) -> None:
    write_list(folder, 60)
    running = folder.start("run", "list.csv", "-a", "plain", "-o", "a.jsonl", **scripted(folder, SLOW))
    read_until(running, r"\d+ running")
    worker = next(pid for pid, line in folder.command_lines().items() if b"\0worker\0--queues\0" in line)
    os.killpg(os.getpgid(worker), signal.SIGKILL)
    read_until(running, r"worker-1 ended \(signal SIGKILL\); starting it again")
    running.communicate(timeout=120)
    assert running.returncode == 0
    assert len(read_lines(folder.path / "a.jsonl")) == 60


def test_a_run_goes_on_through_the_death_of_its_redis_and_its_api(folder: Folder) -> None:
    """Given a run, when every server and every keeper of one is SIGKILLed, then it waits, and has every answer."""
    write_list(folder, 60)
    environment = scripted(folder, SLOW)
    running = folder.start("run", "list.csv", "-o", "answers.jsonl", "--assistant", "plain", **environment)
    read_until(running, r"\d+ running")
    for part in ("redis", "localapi"):
        keeper = int(json.loads((folder.path / ".askq" / part / "endpoint.json").read_text("utf-8"))["keeper"])
        os.kill(keeper, signal.SIGKILL)
    told = [read_until(running, r"the embedded (redis|localapi) ended; it was started again") for _ in range(2)]
    assert "redis" in told[0]
    assert "localapi" in told[1]
    # The server alone, and its keeper too slow to bring it back before anybody notices.
    keeper = int(json.loads((folder.path / ".askq" / "redis" / "endpoint.json").read_text("utf-8"))["keeper"])
    server = int(Path(f"/proc/{keeper}/task/{keeper}/children").read_text("utf-8").split()[0])
    os.kill(keeper, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    read_until(running, r"does not answer.*; waiting for it")
    os.kill(keeper, signal.SIGCONT)
    read_until(running, r"Redis answers again")
    _, err = running.communicate(timeout=150)
    assert running.returncode == 0, err
    lines = read_lines(folder.path / "answers.jsonl")
    assert [line["answer"] for line in lines] == [f"Answer to: What is {n} + 1?" for n in range(60)]
    assert {line["attempts"] for line in lines} == {1}


def test_up_serves_other_processes_and_flower_shows_a_row_per_job(folder: Folder) -> None:
    """Given `askq up`, when a client submits and is gone, then another finds the answers by id alone."""
    port = free_port()
    up = folder.start("up", "--port", str(port), **scripted(folder), ASKQ_FLOWER_PASSWORD="s3cret")
    read_until(up, "^ready")
    write_list(folder, 12)
    submitted = folder.askq("submit", "list.csv", "-a", "plain", **scripted(folder))
    batch = submitted.stdout.strip()
    assert re.fullmatch(r"b_[0-9a-z]{26}", batch)
    assert submitted.returncode == 0
    watched = folder.askq("watch", batch, "--exit-status", "--timeout", "200")
    assert watched.returncode == 0, watched.stderr
    results = folder.askq("results", batch)
    lines = [json.loads(line) for line in results.stdout.splitlines()]
    assert [line["answer"] for line in lines] == [f"Answer to: What is {n} + 1?" for n in range(12)]
    assert "What is 3 + 1?" in folder.askq("show", f"{batch}.q3").stdout

    def rows() -> dict[str, Any]:
        found: dict[str, Any] = flower(port, "askq:s3cret", "/api/tasks")
        return found if sum(row["state"] == "SUCCESS" for row in found.values()) == 12 else {}

    shown = eventually(rows, what="Flower shows every job")
    assert set(shown) == {line["id"] for line in lines}, "a row per job, and no chain among them"
    row = shown[f"{batch}.q3"]
    assert row["name"] == "askq.job"
    assert "What is 3 + 1?" in row["kwargs"]
    assert "Answer to: What is 3 + 1?" in row["result"]
    assert row["runtime"] > 0
    # Without a password Flower by itself shows its table, questions and answers included.
    for user, path in (("askq:wrong", "/api/tasks"), ("askq:wrong", "/tasks/datatable"), ("", "/tasks/datatable")):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            flower(port, user, path)
    # Whoever has the password may look, and end nothing.
    with pytest.raises(urllib.error.HTTPError, match="403"):
        flower(port, "askq:s3cret", "/api/worker/shutdown/nobody", method="POST")
    # Whoever listens at every address listens there, too.
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", port), timeout=5)
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=120)
    assert up.returncode == 0
    eventually(lambda: not folder.processes(), what="the whole stack has ended")
    # The answers outlive the stack.
    assert len(folder.askq("results", batch).stdout.splitlines()) == 12


def flower(port: int, user: str, path: str, *, method: str = "GET") -> Any:
    token = base64.b64encode(user.encode()).decode()
    headers = {"Authorization": f"Basic {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_what_lies_beside_a_list_is_not_imported(folder: Folder) -> None:
    """Given a folder with modules named like ours, like Celery's and like Python's, then the list is answered."""
    for name in ("worker", "config", "celery", "queue", "types", "redis"):
        (folder.path / f"{name}.py").write_text("raise SystemExit('not yours to import')\n", "utf-8")
    write_list(folder, 2)
    done = folder.askq("run", "list.csv", "-o", "answers.jsonl", "-a", "plain", **scripted(folder))
    assert done.returncode == 0, done.stderr
    assert len(read_lines(folder.path / "answers.jsonl")) == 2


def test_the_local_api_ends_with_its_command_even_when_that_is_killed(folder: Folder) -> None:
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        running = folder.start("local-api")
        assert running.stdout is not None
        base = running.stdout.readline().strip()
        with urllib.request.urlopen(base.replace("/v1", "/_askq/health"), timeout=60) as reply:
            assert reply.status == 200
        running.send_signal(how)
        _, err = running.communicate(timeout=120)
        assert "Traceback" not in err
        eventually(lambda: not folder.processes(), what=f"nothing runs after {how.name}")


def test_a_local_api_of_its_own_serves_a_run(folder: Folder) -> None:
    write_list(folder, 2)
    server = folder.start("local-api", "--json", **scripted(folder))
    assert server.stdout is not None
    base = json.loads("".join(iter(server.stdout.readline, "}\n")) + "}")["base_url"]
    account = {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": "any"}
    done = folder.askq("run", "list.csv", "-o", "answers.jsonl", "-a", "plain", **account)
    assert done.returncode == 0, done.stderr
    assert f"API: {base}, key from environment" in done.stderr
    server.send_signal(signal.SIGINT)
    _, err = server.communicate(timeout=120)
    assert server.returncode == 0
    assert "script engine" in err


def test_a_place_that_cannot_be_written_is_told_by_every_command(folder: Folder) -> None:
    (folder.path / ".askq").write_text("in the way", "utf-8")
    write_list(folder, 2)
    commands = (["run", "list.csv"], ["submit", "list.csv"], ["list"], ["up", "--no-flower"], ["worker"], ["flower"])
    for argv in (*commands, ["local-api"]):
        done = folder.askq(*argv)
        assert done.returncode == 1, argv
        assert "cannot keep its data in" in done.stderr
        assert "ASKQ_HOME" in done.stderr
        assert "Traceback" not in done.stderr
    assert not folder.processes()
    doctor = folder.askq("doctor")
    assert doctor.returncode == 1
    assert [line[:18].split() for line in doctor.stdout.splitlines()] == [
        ["ok", "settings"], ["WRONG", "files"], ["WRONG", "redis"], [], ["note", "key"], ["WRONG", "api"], [],
        ["note", "workers"],
        ["note", "audit"], ["ok", "assistants"],
    ]  # fmt: skip


def test_the_chat_servers_key_reaches_the_local_api_and_no_list_of_processes(folder: Folder) -> None:
    """Given the key in .env alone, then the server behind the `chat` engine gets it."""
    argv = [sys.executable, "-m", "tests.acceptance.chat_server"]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        (folder.path / ".env").write_text("ASKQ_CHAT_API_KEY=sk-chat-canary\n", "utf-8")
        chat = {"ASKQ_LOCAL_ENGINE": "chat", "ASKQ_CHAT_URL": server.stdout.readline().strip()}
        running = folder.start("ask", "Who is there?", "-a", "plain", **chat)
        read_until(running, r"0/1 done|1/1 done")
        lines = folder.command_lines().values()
        out, err = running.communicate(timeout=120)
        assert out == "Bearer sk-chat-canary\n", err
        assert not any(b"canary" in line for line in lines)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_a_taken_port_is_said(folder: Folder) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for argv in (["up", "--port", port], ["flower", "--port", port], ["local-api", "--port", port]):
            done = folder.askq(*argv)
            assert done.returncode == 1
            assert f"port {port}: it is taken" in done.stderr
            assert "Traceback" not in done.stderr


def test_a_rejected_key_is_told_before_anything_is_queued(folder: Folder) -> None:
    argv = [sys.executable, "-m", "askq.localapi", "--port", "0", "--key", "the-right-key", "--engine", "script"]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert server.stdout is not None
        base = json.loads(server.stdout.readline())["base_url"]
        write_list(folder, 3)
        account = {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": "sk-wrong-wrong"}
        for argv_ in (["run", "list.csv"], ["ask", "What is 1 + 1?"], ["up", "--no-flower"], ["worker"]):
            done = folder.askq(*argv_, **account)
            assert done.returncode == 4, argv_
            assert "rejected the key" in done.stderr
            assert "OPENAI_API_KEY" in done.stderr
            assert "sk-wrong" not in done.stderr
        assert folder.askq("list", "--json").stdout.strip() == "[]"
        doctor = folder.askq("doctor", **account)
        assert doctor.returncode == 1
        assert "WRONG" in doctor.stdout
        assert "sk-wrong" not in doctor.stdout + doctor.stderr
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_doctor_finds_nothing_wrong_in_an_empty_folder(folder: Folder) -> None:
    done = folder.askq("doctor", "--json")
    assert done.returncode == 0
    checks = {entry["check"]: entry["ok"] for entry in json.loads(done.stdout)}
    assert checks == {
        "settings": True, "files": True, "redis": True, "key": None, "api": True, "workers": None, "audit": None,
        "assistants": True,
    }  # fmt: skip


def test_doctor_names_what_is_wrong_and_nothing_else(folder: Folder) -> None:
    fine = {
        "settings": True, "files": True, "redis": True, "key": None, "api": True, "workers": None, "audit": None,
        "assistants": True,
    }  # fmt: skip
    nothing = f"127.0.0.1:{free_port()}"
    for wrong, environment in (
        ({"redis": False}, {"REDIS_URL": f"redis://:s3cret@{nothing}/0"}),
        ({"api": False, "key": True}, {"OPENAI_API_KEY": "sk-canary", "OPENAI_BASE_URL": f"http://{nothing}/v1"}),
        ({"api": False, "key": False}, {"OPENAI_BASE_URL": f"http://{nothing}/v1"}),
        ({"assistants": False}, {"ASKQ_ASSISTANTS_DIR": "no-such-folder"}),
    ):
        done = folder.askq("doctor", "--json", **environment)
        assert done.returncode == 1, environment
        assert {entry["check"]: entry["ok"] for entry in json.loads(done.stdout)} == fine | wrong
        assert "s3cret" not in done.stdout + done.stderr
        assert "canary" not in done.stdout + done.stderr


def test_one_question_from_the_command_line(folder: Folder) -> None:
    done = folder.askq("ask", "What is 17 × 23?")
    assert done.returncode == 0, done.stderr
    assert "391" in done.stdout


def test_a_list_from_standard_input(folder: Folder) -> None:
    done = subprocess.run(
        [*ASKQ, "run", "-", "-o", "-"],
        cwd=folder.path,
        env=folder.environment(),
        input="What is 2 + 2?\nWhat is 3 + 3?\n",
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["answer"] for line in done.stdout.splitlines()]
    assert "4" in answers[0]
    assert "6" in answers[1]


def test_a_redis_that_would_lose_jobs_is_refused_by_whoever_writes(folder: Folder) -> None:
    data = folder.path / "unsafe"
    data.mkdir()
    port = free_port()
    options = ["--appendonly", "no", "--save", "", "--maxmemory-policy", "allkeys-lru"]
    argv = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), *options]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        unsafe = {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}
        eventually(lambda: folder.askq("list", **unsafe).returncode == 0, what="Redis answers")
        write_list(folder, 3)
        for argv_ in (
            ["run", "list.csv"],
            ["submit", "list.csv"],
            ["ask", "1 + 1?"],
            ["up", "--no-flower"],
            ["worker"],
        ):
            done = folder.askq(*argv_, **unsafe)
            assert done.returncode == 1, argv_
            assert "append-only file is off" in done.stderr
            assert "maxmemory-policy is allkeys-lru" in done.stderr
            assert "Traceback" not in done.stderr
        assert folder.askq("list", "--json", **unsafe).stdout.strip() == "[]"
        doctor = folder.askq("doctor", **unsafe)
        assert doctor.returncode == 1
        assert "append-only file is off" in doctor.stdout
        assert "none is running" in doctor.stdout, "it can be asked for workers all the same"
        assert folder.askq("submit", "list.csv", **unsafe, ASKQ_ALLOW_UNSAFE_REDIS="1").returncode == 0
    finally:
        server.terminate()
        server.wait(60)
