"""A slice of the chain that runs functions: what it claims, keeps, gives back and puts on record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreUnreachable
from askq.jobs.calls import CallClaim, CallResult, Calls, Recorded, WantedCall
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move, NewBatch, NewJob, Node, Question
from tests.parts import Clock, eventually
from worker.tools.chain import Slice
from worker.tools.host import Aborted, Crashed, Host

LEASE_S = 0.4
HOW = {name: {"module": "home", "function": name, "folder": "."} for name in ("light", "fan")}
HOME = Assistant(name="home", protocol="responses", model="m", functions=HOW | {"pay": HOW["fan"] | {"once": True}})


class Functions(Host):
    def __init__(self) -> None:
        super().__init__([], timeout_s=1.0, memory_mb=0)
        self.ran: list[CallClaim] = []
        self.does: Callable[[CallClaim, Callable[[], bool]], CallResult | Crashed | Aborted] = lambda claim, wanted: (
            CallResult(output=claim.wanted.name)
        )

    def run(self, claim: CallClaim, assistant: Assistant, wanted: Callable[[], bool]) -> CallResult | Crashed | Aborted:
        self.ran.append(claim)
        return self.does(claim, wanted)


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.save_assistant(HOME.digest, HOME.to_json())
    return made


def asked(store: MemoryStore, *names: str) -> str:
    """A job that waits for these functions."""
    batch, _ = store.open_batch(NewBatch(name=None, assistant="home", protocol="responses"))
    question = Question(row_id="q1", index=0, text="?")
    new = NewJob(question=question, assistant="home", assistant_digest=HOME.digest, protocol="responses")
    store.add(batch, [new])
    (held,) = store.claim(Lane.START, range(16), limit=1, lease_s=60)
    calls = tuple(
        WantedCall(key=f"1.{at}", call_id=f"c{at}", name=name, arguments="{}") for at, name in enumerate(names)
    )
    for name, more in (("intend", ()), ("start", ())):
        store.commit([Move(job=held.id, fence=held.fence, name=name, calls=more)])
    (held,) = store.claim(Lane.POLL, range(16), limit=1, lease_s=60)
    store.commit([Move(job=held.id, fence=held.fence, name="act", delay=60, fields={"rounds": 1}, calls=calls)])
    return held.id


def outputs(store: MemoryStore, job: str) -> list[str | None]:
    return [None if call.result is None else call.result.output for call in store.calls().look(job)]


def work(store: MemoryStore, host: Host, *, slice_s: float = 60.0) -> bool:
    """A slice that is over when nothing is due any more."""
    return Slice(store, host, lease_s=LEASE_S).work(slice_s=slice_s)


def test_everything_that_is_due_is_run_and_recorded(store: MemoryStore) -> None:
    host, job = Functions(), asked(store, "light", "fan", "light")
    assert not work(store, host), "and then there is no more"
    assert outputs(store, job) == ["light", "fan", "light"]
    assert store.calls().running() == 0


def test_a_lease_is_renewed_while_a_function_runs() -> None:
    """By a clock that goes on only when the lease was renewed: however slow the machine, it would run out otherwise."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.save_assistant(HOME.digest, HOME.to_json())
    host, job = Functions(), asked(store, "light")
    stolen: list[CallClaim] = []

    def slow(claim: CallClaim, wanted: Callable[[], bool]) -> CallResult:
        for _ in range(4):
            clock.advance(0.75 * LEASE_S)
            eventually(
                lambda: (store.calls().next_due() or 0.0) > 0.5 * LEASE_S, what="the lease is renewed", every=0.01
            )
            stolen.extend(store.calls().claim(limit=1, lease_s=LEASE_S))
        return CallResult(output="done")

    host.does = slow
    work(store, host)
    assert (outputs(store, job), stolen) == (["done"], [])


def test_what_was_not_begun_when_its_lease_ended_is_not_begun(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a process that is stopped just after its claim, when another has the call by then, then it runs nothing."""
    host, job = Functions(), asked(store, "light")
    honest = type(store.calls()).claim
    others: list[CallClaim] = []

    def claim(calls: Calls, *, limit: int, lease_s: float) -> list[CallClaim]:
        found = list(honest(calls, limit=limit, lease_s=lease_s))  # type: ignore[arg-type]
        until = time.monotonic() + 20
        while found and not others:
            others.extend(honest(calls, limit=1, lease_s=60))  # type: ignore[arg-type]
            assert time.monotonic() < until
            time.sleep(0.02)
        return found

    monkeypatch.setattr(type(store.calls()), "claim", claim)
    work(store, host)
    assert (len(others), host.ran) == (1, [])
    assert store.calls().finish(others[0], CallResult(output="on")) is Recorded.DONE
    assert outputs(store, job) == ["on"]


def test_a_function_hears_that_its_call_is_nobodys_any_more(store: MemoryStore) -> None:
    host, job = Functions(), asked(store, "light")

    def until_unwanted(claim: CallClaim, wanted: Callable[[], bool]) -> Aborted:
        assert wanted()
        store._calls.calls[job]["1.0"].fence += 1  # somebody else has it
        eventually(lambda: not wanted(), what="it hears of it")
        return Aborted()

    host.does = until_unwanted
    work(store, host, slice_s=0.05)
    assert outputs(store, job) == [None]


def test_an_output_waits_for_a_store_that_does_not_answer(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    host, job = Functions(), asked(store, "light")
    failures = iter([StoreUnreachable("gone"), StoreUnreachable("gone")])
    honest = type(store.calls()).finish

    def finish(calls: Calls, claim: CallClaim, result: CallResult, *, on_disk: bool) -> object:
        if (failure := next(failures, None)) is not None:
            raise failure
        return honest(calls, claim, result)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store.calls()), "finish", finish)
    work(store, host)
    assert (outputs(store, job), len(host.ran)) == (["light"], 1)


def test_what_must_not_run_twice_is_noted_before_it_runs(store: MemoryStore) -> None:
    host, job = Functions(), asked(store, "pay")

    def look(claim: CallClaim, wanted: Callable[[], bool]) -> CallResult:
        assert store._calls.calls[job]["1.0"].begun
        return CallResult(output="paid")

    host.does = look
    work(store, host)
    assert outputs(store, job) == ["paid"]


def test_no_more_executions_than_processes_for_them(store: MemoryStore) -> None:
    store.beat(Node(name="t@h", processes=0, pid=1, host="h", started_at=0.0, tools=1), ttl_s=60)
    host = Functions()
    asked(store, "light")
    store.calls().enlist("another", ttl_s=60)
    assert not work(store, host)
    assert host.ran == []


def test_two_at_once_never_run_the_same_call(store: MemoryStore) -> None:
    store.beat(Node(name="t@h", processes=0, pid=1, host="h", started_at=0.0, tools=2), ttl_s=60)
    hosts = [Functions(), Functions()]
    job = asked(store, *(["light"] * 20))
    for host in hosts:
        host.does = lambda claim, wanted: (time.sleep(0.005), CallResult(output="on"))[1]
    threads = [threading.Thread(target=work, args=(store, host)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs(store, job) == ["on"] * 20
    assert sorted(claim.wanted.key for host in hosts for claim in host.ran) == sorted(f"1.{at}" for at in range(20))


def test_an_assistant_nobody_knows_has_no_functions(store: MemoryStore) -> None:
    host, job = Functions(), asked(store, "light")
    store._assistants.clear()
    work(store, host)
    assert "unknown_function" in str(outputs(store, job)[0])
    assert host.ran == []
