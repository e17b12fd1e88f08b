"""What a worker makes of budgets: put aside before the intent, settled after the end, never in doubt of the bound."""

from __future__ import annotations

import dataclasses

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreUnreachable
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Budget, Claim, Lane, Move, NewBatch, NewJob, Question, Usage
from worker.budgets import Budgets, Verdict
from worker.protocols.base import Ask, Given, Image

PRICED = Assistant(
    name="tutor", protocol="responses", model="house", max_output_tokens=1000, price={"input": 1.0, "output": 10.0}
)
WORST = 0.010503
"""1,000 tokens of output at 10 dollars per million, and the 503 that "Hi?" may be read as at 1 dollar."""


def submit(store: MemoryStore, rows: int, limit_usd: float | None) -> str:
    batch, _ = store.open_batch(NewBatch(name=None, assistant="a", protocol="responses", max_cost_usd=limit_usd))
    jobs = [
        NewJob(
            question=Question(row_id=f"q{row}", index=row, text="Hi?"),
            assistant="a",
            assistant_digest="d",
            protocol="responses",
        )
        for row in range(rows)
    ]
    store.add(batch, jobs)
    store.seal(batch, rows)
    return batch


def claims(store: MemoryStore) -> list[Claim]:
    return sorted(store.claim(Lane.START, range(16), limit=100, lease_s=600), key=lambda claim: claim.id)


def ask(claim: Claim, assistant: Assistant = PRICED, **more: str) -> Ask:
    return Ask(job_id=claim.id, text="Hi?", assistant=assistant, **more)  # type: ignore[arg-type]


def budget(store: MemoryStore, batch: str) -> Budget:
    status = store.batch(batch)
    assert status is not None
    assert status.budget is not None
    return status.budget


def end(store: MemoryStore, claim: Claim, cost: float | None, *, attempts: int = 1) -> Move:
    store.commit([Move(job=claim.id, fence=claim.fence, name="intend", fields={"attempts": attempts})])
    usage = Usage(total_tokens=1, cost_usd=cost)
    move = Move(job=claim.id, fence=claim.fence, name="complete", answer=Answer(text="x", usage=usage))
    assert store.commit([move]) == ["moved"]
    return move


async def test_a_batch_without_a_budget_is_granted_everything_and_asked_about_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    batch = submit(store, 3, None)
    budgets, looks = Budgets(store, "service.test"), []
    seen = store.batch
    monkeypatch.setattr(store, "batch", lambda id_: looks.append(id_) or seen(id_))  # type: ignore[func-returns-value]
    for claim in claims(store):
        assert (
            await budgets.reserve(claim, ask(claim, Assistant(name="a", protocol="responses", model="m"))) == "granted"
        )
        await budgets.ended(claim, end(store, claim, 1.0))
    assert looks == [batch]


async def test_what_a_run_may_cost_is_put_aside_and_becomes_what_it_has_cost() -> None:
    store = MemoryStore()
    batch = submit(store, 3, 0.025)
    budgets = Budgets(store, "service.test")
    one, two, three = claims(store)
    assert budgets.at_worst(ask(one)) == pytest.approx(WORST)
    assert await budgets.reserve(one, ask(one)) is Verdict.GRANTED
    assert await budgets.reserve(two, ask(two)) is Verdict.GRANTED
    assert await budgets.reserve(three, ask(three)) is Verdict.REFUSED
    assert budget(store, batch).reserved_usd == pytest.approx(2 * WORST)
    await budgets.ended(one, end(store, one, 0.001))
    assert (budget(store, batch).spent_usd, budget(store, batch).reserved_usd) == pytest.approx((0.001, WORST))
    assert await budgets.reserve(three, ask(three)) is Verdict.GRANTED


async def test_a_move_that_ends_nothing_settles_nothing() -> None:
    store = MemoryStore()
    batch = submit(store, 1, 1.0)
    budgets = Budgets(store, "service.test")
    (claim,) = claims(store)
    await budgets.reserve(claim, ask(claim))
    for name in ("prepare", "intend", "start", "poll", "collect", "defer", "void"):
        await budgets.ended(claim, Move(job=claim.id, fence=claim.fence, name=name))
    assert budget(store, batch).reserved_usd == pytest.approx(WORST)


async def test_what_a_worker_that_died_left_aside_is_found_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    batch = submit(store, 3, 0.011)
    dead, alive = Budgets(store, "service.test"), Budgets(store, "service.test")
    one, two, three = claims(store)
    assert await dead.reserve(one, ask(one)) is Verdict.GRANTED
    end(store, one, 0.0001)
    assert await alive.reserve(two, ask(two)) is Verdict.GRANTED, "the end of the first is settled first"
    assert budget(store, batch).spent_usd == pytest.approx(0.0001)
    end(store, two, 0.0001)
    assert await alive.reserve(three, ask(three)) is Verdict.REFUSED, "looked for a moment ago: not so soon again"
    monkeypatch.setattr("worker.budgets._RECONCILE_EVERY_S", 0.0)
    assert await alive.reserve(three, ask(three)) is Verdict.GRANTED


async def test_a_job_whose_worst_nobody_knows_is_never_asked_under_a_budget() -> None:
    store = MemoryStore()
    batch = submit(store, 1, 1.0)
    (claim,) = claims(store)
    unpriced = Assistant(name="a", protocol="responses", model="house", max_output_tokens=10)
    assert await Budgets(store, "service.test").reserve(claim, ask(claim, unpriced)) is Verdict.UNBOUNDED
    assert budget(store, batch).reserved_usd == 0.0


async def test_a_store_that_is_away_at_the_end_does_not_undo_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    batch = submit(store, 1, 1.0)
    budgets = Budgets(store, "service.test")
    (claim,) = claims(store)
    await budgets.reserve(claim, ask(claim))
    move = end(store, claim, 0.002)

    def away(batch: str, *, only: str | None = None) -> int:
        raise StoreUnreachable("Redis does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "reconcile_budget", away)
        await budgets.ended(claim, move)
    assert budget(store, batch).reserved_usd > 0
    assert store.reconcile_budget(batch) == 1
    assert budget(store, batch) == Budget(limit_usd=1.0, spent_usd=0.002, reserved_usd=0.0)


async def test_what_is_read_of_a_row_counts_for_that_row() -> None:
    budgets = Budgets(MemoryStore(), "api.openai.com")
    store = MemoryStore()
    submit(store, 1, None)
    (claim,) = claims(store)
    known = Assistant(name="a", protocol="responses", model="gpt-5", max_output_tokens=1000)
    usual = budgets.at_worst(ask(claim, known))
    assert usual is not None
    longer = budgets.at_worst(ask(claim, known, instructions="word " * 1000))
    assert longer is not None
    assert longer > usual
    assert budgets.at_worst(ask(claim, known, model="house-model-7b")) is None, "the row's own model has no known price"


async def test_images_are_read_as_far_as_a_bound_allows() -> None:
    budgets = Budgets(MemoryStore(), "house.test")
    seen = Given(images=(Image(url="https://x.test/y.png"),))
    asked = Ask(job_id="b_1.q", text="Hi?", assistant=PRICED, given=seen)
    assert budgets.at_worst(asked) is None, "nobody knows what an image costs"
    bounded = dataclasses.replace(PRICED, max_prompt_tokens=2000)
    cost = budgets.at_worst(dataclasses.replace(asked, assistant=bounded))
    assert cost == pytest.approx(0.012)
