"""Services that say strange things of their limits: every question is answered, by one run, without a stall.

The real adapter and the real engine, all services at once, each as a model of its own with limits of its own. What each
strange word is taken for, one by one, is in test_protocols_hints, test_gate and test_limits.
"""

from __future__ import annotations

import email.utils
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

import httpx2
import pytest
from openai import AsyncOpenAI

from askq.assistants.model import Assistant
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, NewBatch, NewJob, Question, State
from worker import chain
from worker.engine import Engine
from worker.protocols.base import Protocol
from worker.protocols.responses import ResponsesProtocol

ROWS = 6
DEADLINE_S = 120.0
"""Generous: alone it takes about three seconds, most of them the waits that were asked for."""
TUTOR = Assistant(name="tutor", protocol="responses", model="m")

Said = tuple[bool, dict[str, str]]
"""Whether the call is refused, and the headers of its reply."""


def told(limit: object, remaining: object, reset: object, *, of: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{of}": str(limit),
        f"x-ratelimit-remaining-{of}": str(remaining),
        f"x-ratelimit-reset-{of}": str(reset),
    }


def always(headers: dict[str, str]) -> Callable[[int], Said]:
    return lambda call: (False, headers)


def third_refused(headers: Callable[[], dict[str, str]]) -> Callable[[int], Said]:
    """The third call is refused, and told when to come again."""
    return lambda call: (True, headers()) if call == 2 else (False, {})


def date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


