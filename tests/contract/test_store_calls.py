"""Function calls in every store: on record with the move that notices them, run once, never forgotten."""

from __future__ import annotations

import pytest

from askq.ids import shard_of
from askq.jobs import keys
from askq.jobs.calls import CallClaim, CallResult, Calls, Recorded, WantedCall
from askq.jobs.model import Claim, Lane, Move, NewBatch, NewJob, Outcome, Question, State
from askq.jobs.store import Store
from tests.contract.store_stage import ALL, LONG, SHORT, RedisStage, Stage

DONE = CallResult(output="on", seconds=0.25, printed="click\n")


def wanted(number: int, *, round_: int = 1, arguments: str = "{}") -> WantedCall:
    return WantedCall(key=f"{round_}.{number}", call_id=f"call_{number}", name="light", arguments=arguments)


def put(store: Store, row: str = "q1") -> str:
    batch, _ = store.open_batch(NewBatch(name=None, assistant="home", protocol="responses"))
    question = Question(row_id=row, index=0, text="It is dark")
    new = NewJob(question=question, assistant="home", assistant_digest="d1g", protocol="responses")
    store.add(batch, [new])
    store.seal(batch, 1)
    return f"{batch}.{row}"


def claim(store: Store, lane: Lane = Lane.POLL) -> Claim:
    (found,) = store.claim(lane, ALL, limit=16, lease_s=LONG)
    return found


def move(store: Store, held: Claim, name: str, *, delay: float = 0.0, **more: object) -> Outcome:
    (outcome,) = store.commit([Move(job=held.id, fence=held.fence, name=name, delay=delay, **more)])  # type: ignore[arg-type]
    return outcome


def run_it(store: Store) -> None:
    """From queued to running."""
    held = claim(store, Lane.START)
    assert move(store, held, "intend", fields={"attempts": 1}) is Outcome.MOVED
    assert move(store, held, "start", fields={"run": "r1", "runs": 1}) is Outcome.MOVED


def act(store: Store, *calls: WantedCall, round_: int = 1, delay: float = LONG) -> None:
    held = claim(store)
    assert move(store, held, "act", fields={"rounds": round_}, calls=calls, delay=delay) is Outcome.MOVED


@pytest.fixture
def job(store: Store) -> str:
    made = put(store)
    run_it(store)
    return made


def take(calls: Calls, *, lease_s: float = LONG) -> CallClaim:
    (found,) = calls.claim(limit=16, lease_s=lease_s)
    return found


def test_a_call_is_on_record_and_due_with_the_move_that_notices_it(store: Store, job: str) -> None:
    assert store.calls().next_due() is None
    odd = wanted(0, arguments='{"text": "따뜻하게 \ud83d\ude00 "}')
    act(store, odd, wanted(1))
    due = store.calls().next_due()
    assert due is not None
    assert due <= 0
    kept = store.calls().look(job)
    assert [call.wanted for call in kept] == [odd, wanted(1)]
    assert [call.result for call in kept] == [None, None]


def test_a_call_is_claimed_once_with_what_is_needed_to_run_it(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0))
    found = take(store.calls())
    assert (found.job, found.wanted, found.assistant_digest) == (job, wanted(0), "d1g")
    assert (found.claims, found.crashes, found.begun) == (1, 0, False)
    assert stage.another().calls().claim(limit=16, lease_s=LONG) == []


def test_no_more_calls_are_claimed_than_asked_for(store: Store, job: str) -> None:
    act(store, *(wanted(number) for number in range(5)))
    assert len(store.calls().claim(limit=2, lease_s=LONG)) == 2
    assert len(store.calls().claim(limit=9, lease_s=LONG)) == 3


def test_an_output_on_record_stays_and_its_call_is_never_claimed_again(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0), wanted(1))
    first, second = store.calls().claim(limit=2, lease_s=SHORT)
    assert store.calls().finish(first, DONE) is Recorded.DONE
    assert store.calls().finish(first, CallResult(output="again")) is Recorded.STALE
    stage.pass_time(2 * SHORT)
    again = take(store.calls())
    assert again.wanted == second.wanted
    assert [call.result for call in store.calls().look(job) if call.wanted == first.wanted] == [DONE]


