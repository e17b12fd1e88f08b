"""The engine with runs of several rounds: answers that are asked for again, and files that are made on the way."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

import pytest

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Claim, State, Usage
from tests.unit.functions_stage import HOME, USED, Houses, Service, building
from worker.downloads import NotNow
from worker.protocols.base import (
    Ambiguous,
    Ask,
    RunState,
    Status,
)


@pytest.fixture
def houses() -> Iterator[Houses]:
    yield from building()


SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
FITS = dataclasses.replace(
    HOME, text_format={"type": "json_schema", "name": "x", "schema": SCHEMA}, on_invalid="retry", max_rounds=1
)


class Careless(Service):
    """Answers in prose first, and with what fits when it is asked again; `asks_again`: after functions once more."""

    def __init__(self, *, own_runs: bool, asks_again: bool) -> None:
        super().__init__(own_runs=own_runs)
        self.asks_again = asks_again
        self.asked: list[str] = []
        self.joins = 0

    async def join(self, ask: Ask, before: object) -> str:
        self.joins += 1
        return "mark"

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        if not ask.outputs:
            self.asked.append(ask.text)
        return await super().start(ask, thread_id, assistant_id)

    def _run(self, job: str) -> str:
        return f"run{len(self.creates)}/{job}"

    @property
    def corrects(self) -> bool:
        return len(self.asked) > 1

    def _round(self, job: str) -> int:
        given = super()._round(job)
        self.rounds = 2 if self.asks_again and self.corrects else 1
        return given

    def _answer(self, job: str, usage: Usage | None = USED) -> Answer:
        files = ({"kind": "file", "name": "a.csv", "path": "b/q/a.csv"},) if not self.corrects else ()
        return Answer(text='{"x": 1}' if self.corrects else "prose", files=files, usage=usage)

    async def poll(self, thread_id: str, run_id: str) -> Status:
        found = await super().poll(thread_id, run_id)
        if found.state is RunState.DONE and found.answer is not None:
            # Nothing is to be fetched here.
            return dataclasses.replace(found, answer=dataclasses.replace(found.answer, files=()))
        return found


@pytest.mark.parametrize("own_runs", [True, False])
@pytest.mark.parametrize("asks_again", [True, False])
def test_an_answer_that_took_functions_is_asked_for_again(houses: Houses, *, own_runs: bool, asks_again: bool) -> None:
    service = Careless(own_runs=own_runs, asks_again=asks_again)
    house = houses(service)
    done = house.finish(house.submit(assistant=FITS))
    assert (done.state, done.error_message) == (State.COMPLETED, None)
    assert done.answer is not None
    assert done.answer.text == '{"x": 1}'
    assert [text.partition(":")[0] for text in service.asked] == ["It is hot", "Your last answer cannot be used"]
    assert service.joins == 1
    assert [call["name"] for call in done.answer.tool_calls] == ["light", "fan"] * (1 + asks_again)
    assert set(house.functions.ran.values()) == {1}, "what was called before is not called again"
    runs = (3 + asks_again) if own_runs else 2
    assert (done.attempts, done.runs, len(service.creates)) == (runs, runs, runs)
    assert done.answer.usage is not None
    assert done.answer.usage.total_tokens == 7 * runs
    inputs = [part["input"] for part in done.answer.code]
    assert inputs == ([f"round {n}" for n in range(1 + asks_again)] if own_runs else [])
    assert house.store.calls().look(done.id) == []


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_correction_whose_reply_is_lost_submits_no_outputs(houses: Houses, *, own_runs: bool) -> None:
    service = Careless(own_runs=own_runs, asks_again=False)
    service.keyed = own_runs
    house = houses(service)
    tried = Counter[str]()

    def lose(what: str) -> None:
        tried[what] += 1
        if what == "question" and tried[what] == 2:
            raise Ambiguous("no_reply", "the reply was lost")

    service.after = lose
    done = house.finish(house.submit(assistant=FITS))
    assert (done.state, done.error_message) == (State.COMPLETED, None)
    assert len(service.given[done.id]) == 1
    assert len(service.creates) == (3 if own_runs else 2)


def test_a_correction_is_paid_from_the_budget_of_the_batch(houses: Houses) -> None:
    priced = dataclasses.replace(
        FITS, price={"input": 1.0, "output": 1.0}, max_output_tokens=100, max_prompt_tokens=100
    )
    house = houses(Careless(own_runs=True, asks_again=True))
    done = house.finish(house.submit(assistant=priced, max_cost_usd=1.0))
    assert done.state is State.COMPLETED
    status = house.store.batch(done.id.partition(".")[0])
    assert status is not None
    assert status.budget is not None
    assert status.budget.reserved_usd == 0
    assert status.budget.spent_usd == pytest.approx(0.4, abs=1e-4), "four runs, each counted once"


class Coding(Service):
    """Works with code before it asks for functions."""

    async def poll(self, thread_id: str, run_id: str) -> Status:
        found = await super().poll(thread_id, run_id)
        if found.state is not RunState.ACTION:
            return found
        return dataclasses.replace(found, answer=Answer(text=None, code=({"input": "1", "container_id": "c1"},)))


@pytest.mark.parametrize("error", [NotNow("the folder is full"), Ambiguous("cut", "3 of 9 bytes came")])
def test_files_of_a_round_are_there_before_its_functions_run(
    houses: Houses, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    house = houses(Coding(own_runs=True))
    tried: list[int] = []
    file = {"kind": "file", "name": "a.csv", "path": "b/q/a.csv", "file_id": "f"}

    async def fetched(claim: Claim, answer: Answer) -> Answer:
        tried.append(len(house.functions.ran))
        if len(tried) == 1:
            raise error
        return dataclasses.replace(answer, files=(file,))

    monkeypatch.setattr(house.engines[-1], "_fetched", fetched)
    done = house.finish(house.submit())
    assert (done.state, done.error_message) == (State.COMPLETED, None)
    assert done.answer is not None
    assert done.answer.files == (file,)
    assert [part["input"] for part in done.answer.code] == ["1"]
    assert tried == [0, 0], "tried again, and neither after the calls are on record"
    assert set(house.functions.ran.values()) == {1}
    assert len(house.service.creates) == 2


@pytest.mark.parametrize(("times", "text"), [(1, "half"), (9, None)])
def test_an_end_waits_a_little_for_what_the_run_has_made(
    houses: Houses, monkeypatch: pytest.MonkeyPatch, times: int, text: str | None
) -> None:
    coder = dataclasses.replace(HOME, tools=({"type": "code_interpreter"},), max_rounds=1)
    house = houses(Service(own_runs=False, rounds=9))
    tried = Counter[str]()

    async def answer(thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        tried["answer"] += 1
        if tried["answer"] <= times:
            raise Ambiguous("http_500", "not now")
        return Answer(text="half", code=({"input": "1", "output": "2"},))

    monkeypatch.setattr(house.service, "answer", answer)
    done = house.finish(house.submit(assistant=coder), seconds=40)
    assert done.error_code == "too_many_rounds"
    assert done.answer is not None
    assert done.answer.text == text
    assert [call["name"] for call in done.answer.tool_calls] == ["light", "fan"]
    assert tried["answer"] == (2 if text else 4)
    assert house.service.cancelled, "the run does not go on waiting"