HOURS = 3 * 3600
draw = random.Random(5)
SERVICES: Mapping[str, Callable[[int], Said]] = {
    "limits of nought": always(told(0, 0, "0s")),
    "negative": always(told(-1, -1, "-5s")),
    "absurd": always(told("1e300", "999999999999", "1790000000000")),
    "words": always(told("plenty", "some", "soon")),
    "more left than the limit": always(told(10, 500, "1s")),
    "a limit without a reset": always({"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "0"}),
    "changing": lambda call: (
        False,
        told(draw.choice(["600", "0", "1e6", ""]), draw.choice(["", "1", "50", "-7"]), draw.choice(["", "20ms", "1s"])),
    ),
    "against its own headers": lambda call: (call % 4 == 3, {**told(1000, 999, "60ms"), "retry-after": "0.2"}),
    "a fraction": third_refused(lambda: {"retry-after": "0.25"}),
    "a word": third_refused(lambda: {"retry-after": "soon"}),
    "milliseconds against an hour": third_refused(lambda: {"retry-after-ms": "200", "retry-after": "3600"}),
    "a date": third_refused(lambda: {"retry-after": date(1)}),
    "a date by a clock three hours ahead": third_refused(lambda: {"retry-after": date(HOURS + 1), "date": date(HOURS)}),
    "a date by a clock three hours behind": third_refused(
        lambda: {"retry-after": date(1 - HOURS), "date": date(-HOURS)}
    ),
    "a date long past": third_refused(lambda: {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}),
    "tokens nobody can estimate": always(told(90_000, 80_000, "6s", of="tokens")),
    "tokens told in words": always(told("many", "enough", "later", of="tokens")),
}
USED: Mapping[str, object] = {
    "tokens nobody can estimate": {"total_tokens": 10**15, "input_tokens": -5, "output_tokens": "a lot"},
    "tokens told in words": {"total_tokens": None},
}


class Service:
    """Speaks as much of Responses as is needed."""

    def __init__(self, services: Mapping[str, Callable[[int], Said]]) -> None:
        self._services = services
        self._numbers = itertools.count(1)
        self.calls: Counter[str] = Counter()
        self.made: dict[str, list[str]] = defaultdict(list)
        """Model → the jobs whose runs it made."""

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        match request.method, request.url.path.removeprefix("/v1/").split("/"):
            case "POST", ["conversations"]:
                return httpx2.Response(200, json={"id": f"conv_{next(self._numbers)}"})
            case "POST", ["responses"]:
                return self._create(json.loads(request.content))
            case "GET", ["responses", run]:
                return self._ended(run)
        return httpx2.Response(200, json={"data": []})

    def _create(self, body: Mapping[str, object]) -> httpx2.Response:
        model, metadata = str(body["model"]), body["metadata"]
        assert isinstance(metadata, dict)
        refused, headers = self._services[model](self.calls[model])
        self.calls[model] += 1
        if refused:
            error = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded", "type": "requests"}}
            return httpx2.Response(429, json=error, headers=headers)
        self.made[model].append(metadata["askq_job"])
        run = f"resp_{list(self._services).index(model)}_{next(self._numbers)}"
        return httpx2.Response(200, json={"id": run, "status": "queued"}, headers=headers)

    def _ended(self, run: str) -> httpx2.Response:
        model = list(self._services)[int(run.split("_")[1])]
        said = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Because."}]}]
        usage = USED.get(model, {"total_tokens": 20})
        return httpx2.Response(200, json={"id": run, "status": "completed", "output": said, "usage": usage})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


Begin = Callable[[Service], Engine]


@pytest.fixture
def begin(store: MemoryStore) -> Iterator[Begin]:
    made: list[Engine] = []

    def begin(service: Service) -> Engine:
        def protocols() -> Mapping[str, Protocol]:
            transport = httpx2.AsyncClient(transport=httpx2.MockTransport(service))
            client = AsyncOpenAI(
                api_key="sk-test", base_url="http://service.test/v1", max_retries=0, http_client=transport
            )
            return {"responses": ResponsesProtocol(client)}

        engine = Engine(
            store, protocols, None, account="acc", host="service.test", lease_s=30.0, in_flight=200, probe_s=1.0
        )
        engine.call(engine.open())
        made.append(engine)
        return engine

    yield begin
    for engine in made:
        engine.close()


def submit(store: MemoryStore, models: list[str]) -> str:
    store.save_assistant(TUTOR.digest, TUTOR.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="tutor", protocol="responses"))
    rows = [(model, number) for number in range(ROWS) for model in models]
    store.add(
        batch,
        [
            NewJob(
                question=Question(row_id=f"q{index}", index=index, text="Why?", model=model),
                assistant="tutor",
                assistant_digest=TUTOR.digest,
                protocol="responses",
            )
            for index, (model, _) in enumerate(rows)
        ],
    )
    store.seal(batch, len(rows))
    return batch


def answer(store: MemoryStore, batch: str, engine: Engine, *, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Run both chains until the batch has ended."""
    until = time.monotonic() + DEADLINE_S
    while not ((status := store.batch(batch)) and status.done):
        left = Counter(job.question.model for job in store.jobs(batch) if not job.state.terminal)
        assert time.monotonic() < until, f"still waiting: {left}"
        meanwhile()
        for lane in Lane:
            engine.call(chain.work(engine, lane, slice_s=0.2))


def test_no_service_makes_a_question_wait_for_nothing(store: MemoryStore, begin: Begin) -> None:
    service = Service(SERVICES)
    batch = submit(store, list(SERVICES))
    answer(store, batch, begin(service))
    jobs = list(store.jobs(batch))
    assert {job.state for job in jobs} == {State.COMPLETED}
    assert {job.attempts for job in jobs} == {1}, "a refusal is no attempt"
    for model in SERVICES:
        assert sorted(service.made[model]) == sorted(job.id for job in jobs if job.question.model == model), model


def test_a_record_of_limits_that_is_deleted_again_and_again_is_begun_anew(store: MemoryStore, begin: Begin) -> None:
    """Given a service that refuses each fifth call, when its record vanishes all the time, then nothing stalls."""
    service = Service({"forgetful": lambda call: (call % 5 == 4, {"retry-after": "0.1"})})
    batch = submit(store, ["forgetful"] * 5)
    deleted = 0

    def delete() -> None:
        nonlocal deleted
        deleted += len(store._limits)
        store._limits.clear()

    answer(store, batch, begin(service), meanwhile=delete)
    jobs = list(store.jobs(batch))
    assert deleted >= 2
    assert {job.state for job in jobs} == {State.COMPLETED}
    assert sorted(service.made["forgetful"]) == sorted(job.id for job in jobs)