def test_the_last_output_makes_the_job_due(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0), wanted(1))
    first, second = store.calls().claim(limit=2, lease_s=LONG)
    store.calls().finish(first, DONE)
    assert store.claim(Lane.POLL, ALL, limit=16, lease_s=LONG) == [], "one output is missing"
    store.calls().finish(second, DONE)
    held = claim(store)
    assert (held.state, held.rounds) == (State.ACTION, 1)
    assert held.question is not None, "outputs may go into a call that says everything again"


def test_an_output_that_comes_while_the_job_is_in_hand_is_not_missed(store: Store, job: str) -> None:
    act(store, wanted(0), delay=0.0)
    held = claim(store)
    store.calls().finish(take(store.calls()), DONE)
    assert store.claim(Lane.POLL, ALL, limit=16, lease_s=LONG) == [], "it is in hand"
    assert move(store, held, "wait", delay=LONG) is Outcome.MOVED
    assert claim(store).id == job, "due at once, although it was to wait"


def test_a_job_waits_for_outputs_that_are_not_there(store: Store, job: str) -> None:
    act(store, wanted(0), delay=0.0)
    assert move(store, claim(store), "wait", delay=LONG) is Outcome.MOVED
    assert store.claim(Lane.POLL, ALL, limit=16, lease_s=LONG) == []


def test_a_claim_that_ran_out_proves_nothing_any_more(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0))
    late = take(store.calls(), lease_s=SHORT)
    stage.pass_time(2 * SHORT)
    new = take(store.calls())
    assert new.fence > late.fence
    assert new.claims == 2
    for change in (
        lambda: store.calls().finish(late, DONE),
        lambda: store.calls().begin(late),
        lambda: store.calls().renew(late, lease_s=LONG),
        lambda: store.calls().again(late, crashed=True, delay_s=0),
    ):
        assert change() is Recorded.STALE
    assert store.calls().finish(new, DONE) is Recorded.DONE


def test_a_renewed_claim_lasts(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0))
    held = take(store.calls(), lease_s=SHORT)
    assert store.calls().renew(held, lease_s=LONG) is Recorded.DONE
    stage.pass_time(2 * SHORT)
    assert store.calls().claim(limit=1, lease_s=LONG) == []


def test_a_crash_is_counted_and_the_call_comes_again(store: Store, job: str) -> None:
    act(store, wanted(0))
    held = take(store.calls())
    assert store.calls().again(held, crashed=True, delay_s=0) is Recorded.DONE
    assert store.calls().finish(held, DONE) is Recorded.STALE, "it was given up"
    again = take(store.calls())
    assert (again.claims, again.crashes) == (2, 1)


def test_a_claim_given_back_untouched_does_not_count(store: Store, job: str) -> None:
    act(store, wanted(0))
    assert store.calls().again(take(store.calls()), crashed=False, delay_s=0) is Recorded.DONE
    assert (found := take(store.calls())).claims == 1
    assert found.crashes == 0


def test_who_begins_and_gives_back_untouched_has_not_begun(store: Store, job: str) -> None:
    act(store, wanted(0))
    held = take(store.calls())
    assert store.calls().begin(held) is Recorded.DONE
    assert store.calls().again(held, crashed=False, delay_s=0) is Recorded.DONE
    found = take(store.calls())
    assert (found.begun, found.claims) == (False, 1)
    assert store.calls().begin(found) is Recorded.DONE
    assert store.calls().again(found, crashed=True, delay_s=0) is Recorded.DONE
    assert take(store.calls()).begun, "a process that died may have done it"


def test_what_has_begun_is_known_to_whoever_comes_after(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0))
    assert store.calls().begin(take(store.calls(), lease_s=SHORT)) is Recorded.DONE
    stage.pass_time(2 * SHORT)
    assert take(store.calls()).begun


