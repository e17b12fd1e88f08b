"""A store in memory, a service that asks for functions and can be told to misbehave, functions that count how often
they ran, and an engine."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator

from askq.assistants.model import Assistant
from askq.jobs.calls import CallClaim, CallResult
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Job, Lane, NewBatch, NewJob, Question, Usage
from tests.unit.engine_stage import LEASE_S, opened
from worker import chain
from worker.engine import Engine
from worker.protocols.base import (
    Ask,
    Found,
    Refused,
    RunState,
    Search,
    Status,
    ToolCall,
    ToolOutput,
)
from worker.tools.chain import Slice
from worker.tools.host import Aborted, Crashed, Host

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

        made = opened(self.store, {"responses": self.service}, nudge_tools=nudge)
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

    def until(self, done: Callable[[], bool], *, seconds: float = 60.0, tools: bool = True) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "the condition did not come true in time"
            self.step(tools=tools)
            time.sleep(0.01)

    def finish(self, job: str, *, seconds: float = 60.0) -> Job:
        self.until(lambda: self.job(job).state.terminal, seconds=seconds)
        return self.job(job)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


Houses = Callable[[Service], House]


def building() -> Iterator[Houses]:
    """Builds houses, and closes them at the end."""
    made: list[House] = []

    def build(service: Service) -> House:
        made.append(House(service))
        return made[-1]

    yield build
    for house in made:
        house.close()
