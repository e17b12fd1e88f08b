"""A protocol with failpoints does what the one does that it stands before, and comes to each point in order."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

from askq import failpoints
from askq.failpoints import Failpoint, arm
from askq.jobs.objects import Kind
from tests.unit.protocols_stage import ask, assistant
from worker.protocols.base import NOTHING_GIVEN, Before, Found, Listing, Protocol, RunState, Search, Status
from worker.protocols.failing import FailingProtocol

STATUS = Status(state=RunState.PENDING, raw="queued", run_id="run_1")
FOUND = Found(search=Search.NOT_STARTED)


class Spoken:
    """Answers everything, and remembers what it was asked."""

    name = "responses"
    outputs_start_runs = False
    lists_runs = True
    resumes = True

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    async def ensure_assistant(self, *given: object) -> str | None:
        self.calls.append(("ensure_assistant", *given))
        return "asst_1"

    async def prepare(self, *given: object) -> str:
        self.calls.append(("prepare", *given))
        return "thread_1"

    async def join(self, *given: object) -> str:
        self.calls.append(("join", *given))
        return "item_1"

    async def start(self, *given: object) -> Status:
        self.calls.append(("start", *given))
        return STATUS

    async def find_started(self, *given: object) -> Found:
        self.calls.append(("find_started", *given))
        return FOUND

    async def start_live(self, *given: object) -> tuple[Status, None]:
        self.calls.append(("start_live", *given))
        return STATUS, None

    async def resume_live(self, *given: object) -> None:
        self.calls.append(("resume_live", *given))

    async def repeats_safely(self) -> bool:
        self.calls.append(("repeats_safely",))
        return True

    async def unread(self, *given: object) -> None:
        self.calls.append(("unread", *given))

    async def poll(self, *given: object) -> Status:
        self.calls.append(("poll", *given))
        return STATUS

    async def answer(self, *given: object) -> str:
        self.calls.append(("answer", *given))
        return "the answer"

    async def cancel(self, *given: object) -> None:
        self.calls.append(("cancel", *given))

    async def submit_tool_outputs(self, *given: object) -> object:
        self.calls.append(("submit_tool_outputs", *given))
        return STATUS

    async def submit_tool_outputs_live(self, *given: object) -> tuple[Status, None]:
        self.calls.append(("submit_tool_outputs_live", *given))
        return STATUS, None

    async def delete(self, *given: object) -> bool:
        self.calls.append(("delete", *given))
        return True

    async def listed(self, *given: object) -> list[Listing]:
        self.calls.append(("listed", *given))
        return []

    async def check(self) -> None:
        self.calls.append(("check",))


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


ASK, TUTOR = ask(), assistant()
BEFORE = Before(thread_id="thread_1", run_id="run_0", joined="", answered=True)
CALLS: list[tuple[str, str | None, tuple[object, ...], object]] = [
    ("ensure_assistant", "ensure_assistant", (TUTOR, NOTHING_GIVEN), "asst_1"),
    ("unread", "index", (ASK, "thread_1"), None),
    ("prepare", "prepare", (ASK, "asst_1"), "thread_1"),
    ("join", "join", (ASK, BEFORE), "item_1"),
    ("start", "start", (ASK, "thread_1", "asst_1"), STATUS),
    ("start_live", "start_live", (ASK, "thread_1", "asst_1"), (STATUS, None)),
    ("resume_live", "resume_live", ("thread_1", "run_1", None), None),
    ("find_started", "find", (ASK, "thread_1"), FOUND),
    ("repeats_safely", "probe", (), True),
    ("poll", "poll", ("thread_1", "run_1"), STATUS),
    ("submit_tool_outputs", "submit", ("thread_1", "run_1", ()), STATUS),
    ("submit_tool_outputs_live", "submit_live", ("thread_1", "run_1", ()), (STATUS, None)),
    ("answer", "answer", ("thread_1", "run_1", TUTOR), "the answer"),
    ("cancel", "cancel", ("thread_1", "run_1"), None),
    ("delete", "delete", (Kind.THREAD, "thread_1"), True),
    ("listed", None, (Kind.ASSISTANT,), []),
    ("check", None, (), None),
]


OF_FILES = {
    *("upload", "file.delete", "store.create", "store.fill", "store.look", "store.delete", "made", "download"),
}
"""Calls about files: another class makes them."""


def test_every_call_of_the_interface_is_here() -> None:
    methods = {name for name, _ in inspect.getmembers(Protocol, inspect.isfunction) if not name.startswith("_")}
    assert {name for name, *_ in CALLS} == methods
    assert {point for _, point, *_ in CALLS if point is not None} == set(failpoints.CALLS) - OF_FILES


@pytest.mark.parametrize(("name", "point", "given", "said"), CALLS, ids=[name for name, *_ in CALLS])
async def test_a_call_is_passed_on_as_it_is_and_may_die_before_and_after(
    name: str, point: str | None, given: tuple[object, ...], said: object
) -> None:
    spoken = Spoken()
    failing = FailingProtocol(spoken)  # type: ignore[arg-type]  it remembers whatever it is given
    assert (failing.name, failing.lists_runs) == (spoken.name, spoken.lists_runs)
    assert (failing.outputs_start_runs, failing.resumes) == (spoken.outputs_start_runs, spoken.resumes)
    assert await getattr(failing, name)(*given) == said
    assert spoken.calls == [(name, *given)]
    if point is None:
        return
    for side, calls in (("before", 1), ("after", 2)):
        arm(f"{point}.{side}=raise")
        with pytest.raises(Failpoint, match=rf"{point}\.{side}"):
            await getattr(failing, name)(*given)
        assert len(spoken.calls) == calls, "nothing is sent before, everything after"