def test_the_same_round_noticed_again_keeps_its_outputs(store: Store, job: str) -> None:
    """The reply to the submission was lost, and the run still asks for the same."""
    act(store, wanted(0))
    store.calls().finish(take(store.calls()), DONE)
    assert move(store, claim(store), "poll") is Outcome.MOVED
    act(store, wanted(0, arguments="another text"))
    held = claim(store)
    assert held.state is State.ACTION, "nothing is left to wait for"
    (kept,) = store.calls().look(job)
    assert (kept.wanted, kept.result) == (wanted(0), DONE)
    assert store.calls().claim(limit=1, lease_s=LONG) == []


def test_rounds_are_kept_in_their_order(store: Store, job: str) -> None:
    for round_ in (1, 2, 3):
        act(store, *(wanted(number, round_=round_) for number in range(11)), round_=round_)
        for held in store.calls().claim(limit=11, lease_s=LONG):
            store.calls().finish(held, CallResult(output=held.wanted.key))
        assert move(store, claim(store), "poll") is Outcome.MOVED
    kept = store.calls().look(job)
    assert [call.wanted.key for call in kept] == [f"{r}.{n}" for r in (1, 2, 3) for n in range(11)]
    assert [call.round for call in kept] == [r for r in (1, 2, 3) for _ in range(11)]


def test_the_calls_of_the_oldest_run_come_first(stage: Stage, store: Store, job: str) -> None:
    stage.pass_time(SHORT)
    # In the same shard or another: it began later, and asked first.
    other = put(store, "later")
    run_it(store)
    # A claim shares its limit out over the shards: both may live in one.
    held = {claim.id: claim for claim in store.claim(Lane.POLL, ALL, limit=1000, lease_s=LONG)}
    for number, id_ in enumerate((other, job)):
        fields = {"rounds": 1}
        assert move(store, held[id_], "act", fields=fields, calls=(wanted(number),), delay=LONG) is Outcome.MOVED
        stage.pass_time(SHORT)
    assert store.calls().waiting() == 2
    (first,) = store.calls().claim(limit=1, lease_s=LONG)
    assert first.job == job


def test_calls_of_a_job_that_was_told_to_end_are_not_claimed(store: Store, job: str) -> None:
    act(store, wanted(0))
    assert store.cancel([job]) == [Outcome.MOVED]
    assert store.calls().claim(limit=1, lease_s=LONG) == []


@pytest.mark.parametrize("name", ["fail", "cancel", "expire"])
def test_an_end_takes_the_calls_away(store: Store, job: str, name: str) -> None:
    act(store, wanted(0), wanted(1), delay=0.0)
    first, second = store.calls().claim(limit=2, lease_s=LONG)
    assert store.calls().finish(first, DONE) is Recorded.DONE
    assert move(store, claim(store), name) is Outcome.MOVED
    assert store.calls().finish(second, DONE) is Recorded.STALE
    assert store.calls().look(job) == []
    assert store.calls().claim(limit=1, lease_s=LONG) == []


def test_a_look_puts_a_lost_call_back_into_the_schedule(stage: Stage, store: Store, job: str) -> None:
    act(store, wanted(0))
    before = stage.snapshot()
    store.calls().finish(take(store.calls()), DONE)
    stage.fall_back(before)
    store.calls().look(job)
    assert take(store.calls()).wanted == wanted(0)


def test_a_run_that_was_not_made_leads_back_to_its_outputs(store: Store, job: str) -> None:
    act(store, wanted(0))
    store.calls().finish(take(store.calls()), DONE)
    held = claim(store)
    assert move(store, held, "intend", fields={"attempts": 2}) is Outcome.MOVED
    assert move(store, held, "withdraw", fields={"attempts": 1}) is Outcome.MOVED
    again = claim(store)
    assert (again.state, again.rounds, again.attempts) == (State.ACTION, 1, 1)
    assert [call.result for call in store.calls().look(job)] == [DONE]


