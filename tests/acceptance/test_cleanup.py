"""`askq cleanup`: what nobody needs any more goes, of every kind; what is not ours, or is used, stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from askq.jobs.model import State
from askq.jobs.objects import Kind, RemoteObject
from tests.acceptance.stack import Stack, running_stack
from tests.acceptance.test_forgetting import PROTOCOLS, Protocol

pytestmark = pytest.mark.timeout(300)
OLD_S = 3600
CODE = [{"input": "1", "files": [{"name": "a.csv", "text": "1"}]}]
SCRIPT = {"default": {"answer": "x {files}", "duration": 0.2, "code": CODE}}


class Service:
    """The service as somebody sees it who has the account, and is not askq."""

    def __init__(self, client: openai.OpenAI) -> None:
        self.client = client

    def make(self, **marks: str) -> dict[Kind, str]:
        """One object of each kind."""
        client = self.client
        response = client.responses.create(model="gpt-test", input="x", background=True, metadata=marks)
        return {
            Kind.ASSISTANT: client.beta.assistants.create(model="gpt-test", metadata=marks).id,
            Kind.THREAD: client.beta.threads.create(metadata=marks).id,
            Kind.CONVERSATION: client.conversations.create(metadata=marks).id,
            Kind.RESPONSE: response.id,
            Kind.FILE: client.files.create(file=("a.txt", b"text"), purpose="assistants").id,
            Kind.VECTOR_STORE: client.vector_stores.create(name="a", metadata=marks).id,
            Kind.CONTAINER: client.containers.create(name="a").id,
        }

    def has(self, kind: Kind, id_: str) -> bool:
        """Whether it knows an object."""
        client = self.client
        look: Mapping[Kind, Any] = {
            Kind.ASSISTANT: client.beta.assistants,
            Kind.THREAD: client.beta.threads,
            Kind.CONVERSATION: client.conversations,
            Kind.RESPONSE: client.responses,
            Kind.FILE: client.files,
            Kind.VECTOR_STORE: client.vector_stores,
            Kind.CONTAINER: client.containers,
        }
        try:
            look[kind].retrieve(id_)
        except openai.NotFoundError:
            return False
        return True

    def left(self, made: Mapping[Kind, str]) -> set[Kind]:
        """Those of these that it still has."""
        return {kind for kind, id_ in made.items() if self.has(kind, id_)}


@contextmanager
def service_of(stack: Stack) -> Iterator[Service]:
    with openai.OpenAI(base_url=stack.base_url, api_key="sk-test-canary-0123456789", max_retries=0) as client:
        yield Service(client)


def cleanup(stack: Stack, *options: str) -> dict[str, Any]:
    told = stack.askq("cleanup", "--json", *options)
    assert told.returncode == 0, told.stderr + told.stdout
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def asked(stack: Stack, protocol: Protocol) -> dict[str, Any]:
    """A batch whose questions have a file, a container and a thread: what it has made, by id."""
    folder = stack.folder / "lists"
    folder.mkdir()
    (folder / "a.txt").write_text("a file", "utf-8")
    (folder / "questions.csv").write_text("id,question,file\n1,What?,a.txt\n2,And?,a.txt\n", "utf-8")
    text = f'protocol = "{protocol}"\nmodel = "gpt-test"\ntools = ["code_interpreter"]\n'
    (folder / "t.toml").write_text(text, "utf-8")
    told = stack.askq("submit", str(folder / "questions.csv"), "--assistant", str(folder / "t.toml"), "--json")
    assert told.returncode == 0, told.stderr
    batch = json.loads(told.stdout)["batch"]
    jobs = stack.wait(batch, seconds=120)
    assert {job.state for job in jobs} == {State.COMPLETED}
    owners = [batch, *(job.id for job in jobs), *stack.store.uses(batch)]
    return {entry.object.id: entry.object.kind for owner in owners for entry in stack.store.objects(owner)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_nobody_has_any_more_is_listed_and_deleted(tmp_path: Path, protocol: Protocol) -> None:
    """Of every kind: on record under a question that is gone, and a thing without users. Nothing else is touched."""
    with running_stack(tmp_path, script=SCRIPT) as stack, service_of(stack) as service:
        stack.worker()
        used = asked(stack, protocol)
        assert {Kind.FILE} < set(used.values())
        foreign = service.make()
        orphans, unused = service.make(), service.make()
        for kind, id_ in orphans.items():
            stack.store.remember("b_00000000000000000000000000.q1", [RemoteObject(kind=kind, id=id_)])
        for kind, id_ in unused.items():
            stack.store.remember(f"acc/{kind}:v1.2", [RemoteObject(kind=kind, id=id_)])
        listed = {*orphans.values(), *unused.values()}
        told = cleanup(stack, "--dry-run")
        assert {entry["id"] for entry in told["orphans"]} == listed
        assert all(entry["ours"] for entry in told["orphans"])
        assert told["deleted"] == 0
        assert service.left(orphans) == service.left(unused) == set(Kind), "it was only listed"
        told = cleanup(stack, "--yes")
        assert (told["deleted"], told["refused"]) == (2 * len(Kind), [])
        assert service.left(orphans) == service.left(unused) == set()
        assert service.left(foreign) == set(Kind), "nobody says that it is ours"
        assert [id_ for id_, kind in used.items() if not service.has(kind, id_)] == [], "the batch has them still"
        assert cleanup(stack)["orphans"] == []


def test_marked_objects_that_no_record_knows(tmp_path: Path) -> None:
    """As a worker leaves them that was killed before it put them on record; only old ones, and only ours."""
    with running_stack(tmp_path, script=SCRIPT) as stack, service_of(stack) as service:
        stack.worker()
        asked(stack, "assistants")
        ours = service.make(askq_home=stack.store.home(), askq_owner="assistant:x")
        theirs = service.make(askq_home="another", askq_owner="assistant:x")
        young = service.make(askq_home=stack.store.home(), askq_owner="assistant:x")
        old = {*ours.values(), *theirs.values()}
        lists: dict[str, Any] = {
            "assistants": service.client.beta.assistants.list(limit=100),
            "vector_stores": service.client.vector_stores.list(limit=100),
        }
        for path, found in lists.items():
            data = [entry.model_dump(mode="json") for entry in found.data]
            for entry in data:
                entry["created_at"] -= OLD_S if entry["id"] in old else 0
            fault = {"kind": "patch", "method": "GET", "path": f"/v1/{path}$", "set": {"data": data}}
            stack.admin("faults", fault)
        kinds = {Kind.ASSISTANT, Kind.VECTOR_STORE}
        told = cleanup(stack, "--dry-run")
        assert {entry["id"]: entry["ours"] for entry in told["orphans"]} == {
            id_: made is ours for made in (ours, theirs) for kind, id_ in made.items() if kind in kinds
        }
        assert cleanup(stack, "--yes")["deleted"] == 2
        assert service.left(ours) == set(Kind) - kinds
        assert service.left(theirs) == service.left(young) == set(Kind)
        stack.heal()
        assert cleanup(stack)["orphans"] == []


def test_what_was_refused_is_tried_again_at_once(tmp_path: Path) -> None:
    with running_stack(tmp_path, script=SCRIPT) as stack, service_of(stack) as service:
        stack.worker()
        made = service.make()
        stack.admin("faults", {"kind": "status", "method": "DELETE", "path": ".", "status": 500})
        # A proxy that answers in the service's place has deleted nothing.
        stack.admin("faults", {"kind": "html_200", "method": "DELETE", "path": "."})
        stack.store.remember("b_0.q1", [RemoteObject(kind=kind, id=id_) for kind, id_ in made.items()])
        told = stack.askq("cleanup", "--yes", "--json")
        assert told.returncode == 1, told.stdout
        assert json.loads(told.stdout)["deleted"] == 0
        refused = cleanup(stack, "--dry-run")["refused"]
        assert {entry["id"] for entry in refused} == set(made.values())
        assert all("500" in entry["why"] for entry in refused)
        stack.heal()
        assert cleanup(stack)["deleted"] == len(Kind)
        assert service.left(made) == set()
