"""The engine with runs that ask for functions: a store in memory, a service that can be told to misbehave, functions
that count how often they ran."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from askq.assistants.model import Assistant
from askq.jobs.calls import CallClaim, CallResult, WantedCall
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Claim, Job, Lane, NewBatch, NewJob, Question, State, Usage
from tests.unit.test_engine import LEASE_S, PROBE_S
from worker import chain
from worker.downloads import NotNow
from worker.engine import Engine
from worker.protocols.base import (
    Ambiguous,
    Ask,
    Blocked,
    Found,
    Limited,
    Refused,
    RunState,
    Search,
    Status,
    ToolCall,
    ToolOutput,
)
from worker.tools.chain import Slice
from worker.tools.host import Aborted, Crashed, Host, failure

HOW = {name: {"module": "home", "function": name, "folder": "."} for name in ("light", "fan")}
HOME = Assistant(name="home", protocol="responses", model="m", functions=HOW, timeout_s=30.0)
USED = Usage(input_tokens=5, output_tokens=2, total_tokens=7, cost_usd=0.1)


class Service:
    """Asks for `light` and `fan` in each of `rounds` rounds, then answers with the last outputs.

    `own_runs`: outputs start runs of their own, as on Responses. `after` may raise when a create or submission has been
    carried out: its reply is lost then.
    """

    name = "responses"

    def __init__(self, *, own_runs: bool, rounds: int = 1) -> None:
        self.outputs_start_runs = own_runs
        self.lists_runs = not own_runs
        self.rounds = rounds
        self.keyed = False
        self.items = False
        """Whether the conversation shows what came of runs whose ids are lost."""
        self.creates: list[tuple[str, int]] = []
        self.given: dict[str, list[tuple[ToolOutput, ...]]] = {}
        self.submissions: Counter[str] = Counter()
        self.before: Callable[[str], None] = lambda what: None
        self.after: Callable[[str], None] = lambda what: None
        self.cancelled: list[str] = []
        self.ended: set[str] = set()

    async def ensure_assistant(self, assistant: Assistant, given: object = None) -> str | None:
        return None

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        return f"thread/{ask.job_id}"

    def _round(self, job: str) -> int:
        return len(self.given.get(job, []))

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        what = "outputs" if ask.outputs else "question"
        self.before(what)
        again = (ask.job_id, ask.attempt) in self.creates
        if not (self.keyed and again):
            self.creates.append((ask.job_id, ask.attempt))
            if ask.outputs:
                assert self.outputs_start_runs
                assert ask.text, "the question goes with them"
                self.given.setdefault(ask.job_id, []).append(ask.outputs)
        self.after(what)
        return Status(state=RunState.PENDING, raw="queued", run_id=self._run(ask.job_id), poll_after=0.02)

    def _run(self, job: str) -> str:
        return f"run{self._round(job) if self.outputs_start_runs else ''}/{job}"

    def _calls(self, job: str) -> tuple[ToolCall, ...]:
        round_ = self._round(job)
        return tuple(
            ToolCall(call_id=f"{name}-{round_}", name=name, arguments=json.dumps({"round": round_})) for name in HOW
        )

    async def poll(self, thread_id: str, run_id: str) -> Status:
        job = run_id.partition("/")[2]
        if run_id in self.cancelled and not self.outputs_start_runs:
            return Status(state=RunState.CANCELLED, raw="cancelled", run_id=run_id)
        if self._round(job) < self.rounds:
            usage = USED if self.outputs_start_runs else None
            raw = "completed" if self.outputs_start_runs else "requires_action"
            brought = Answer(text="one moment", code=({"input": f"round {self._round(job)}"},))
            return Status(
                state=RunState.ACTION,
                raw=raw,
                run_id=run_id,
                tool_calls=self._calls(job),
                usage=usage,
                answer=brought if self.outputs_start_runs else None,
            )
        return Status(state=RunState.DONE, raw="completed", run_id=run_id, usage=USED, answer=self._answer(job))

    def _answer(self, job: str, usage: Usage | None = USED) -> Answer:
        last = self.given[job][-1] if self.given.get(job) else ()
        return Answer(text=" ".join(output.output for output in last) or "no function needed", usage=usage)

    async def submit_tool_outputs(self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]) -> Status:
        assert not self.outputs_start_runs
        job = run_id.partition("/")[2]
        self.before("outputs")
        self.submissions[job] += 1
        if {output.call_id for output in outputs} != {call.call_id for call in self._calls(job)}:
            raise Refused("bad_request", "not what the run waits for")
        self.given.setdefault(job, []).append(outputs)
        self.after("outputs")
        return Status(state=RunState.PENDING, raw="queued", run_id=run_id, poll_after=0.02)

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        made = [attempt for job, attempt in self.creates if job == ask.job_id]
        if self.lists_runs:
            runs = (self._run(ask.job_id),) if made else ()
            return Found(search=Search.FOUND if runs else Search.NOT_STARTED, run_ids=runs)
        if not self.items or ask.attempt not in made:
            return Found(search=Search.UNKNOWN)
        if ask.outputs:
            assert self.given[ask.job_id][-1] == ask.outputs, "only what came after these outputs counts"
        if self._round(ask.job_id) < self.rounds:
            return Found(search=Search.ASKED, tool_calls=self._calls(ask.job_id))
        return Found(search=Search.ANSWERED, answer=self._answer(ask.job_id, None))

    async def unread(self, ask: Ask, thread_id: str) -> None:
        return None

    async def repeats_safely(self) -> bool:
        return self.keyed

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        return self._answer(run_id.partition("/")[2])

    async def cancel(self, thread_id: str, run_id: str) -> None:
        self.cancelled.append(run_id)

    async def cleanup(self, thread_id: str, run_ids: tuple[str, ...]) -> None: ...

    async def check(self) -> None: ...


class Functions(Host):
    """Functions that count how often they ran, and do what they are told."""

    def __init__(self) -> None:
        super().__init__([], timeout_s=1.0, memory_mb=0)
        self.ran: Counter[tuple[str, str, str]] = Counter()
        self.does: Callable[[CallClaim], CallResult | Crashed | Aborted] = lambda claim: CallResult(
            output=f"{claim.wanted.name} done", seconds=0.01
        )

    def run(self, claim: CallClaim, assistant: Assistant, wanted: Callable[[], bool]) -> CallResult | Crashed | Aborted:
        self.ran[claim.job, claim.wanted.key, claim.wanted.name] += 1
        return self.does(claim)


class House:
    """A store, a service, an engine and what runs functions."""

    def __init__(self, service: Service) -> None:
        self.store = MemoryStore()
        self.service = service
        self.functions = Functions()
        self.nudged = 0
        self.engines: list[Engine] = []
        self.engine()

    def engine(self) -> Engine:
        def nudge() -> None:
            self.nudged += 1

        made = Engine(
            self.store,
            lambda: {"responses": self.service},
            None,
            account="acc",
            host="service.test",
            lease_s=LEASE_S,
            in_flight=50,
            probe_s=PROBE_S,
            nudge_tools=nudge,
        )
        made.call(made.open())
        self.engines.append(made)
        return made

    def submit(self, *, assistant: Assistant = HOME, max_cost_usd: float | None = None) -> str:
        self.store.save_assistant(assistant.digest, assistant.to_json())
        new = NewBatch(name=None, assistant="home", protocol="responses", max_cost_usd=max_cost_usd)
        batch, _ = self.store.open_batch(new)
        question = Question(row_id="q1", index=0, text="It is hot", model="row-model")
        digest = assistant.digest
        self.store.add(
            batch, [NewJob(question=question, assistant="home", assistant_digest=digest, protocol="responses")]
        )
        self.store.seal(batch, 1)
        return f"{batch}.q1"

    def job(self, job: str) -> Job:
        found = self.store.job(job)
        assert found is not None
        return found

    def step(self, *, tools: bool = True) -> None:
        for lane in Lane:
            self.engines[-1].call(chain.work(self.engines[-1], lane, slice_s=0.05))
        if tools:
            Slice(self.store, self.functions, lease_s=LEASE_S).work(slice_s=0.05)

    def until(self, done: Callable[[], bool], *, seconds: float = 20.0, tools: bool = True) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "the condition did not come true in time"
            self.step(tools=tools)
            time.sleep(0.01)

    def finish(self, job: str, *, seconds: float = 20.0) -> Job:
        self.until(lambda: self.job(job).state.terminal, seconds=seconds)
        return self.job(job)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


Houses = Callable[[Service], House]


@pytest.fixture
def houses() -> Iterator[Houses]:
    made: list[House] = []

    def build(service: Service) -> House:
        made.append(House(service))
        return made[-1]

    yield build
    for house in made:
        house.close()


@pytest.mark.parametrize("own_runs", [True, False])
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_functions_are_run_once_and_answered(houses: Houses, rounds: int, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs, rounds=rounds))
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert done.answer is not None
    assert done.answer.text == ("light done fan done" if rounds else "no function needed")
    assert [call["name"] for call in done.answer.tool_calls] == ["light", "fan"] * rounds
    assert set(house.functions.ran.values()) <= {1}
    assert [part["input"] for part in done.answer.code] == [f"round {n}" for n in range(rounds if own_runs else 0)]
    runs = rounds + 1 if own_runs else 1
    assert (done.attempts, done.runs, len(house.service.creates)) == (runs, runs, runs)
    assert [attempt for _, attempt in house.service.creates] == list(range(1, runs + 1))
    assert done.answer.usage is not None
    assert done.answer.usage.total_tokens == 7 * runs
    assert done.answer.usage.cost_usd == pytest.approx(0.1 * runs)
    assert house.store.calls().look(done.id) == [], "nothing is left behind"
    assert bool(house.nudged) is bool(rounds)
    status = house.store.batch(done.id.partition(".")[0])
    assert status is not None
    assert status.usage.total_tokens == 7 * runs


@pytest.mark.parametrize("own_runs", [True, False])
def test_outputs_are_on_record_before_they_are_submitted(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs))
    job = house.submit()

    def look(what: str) -> None:
        if what == "outputs":
            assert [call.result is not None for call in house.store.calls().look(job)] == [True, True]

    house.service.before = look
    assert house.finish(job).state is State.COMPLETED


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_submission_whose_reply_is_lost_runs_nothing_again(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs, rounds=2))
    house.service.items = True
    lost = Counter[str]()

    def lose(what: str) -> None:
        lost[what] += 1
        if what == "outputs" and lost[what] == 1:
            raise Ambiguous("no_reply", "the reply was lost")

    house.service.after = lose
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert set(house.functions.ran.values()) == {1}
    assert len(house.functions.ran) == 4
    assert done.runs == len(house.service.creates) == (3 if own_runs else 1)


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_submission_that_was_not_carried_out_is_made_again(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs))
    house.service.keyed = own_runs
    tried = Counter[str]()

    def fail(what: str) -> None:
        tried[what] += 1
        if what == "outputs" and tried[what] == 1:
            raise Ambiguous("no_reply", "it did not even arrive")

    house.service.before = fail
    done = house.finish(house.submit(), seconds=30)
    assert done.state is State.COMPLETED
    assert set(house.functions.ran.values()) == {1}
    assert done.attempts == (2 if own_runs else 1)
    assert len(house.service.creates) == (2 if own_runs else 1)


def test_a_limit_while_outputs_are_submitted_is_waited_out(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    tried = Counter[str]()

    def limit(what: str) -> None:
        tried[what] += 1
        if what == "outputs" and tried[what] < 3:
            raise Limited("rate_limit_exceeded", "slow down", retry_after=0.05)

    house.service.before = limit
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert (done.attempts, done.runs) == (2, 2), "a refusal is no attempt"
    assert set(house.functions.ran.values()) == {1}


def test_outputs_wait_while_the_account_is_out_of_credit(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    tried = Counter[str]()

    def block(what: str) -> None:
        tried[what] += 1
        if what == "outputs" and tried[what] < 4:
            raise Blocked("quota_exhausted", "no credit left")

    house.service.before = block
    job = house.submit()
    began = time.monotonic()
    done = house.finish(job)
    assert done.state is State.COMPLETED
    assert (done.attempts, done.runs, tried["outputs"]) == (2, 2, 4)
    assert time.monotonic() - began > 3 * PROBE_S, "it is probed, and not hammered"
    assert house.store.pauses() == []
    assert set(house.functions.ran.values()) == {1}


def test_a_first_run_whose_reply_is_lost_is_found_by_what_it_asks_for(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    house.service.items = True

    def lose(what: str) -> None:
        if what == "question":
            raise Ambiguous("no_reply", "the reply was lost")

    house.service.after = lose
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert (done.attempts, done.runs, len(house.service.creates)) == (2, 2, 2)
    assert done.answer is not None
    assert done.answer.usage is not None
    assert done.answer.usage.cost_usd is None, "what the first run cost nobody knows"


def test_an_uncertain_submission_ends_in_doubt_with_its_calls(houses: Houses) -> None:
    house = houses(Service(own_runs=True))

    def lose(what: str) -> None:
        if what == "outputs":
            raise Ambiguous("no_reply", "the reply was lost")

    house.service.after = lose
    done = house.finish(house.submit(assistant=dataclasses.replace(HOME, timeout_s=1.0)))
    assert (done.state, done.error_code) == (State.UNCERTAIN, "uncertain_create")
    assert done.answer is not None
    assert [call["output"] for call in done.answer.tool_calls] == ["light done", "fan done"]
    assert len(house.service.creates) == 2, "nothing was paid for twice"


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_worker_that_dies_at_any_step_costs_nothing(houses: Houses, *, own_runs: bool) -> None:
    """A new engine goes on from the store alone."""
    house = houses(Service(own_runs=own_runs, rounds=2))
    house.service.keyed = True
    job = house.submit()
    until = time.monotonic() + 30
    while not house.job(job).state.terminal:
        assert time.monotonic() < until
        house.step()
        house.engine()
    done = house.job(job)
    assert done.state is State.COMPLETED
    assert set(house.functions.ran.values()) == {1}
    assert done.runs == len(house.service.creates) == (3 if own_runs else 1)


def test_an_error_is_an_output_that_the_model_answers(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    house.functions.does = lambda claim: failure("exception", "ValueError: broken")
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert done.answer is not None
    assert "ValueError: broken" in (done.answer.text or "")
    assert [call["error"] for call in done.answer.tool_calls] == ["exception", "exception"]


def test_a_function_that_kills_its_process_is_tried_three_times(houses: Houses) -> None:
    house = houses(Service(own_runs=False))
    house.functions.does = lambda claim: Crashed("it was killed by SIGSEGV", "")
    done = house.finish(house.submit())
    assert done.state is State.COMPLETED
    assert done.answer is not None
    assert set(house.functions.ran.values()) == {3}
    assert {call["error"] for call in done.answer.tool_calls} == {"crashed"}


def test_a_function_that_must_not_run_twice_does_not(houses: Houses) -> None:
    once = dataclasses.replace(HOME, functions={name: how | {"once": True} for name, how in HOW.items()})
    house = houses(Service(own_runs=True))
    house.functions.does = lambda claim: Crashed("it was killed by SIGKILL", "")
    done = house.finish(house.submit(assistant=once))
    assert set(house.functions.ran.values()) == {1}
    assert done.answer is not None
    assert {call["error"] for call in done.answer.tool_calls} == {"unknown_outcome"}


def test_runs_are_put_off_while_too_many_functions_wait(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    full = house.store.calls().waiting
    house.store._calls.offer(
        "b_0.other", [WantedCall(key=f"1.{n}", call_id="c", name="f", arguments="") for n in range(51)], 0
    )
    assert full() == 51
    job = house.submit()
    house.until(lambda: (house.job(job).note or "").startswith("51 function calls wait"), tools=False)
    assert house.service.creates == []
    house.store._calls.calls.clear()
    assert house.finish(job).state is State.COMPLETED


def test_rounds_without_end_come_to_one(houses: Houses) -> None:
    house = houses(Service(own_runs=False, rounds=99))
    done = house.finish(house.submit(assistant=dataclasses.replace(HOME, max_rounds=2)))
    assert (done.state, done.error_code) == (State.FAILED, "too_many_rounds")
    assert done.answer is not None
    assert len(done.answer.tool_calls) == 4
    assert house.service.cancelled, "the run does not go on waiting"


def test_a_function_nobody_can_load_ends_the_job(houses: Houses) -> None:
    house = houses(Service(own_runs=False))
    house.functions.does = lambda claim: CallResult(output="home.py:1: is not Python", error="unavailable")
    done = house.finish(house.submit())
    assert (done.state, done.error_code) == (State.FAILED, "function_unavailable")
    assert "home.py:1" in (done.error_message or "")
    assert house.service.cancelled


@pytest.mark.parametrize("own_runs", [True, False])
def test_a_job_is_cancelled_while_it_waits_for_functions(houses: Houses, *, own_runs: bool) -> None:
    house = houses(Service(own_runs=own_runs))
    job = house.submit()
    house.until(lambda: house.job(job).state is State.ACTION, tools=False)
    house.store.cancel([job])
    done = house.finish(job)
    assert (done.state, done.error_code) == (State.CANCELLED, "cancelled")
    assert not house.functions.ran, "what nobody waits for is not run"
    assert bool(house.service.cancelled) is not own_runs
    if own_runs:
        assert done.answer is not None
        assert done.answer.usage == USED, "it has cost what it has cost"


def test_a_deadline_ends_a_job_whose_functions_never_end(houses: Houses) -> None:
    house = houses(Service(own_runs=True))
    house.functions.does = lambda claim: Crashed("it was killed", "") if claim.crashes < 1 else Aborted()
    done = house.finish(house.submit(assistant=dataclasses.replace(HOME, timeout_s=1.0)))
    assert (done.state, done.error_code) == (State.EXPIRED, "deadline")


def test_outputs_are_paid_from_the_budget_of_the_batch(houses: Houses) -> None:
    priced = dataclasses.replace(
        HOME, price={"input": 1.0, "output": 1.0}, max_output_tokens=100, max_prompt_tokens=100
    )
    house = houses(Service(own_runs=True, rounds=2))
    job = house.submit(assistant=priced, max_cost_usd=1.0)
    done = house.finish(job)
    assert done.state is State.COMPLETED
    status = house.store.batch(job.partition(".")[0])
    assert status is not None
    assert status.budget is not None
    assert status.budget.reserved_usd == 0
    assert status.budget.spent_usd == pytest.approx(0.3, abs=1e-4), "three runs, each counted once"


def test_a_budget_that_does_not_cover_the_outputs_makes_them_wait(houses: Houses) -> None:
    priced = dataclasses.replace(
        HOME, price={"input": 1000.0, "output": 1000.0}, max_output_tokens=100, max_prompt_tokens=100, timeout_s=1.5
    )
    house = houses(Service(own_runs=True))
    job = house.submit(assistant=priced, max_cost_usd=0.61)  # a run costs 0.6 at worst
    done = house.finish(job)
    assert (done.error_code, len(house.service.creates)) == ("deadline", 1)
    assert set(house.functions.ran.values()) == {1}


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
    done = house.finish(house.submit(assistant=FITS), seconds=30)
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