def test_calls_outlive_an_answer_that_is_asked_for_again(store: Store, job: str) -> None:
    act(store, wanted(0))
    store.calls().finish(take(store.calls()), DONE)
    assert move(store, claim(store), "poll") is Outcome.MOVED
    fields = {"closed": 1, "brought": '{"files":[]}', "wrong": "prose", "run": None}
    assert move(store, claim(store), "correct", fields=fields) is Outcome.MOVED
    held = claim(store, Lane.START)
    assert (held.state, held.rounds, held.closed, held.open_rounds) == (State.QUEUED, 1, 1, 0)
    assert held.brought == '{"files":[]}'
    assert [call.result for call in store.calls().look(job)] == [DONE]
    assert store.calls().waiting() == 0
    assert move(store, held, "intend", fields={"attempts": 2}) is Outcome.MOVED
    assert move(store, held, "start", fields={"run": "r2", "runs": 2}) is Outcome.MOVED
    act(store, wanted(0, round_=2), round_=2)
    assert take(store.calls()).wanted == wanted(0, round_=2)
    assert [call.result for call in store.calls().look(job)] == [DONE, None]


def test_asked_again_a_job_begins_without_rounds(store: Store, job: str) -> None:
    act(store, wanted(0), delay=0.0)
    fields = {"error_code": "internal", "closed": 1, "brought": "{}"}
    assert move(store, claim(store), "fail", fields=fields) is Outcome.MOVED
    assert store.retry([job], {State.FAILED}) == [Outcome.MOVED]
    held = claim(store, Lane.START)
    assert (held.rounds, held.closed, held.earlier, held.began_at, held.brought) == (0, 0, None, None, None)


def test_executions_are_registered_and_hinted_at_once_at_a_time(stage: Stage, store: Store) -> None:
    calls = store.calls()
    assert calls.hint(ttl_s=LONG)
    assert not stage.another().calls().hint(ttl_s=LONG)
    assert calls.enlist("one", ttl_s=LONG) == 1
    assert calls.hint(ttl_s=LONG), "the message has arrived"
    assert calls.enlist("two", ttl_s=SHORT) == 2
    stage.pass_time(2 * SHORT)
    assert calls.running() == 1
    calls.discharge("one")
    assert calls.running() == 0


def test_a_clock_that_was_set_back_takes_the_calls_along(store: Store, job: str) -> None:
    act(store, wanted(0))
    take(store.calls(), lease_s=LONG)
    assert store.set_back(LONG, ALL)
    assert take(store.calls()).claims == 2


def test_a_call_on_record_that_is_due_all_the_same_is_not_run_again(behind: RedisStage) -> None:
    """A defect, or a hand in the data, must not have a function run twice."""
    store = behind.store
    job = put(store)
    run_it(store)
    act(store, wanted(0))
    due = keys.functions(shard_of(job))
    ((member, at),) = behind.raw.zrange(due, 0, -1, withscores=True)
    assert store.calls().finish(take(store.calls()), DONE) is Recorded.DONE
    behind.raw.zadd(due, {member: at})
    assert store.calls().claim(limit=16, lease_s=LONG) == []
    assert behind.raw.zcard(due) == 0


def test_one_amount_may_cover_all_rounds_of_a_job(store: Store) -> None:
    batch, _ = store.open_batch(NewBatch(name=None, assistant="home", protocol="responses", max_cost_usd=1.0))
    assert store.reserve(f"{batch}.q1", 1, 0.4)
    assert store.reserve(f"{batch}.q1", 2, 0.7, covers_earlier=True)
    status = store.batch(batch)
    assert status is not None
    assert status.budget is not None
    assert (status.budget.spent_usd, status.budget.reserved_usd) == (0.0, 0.7)
    assert not store.reserve(f"{batch}.q1", 3, 1.1, covers_earlier=True)
    status = store.batch(batch)
    assert status is not None
    assert status.budget is not None
    assert (status.budget.spent_usd, status.budget.reserved_usd) == (0.0, 0.7), "a refusal leaves it"
