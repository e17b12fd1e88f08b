"""Every decision of the engine: what follows from what was seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from askq.assistants.model import Assistant
from askq.ends import ENDS
from askq.jobs.model import MOVES, PENDING, Answer, Claim, Pause, Question, State, Usage
from askq.jobs.took import bucket_of, counted, durations
from worker import steps
from worker.protocols.base import (
    Ambiguous,
    Blocked,
    Busy,
    CallError,
    Found,
    Gone,
    Limited,
    Refused,
    RunState,
    Search,
    Status,
)
from worker.schedule import (
    BUDGET_S,
    CANCEL_GRACE_S,
    LONGEST_PAUSED_S,
    PAUSED_S,
    SETTLE_S,
    Pace,
    until_poll,
)

NOW = 1_000_000.0
LEASE = 6.0
TUTOR = Assistant(name="tutor", protocol="assistants", model="m", timeout_s=600)
RETRYING = dataclasses.replace(TUTOR, on_uncertain="retry")
ANSWER = Answer(text="x = 1", usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7))


def claim(state: State = State.QUEUED, **changes: Any) -> Claim:
    values: dict[str, Any] = {
        "id": "b_1.q1",
        "fence": 3,
        "state": state,
        "assistant_digest": TUTOR.digest,
        "assistant": "tutor",
        "protocol": "assistants",
        "question": Question(row_id="q1", index=0, text="3x + 11 = 14?"),
        "first": False,
        "claims": 1,
        "attempts": 0,
        "allowance": 0,
        "resets": 0,
        "runs": 0,
        "polls": 0,
        "looks": 0,
        "errors": 0,
        "thread_id": None,
        "run_id": None,
        "witness": None,
        "remote": None,
        "cancel": None,
        "cancel_sent": False,
        "limited_at": None,
        "created_at": NOW - 10,
        "intent_at": None,
        "started_at": None,
        "deadline": None,
        "usage": None,
        "error_code": None,
        "error_message": None,
        "was_due": NOW,
        "now": NOW,
    }
    return Claim(**(values | changes))


def running(**changes: Any) -> Claim:
    known = {"thread_id": "t", "run_id": "r", "started_at": NOW - 4, "deadline": NOW + 600, "attempts": 1, "runs": 1}
    return claim(State.RUNNING, **(known | changes))


def starting(**changes: Any) -> Claim:
    return claim(State.STARTING, **({"thread_id": "t", "attempts": 1, "intent_at": NOW - 1} | changes))


def status(state: RunState, raw: str | None = None, **changes: Any) -> Status:
    return Status(state=state, raw=raw or state.value, run_id="r", **changes)


def legal(decision: steps.Decision, held: Claim) -> steps.Decision:
    """Every decision must be a move the table allows from the claim's state."""
    rule = MOVES[decision.move.name]
    # After the intent a claim that was queued is starting, though the claim in hand still says queued.
    assert held.state in rule.sources or (held.state is State.QUEUED and State.STARTING in rule.sources)
    assert (decision.move.job, decision.move.fence) == (held.id, held.fence)
    if rule.target is not None and rule.target.terminal and rule.name != "complete":
        assert decision.move.fields["error_code"] in ENDS
        assert ENDS[str(decision.move.fields["error_code"])].state is rule.target
    return decision


LIMITED = Limited("rate_limit_exceeded", "slow down", retry_after=7.5)
BLOCKED = Blocked("rejected_key", "no such key")
LOST = Ambiguous("timeout", "no reply within 30 s")


# -- preparing -----------------------------------------------------------------------------------------------


def test_a_prepared_thread_is_saved() -> None:
    move = legal(steps.prepared(claim(), "thread_1"), claim()).move
    assert (move.name, move.fields["thread"]) == ("prepare", "thread_1")


@pytest.mark.parametrize("waited", [0.0, 700.0])
def test_a_prepared_job_goes_before_those_that_were_to_come_after_it(waited: float) -> None:
    """Given a list that is stored faster than it is prepared, then its first run does not wait for its last thread."""
    call_s = 2.0
    due = NOW - waited
    move = legal(steps.prepared(claim(was_due=due), "thread_1"), claim()).move
    assert NOW + call_s + move.delay < due


def test_being_limited_while_preparing_waits_as_told_and_counts_nothing() -> None:
    move = legal(steps.not_prepared(claim(errors=2), LIMITED, 0.0), claim()).move
    assert (move.name, move.delay) == ("defer", 7.5)
    assert "errors" not in move.fields


def test_an_account_at_fault_is_paused() -> None:
    decision = legal(steps.not_prepared(claim(), BLOCKED, 0.0), claim())
    assert decision.pause is BLOCKED
    assert (decision.move.name, decision.move.delay) == ("defer", 1.0)


def test_a_refused_request_ends_the_job() -> None:
    move = legal(steps.not_prepared(claim(), Refused("bad_request", "metadata too long"), 0.0), claim()).move
    assert (move.name, move.fields["error_code"]) == ("fail", "bad_request")


@pytest.mark.parametrize("error", [LOST, Gone("gone", "404"), Busy("busy", "active")])
def test_a_free_call_is_repeated_with_growing_waits_and_given_up_at_last(error: CallError) -> None:
    waits = [steps.not_prepared(claim(errors=n), error, 0.0).move.delay for n in range(4)]
    assert waits == [1.0, 2.0, 4.0, 8.0]
    last = legal(steps.not_prepared(claim(errors=steps.MOST_ERRORS), error, 0.0), claim()).move
    assert (last.name, last.fields["error_code"]) == ("fail", "upstream")


# -- the paid call -------------------------------------------------------------------------------------------


def test_the_intent_counts_the_attempt_and_keeps_the_lease() -> None:
    move = steps.intent(claim(attempts=1), LEASE)
    assert (move.name, move.delay, move.fields["attempts"]) == ("intend", LEASE, 2)


def test_a_created_run_is_polled_later() -> None:
    held = claim(thread_id="t")
    move = legal(steps.created(held, status(RunState.PENDING, "queued"), TUTOR, 0.0), held).move
    assert (move.name, move.fields["run"], move.fields["runs"]) == ("start", "r", 1)
    assert move.fields["deadline"] == NOW + 600
    assert move.delay == pytest.approx(0.7)


def test_the_servers_hint_decides_the_first_poll() -> None:
    held = claim(thread_id="t")
    move = steps.created(held, status(RunState.PENDING, "queued", poll_after=3.0), TUTOR, 0.9).move
    assert move.delay == 3.0


def test_a_server_that_answers_at_once_completes_the_job_at_once() -> None:
    held = claim(thread_id="t")
    move = legal(steps.created(held, status(RunState.DONE, answer=ANSWER), TUTOR, 0.0), held).move
    assert (move.name, move.answer, move.fields["runs"]) == ("complete", ANSWER, 1)


def test_a_run_done_at_once_whose_answer_is_elsewhere_is_polled_at_once() -> None:
    held = claim(thread_id="t")
    move = steps.created(held, status(RunState.DONE), TUTOR, 0.0).move
    assert (move.name, move.delay) == ("start", 0.0)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (LIMITED, "void"),
        (BLOCKED, "void"),
        (Gone("gone", "no such thread"), "void"),
        (Refused("bad_request", ""), "fail"),
    ],
)
def test_where_certainly_no_run_exists_the_attempt_is_taken_back(error: CallError, name: str) -> None:
    held = claim(thread_id="t")
    move = legal(steps.not_created(held, error, 0.0), held).move
    assert (move.name, move.fields["attempts"]) == (name, 0)


def test_a_vanished_thread_is_made_again_a_few_times() -> None:
    held = claim(thread_id="t")
    assert steps.not_created(held, Gone("gone", ""), 0.0).move.fields["thread"] is None
    for times in range(steps.MOST_GONE):
        # Making it anew succeeds every time, and is no progress.
        anew = claim(gone=times)
        assert legal(steps.prepared(anew, "t"), anew).move.fields["gone"] == (times or None)
        again = claim(thread_id="t", gone=times, errors=9)
        move = legal(steps.not_created(again, Gone("gone", ""), 0.0), again).move
        assert (move.name, move.fields["gone"]) == ("void", times + 1)
    last = claim(thread_id="t", gone=steps.MOST_GONE)
    assert steps.not_created(last, Gone("gone", ""), 0.0).move.fields["error_code"] == "thread_vanished"


@pytest.mark.parametrize("error", [LOST, Busy("busy", "active run", run_id="r9"), CallError("new", "unheard of")])
def test_where_a_run_may_exist_it_is_looked_for(error: CallError) -> None:
    held = claim(thread_id="t")
    move = legal(steps.not_created(held, error, 0.0), held).move
    assert move.name == "defer"
    assert "attempts" not in move.fields


# -- looking for it ------------------------------------------------------------------------------------------


def test_a_run_that_is_found_is_adopted() -> None:
    move = legal(
        steps.searched(starting(), Found(search=Search.FOUND, run_ids=("r",)), TUTOR, LEASE, 0.0), starting()
    ).move
    assert (move.name, move.fields["run"], move.fields["runs"]) == ("adopt", "r", 1)
    assert move.fields["deadline"] == NOW - 1 + 600


def test_of_two_runs_the_older_is_kept_and_both_are_counted() -> None:
    found = Found(search=Search.FOUND, run_ids=("old", "new"))
    move = steps.searched(starting(), found, TUTOR, LEASE, 0.0).move
    assert (move.fields["run"], move.fields["runs"]) == ("old", 2)


def test_the_answer_is_taken_from_the_conversation() -> None:
    found = Found(search=Search.ANSWERED, answer=ANSWER)
    move = legal(steps.searched(starting(), found, TUTOR, LEASE, 0.0), starting()).move
    assert (move.name, move.answer, move.fields["runs"]) == ("complete", ANSWER, 1)


def test_a_partial_answer_in_the_conversation_is_kept_as_one() -> None:
    found = Found(search=Search.ANSWERED, answer=Answer(text="x ="), error_code="incomplete")
    move = legal(steps.searched(starting(), found, TUTOR, LEASE, 0.0), starting()).move
    assert (move.name, move.answer, move.fields["runs"]) == ("cut", Answer(text="x ="), 1)


def test_an_intent_is_voided_only_when_the_request_cannot_be_on_its_way_any_more() -> None:
    nothing = Found(search=Search.NOT_STARTED)
    first = steps.searched(starting(looks=0, intent_at=NOW - 100), nothing, TUTOR, LEASE, 0.0).move
    early = steps.searched(starting(looks=1, intent_at=NOW - 2), nothing, TUTOR, LEASE, 0.0).move
    late = starting(looks=1, intent_at=NOW - LEASE - SETTLE_S)
    assert (first.name, early.name) == ("defer", "defer")
    assert early.delay == LEASE + SETTLE_S - 2
    move = legal(steps.searched(late, nothing, TUTOR, LEASE, 0.0), late).move
    assert (move.name, move.fields["attempts"]) == ("void", 0)


@pytest.mark.parametrize("search", [Search.NOT_STARTED, Search.UNKNOWN])
def test_after_a_clock_was_set_back_an_intent_is_waited_for_as_long_as_ever(search: Search) -> None:
    """Given an intent written an hour from now by the clock of now, then the time it is given is counted from now."""
    ahead = starting(looks=1, intent_at=NOW + 3600)
    move = legal(steps.searched(ahead, Found(search=search), TUTOR, LEASE, 0.0), ahead).move
    assert (move.name, move.fields["intent_at"]) == ("defer", NOW)
    assert move.delay <= LEASE + SETTLE_S
    plain = starting(looks=1, intent_at=NOW - 1)
    assert "intent_at" not in steps.searched(plain, Found(search=search), TUTOR, LEASE, 0.0).move.fields


def test_what_cannot_be_known_is_waited_for_until_the_deadline() -> None:
    unknown = Found(search=Search.UNKNOWN)
    assert steps.searched(starting(intent_at=NOW - 599), unknown, TUTOR, LEASE, 0.0).move.name == "defer"
    late = starting(intent_at=NOW - 600)
    move = legal(steps.searched(late, unknown, TUTOR, LEASE, 0.0), late).move
    assert (move.name, move.fields["error_code"]) == ("doubt", "uncertain_create")


def test_an_assistant_may_allow_one_more_counted_attempt() -> None:
    unknown = Found(search=Search.UNKNOWN)
    late = starting(intent_at=NOW - 600, attempts=1)
    move = legal(steps.searched(late, unknown, RETRYING, LEASE, 0.0), late).move
    assert (move.name, move.fields["thread"]) == ("void", None)
    assert "attempts" not in move.fields, "the uncertain attempt stays counted"
    twice = starting(intent_at=NOW - 600, attempts=steps.MOST_ATTEMPTS)
    assert steps.searched(twice, unknown, RETRYING, LEASE, 0.0).move.name == "doubt"


@pytest.mark.parametrize("error", [LOST, Gone("gone", "")])
def test_a_failed_search_proves_nothing(error: CallError) -> None:
    assert legal(steps.not_searched(starting(), error, TUTOR, 0.0), starting()).move.name == "defer"
    late = starting(intent_at=NOW - 601)
    assert steps.not_searched(late, error, TUTOR, 0.0).move.name == "defer", "its answer may be there all the same"
    too_late = starting(intent_at=NOW - 601 - steps.DEADLINE_ERRORS_S)
    assert legal(steps.not_searched(too_late, error, TUTOR, 0.0), too_late).move.name == "doubt"


def test_a_search_that_is_limited_or_blocked_waits() -> None:
    late = starting(intent_at=NOW - 601)
    assert steps.not_searched(late, LIMITED, TUTOR, 0.0).move.delay == 7.5
    assert steps.not_searched(late, BLOCKED, TUTOR, 0.0).pause is BLOCKED


# -- polling -------------------------------------------------------------------------------------------------


def test_after_a_clock_was_set_back_a_run_is_polled_like_one_that_has_just_begun() -> None:
    runs = durations(counted({}, {bucket_of(2.0): 50.0}))
    pace = Pace(runs)
    held = running(started_at=NOW + 3600)
    move = steps.polled(held, status(RunState.PENDING), TUTOR, 0.0, pace).move
    assert move.delay == pytest.approx(until_poll(TUTOR, 0.0, None, 0.0, pace))
    assert move.delay < 5
    assert move.fields["seen"] == 0


@pytest.mark.parametrize("raw", ["queued", "in_progress", "cancelling", "reticulating"])
def test_a_pending_run_is_polled_again(raw: str) -> None:
    move = legal(steps.polled(running(polls=2), status(RunState.PENDING, raw), TUTOR, 0.0), running()).move
    assert (move.name, move.fields["polls"], move.fields["remote"]) == ("poll", 3, raw)
    assert move.delay == pytest.approx(1.2)


def test_a_run_past_its_deadline_is_cancelled_and_given_a_last_while() -> None:
    late = running(deadline=NOW - 1)
    assert steps.to_cancel(late)
    move = steps.polled(late, status(RunState.PENDING, "in_progress"), TUTOR, 0.0).move
    assert (move.name, move.fields["cancel"]) == ("poll", "deadline")
    asked = running(deadline=NOW - CANCEL_GRACE_S - 1, cancel="deadline", cancel_sent=True)
    assert not steps.to_cancel(asked)
    move = legal(steps.polled(asked, status(RunState.PENDING, "cancelling"), TUTOR, 0.0), asked).move
    assert (move.name, move.fields["error_code"]) == ("expire", "deadline")


def test_a_run_that_completes_after_all_is_kept() -> None:
    asked = running(deadline=NOW - 2, cancel="deadline", cancel_sent=True)
    move = steps.polled(asked, status(RunState.DONE, "completed", answer=ANSWER), TUTOR, 0.0).move
    assert (move.name, move.answer) == ("complete", ANSWER)


@pytest.mark.parametrize(
    ("seen", "name", "code"),
    [
        (status(RunState.FAILED, error_code="server_error", error_message="oops"), "fail", "server_error"),
        (status(RunState.FAILED), "fail", "run_failed"),
        (status(RunState.CANCELLED), "cancel", "cancelled_remotely"),
        (status(RunState.EXPIRED), "expire", "run_expired"),
        (status(RunState.INCOMPLETE, error_code="max_output_tokens", answer=ANSWER), "cut", "max_output_tokens"),
        (status(RunState.INCOMPLETE, answer=ANSWER), "cut", "incomplete"),
    ],
)
def test_every_end_of_a_run_is_an_end_of_the_job(seen: Status, name: str, code: str) -> None:
    move = legal(steps.polled(running(), seen, TUTOR, 0.0), running()).move
    assert (move.name, move.fields["error_code"]) == (name, code)
    assert move.answer == seen.answer


def test_our_own_cancel_counts_as_the_deadline_it_was_for() -> None:
    asked = running(deadline=NOW - 5, cancel="deadline", cancel_sent=True)
    move = legal(steps.polled(asked, status(RunState.CANCELLED), TUTOR, 0.0), asked).move
    assert (move.name, move.fields["error_code"]) == ("expire", "deadline")


def test_a_cancel_that_takes_effect_at_once_is_our_own() -> None:
    """The poll that follows the cancel in the same step may say "cancelled" already."""
    late = running(deadline=NOW - 1)
    move = legal(steps.polled(late, status(RunState.CANCELLED), TUTOR, 0.0), late).move
    assert (move.name, move.fields["error_code"]) == ("expire", "deadline")
    wanted = running(cancel="asked")
    move = legal(steps.polled(wanted, status(RunState.CANCELLED), TUTOR, 0.0), wanted).move
    assert (move.name, move.fields["error_code"]) == ("cancel", "cancelled")


def test_usage_of_a_failed_run_is_kept() -> None:
    usage = Usage(input_tokens=5, total_tokens=5)
    move = steps.polled(running(), status(RunState.FAILED, error_code="server_error", usage=usage), TUTOR, 0.0).move
    assert move.answer is not None
    assert move.answer.usage == usage


def test_an_answer_that_has_to_be_fetched_is_collected_next() -> None:
    usage = Usage(input_tokens=5, output_tokens=6, total_tokens=11, cost_usd=0.5)
    move = legal(steps.polled(running(), status(RunState.DONE, usage=usage), TUTOR, 0.0), running()).move
    assert (move.name, move.delay, move.fields["total"], move.fields["error_code"]) == ("collect", 0.0, 11, None)
    cut = steps.polled(running(), status(RunState.INCOMPLETE, error_code="content_filter"), TUTOR, 0.0).move
    assert (cut.name, cut.fields["error_code"]) == ("collect", "content_filter")


def test_a_failed_poll_is_not_a_failed_run() -> None:
    for errors in (0, 5, 500):
        assert legal(steps.not_polled(running(errors=errors), LOST, 0.0), running()).move.name == "defer"
    lost_for_good = running(deadline=NOW - steps.DEADLINE_ERRORS_S - 1)
    assert steps.not_polled(lost_for_good, LOST, 0.0).move.fields["error_code"] == "deadline"


def test_a_run_counts_as_vanished_only_after_several_looks() -> None:
    gone = Gone("gone", "No run found")
    # That the service could not be asked says nothing of whether the run is there.
    first = legal(steps.not_polled(running(errors=9), gone, 0.0), running()).move
    assert (first.name, first.fields["errors"], first.fields["gone"]) == ("defer", 10, 1)
    between = steps.not_polled(running(errors=9, gone=1), LOST, 0.0).move
    assert (between.fields["errors"], between.fields["gone"]) == (10, 1)
    last = legal(steps.not_polled(running(gone=steps.MOST_GONE), gone, 0.0), running()).move
    assert (last.name, last.fields["error_code"]) == ("fail", "run_vanished")
    seen = steps.polled(running(errors=9, gone=3), Status(state=RunState.PENDING, raw="queued", run_id="r"), TUTOR, 0.0)
    assert (seen.move.fields["errors"], seen.move.fields["gone"]) == (None, None)


def test_limits_and_pauses_touch_polls_without_counting() -> None:
    assert steps.not_polled(running(errors=3), LIMITED, 0.0).move.delay == 7.5
    assert "errors" not in steps.not_polled(running(errors=3), LIMITED, 0.0).move.fields
    assert steps.not_polled(running(), BLOCKED, 0.0).pause is BLOCKED


# -- collecting ----------------------------------------------------------------------------------------------


def test_the_answer_completes_the_job_with_the_usage_seen_before() -> None:
    held = claim(State.COLLECTING, usage=Usage(total_tokens=9))
    move = legal(steps.answered(held, Answer(text="x = 1"), {}, usage=held.usage), held).move
    assert move.name == "complete"
    assert move.answer == Answer(text="x = 1", usage=Usage(total_tokens=9))


def test_the_partial_text_of_a_run_that_was_cut_is_kept() -> None:
    held = claim(State.COLLECTING, error_code="max_output_tokens", error_message="too long")
    move = legal(steps.answered(held, Answer(text="x ="), {}, usage=None), held).move
    assert (move.name, move.fields["error_code"]) == ("cut", "max_output_tokens")
    assert move.answer == Answer(text="x =")


def test_a_run_without_any_message_is_not_an_answer() -> None:
    held = claim(State.COLLECTING)
    move = legal(steps.answered(held, Answer(text=None), {}, usage=None), held).move
    assert (move.name, move.fields["error_code"]) == ("fail", "no_answer")


# -- poison --------------------------------------------------------------------------------------------------


NO_RUN = Found(search=Search.NOT_STARTED)


def test_creates_that_fail_every_time_are_given_up_at_last() -> None:
    """Given a service that answers every create of a question with a 500 and makes no run, when it is asked again and
    again, then ever more rarely, and not for ever."""
    delays, voids = [], 0
    while not steps.in_vain(claim(thread_id="t", voids=voids)):
        lost = steps.not_created(claim(thread_id="t", voids=voids), LOST, 0.0).move
        held = starting(looks=1, intent_at=NOW - LEASE - SETTLE_S, voids=voids, errors=lost.fields["errors"])
        assert not steps.in_vain(dataclasses.replace(held, voids=steps.MOST_VOIDS)), "first it is looked for a run"
        move = legal(steps.searched(held, NO_RUN, TUTOR, LEASE, 0.0), held).move
        assert (move.name, move.fields["attempts"], move.fields["voids"]) == ("void", 0, voids + 1)
        delays.append(move.delay)
        voids += 1
    assert delays[:4] == [0.0, 1.0, 2.0, 4.0]
    assert max(delays) == 60.0
    assert voids == steps.MOST_VOIDS
    assert MOVES[move.name].yields_to_witness, "a run that is told of at the last moment is not given up"
    held = claim(thread_id="t", voids=voids)
    move = legal(steps.give_up_creates(held), held).move
    assert (move.name, move.fields["error_code"]) == ("fail", "upstream")


def test_a_question_on_whose_create_workers_die_is_in_hand_alone_and_then_put_aside() -> None:
    """Given workers that die after the intent, before there is a run, when that happens again and again, then it is as
    if they died without any progress."""
    seen = []
    held = claim(thread_id="t")
    while not steps.poisoned(held):
        seen.append(steps.suspect(held))
        died = starting(looks=1, intent_at=NOW - LEASE - SETTLE_S, deaths=held.deaths)
        assert not steps.poisoned(died), "first it is looked for a run"
        move = legal(steps.searched(died, NO_RUN, TUTOR, LEASE, 0.0), died).move
        assert (move.name, move.delay) == ("void", 0.0)
        held = claim(thread_id="t", deaths=move.fields["deaths"])
        assert held.deaths <= steps.MOST_CLAIMS
    assert seen == [False] * steps.SUSPECT_CLAIMS + [True] * (steps.MOST_CLAIMS - steps.SUSPECT_CLAIMS)
    move = legal(steps.give_up_poison(held), held).move
    assert (move.fields["error_code"], "8 workers" in str(move.fields["error_message"])) == ("poison", True)


def test_a_run_makes_both_counts_begin_anew() -> None:
    made = steps.created(claim(thread_id="t", voids=3, deaths=2), status(RunState.PENDING), TUTOR, 0.0).move
    found = steps.adopted(starting(voids=3, deaths=2), "r", TUTOR).move
    for move in (made, found):
        assert (move.fields["voids"], move.fields["deaths"]) == (None, None)


def test_a_job_that_kills_workers_is_put_aside() -> None:
    assert not steps.poisoned(claim(claims=steps.MOST_CLAIMS))
    held = claim(claims=steps.MOST_CLAIMS + 1)
    assert steps.poisoned(held)
    assert legal(steps.give_up_poison(held), held).move.fields["error_code"] == "poison"
    unsure = starting(claims=steps.MOST_CLAIMS + 1)
    assert legal(steps.give_up_poison(unsure), unsure).move.name == "doubt"
    unsent = starting(claims=steps.MOST_CLAIMS + 1, never_sent=True)
    assert legal(steps.give_up_poison(unsent), unsent).move.fields["error_code"] == "poison", "no run can be there"


# -- limits --------------------------------------------------------------------------------------------------


def test_a_prepared_job_keeps_its_place() -> None:
    move = steps.prepared(claim(was_due=NOW - 30), "thread_1").move
    assert move.delay == -30 - steps.PREPARED_AHEAD_S, "or a long list would be prepared whole before its first run"
    assert steps.prepared(claim(was_due=NOW + 1), "thread_1").move.delay == -steps.PREPARED_AHEAD_S


def test_waiting_for_a_permit_counts_for_nothing_however_long() -> None:
    """Given a list that takes days at its account's rate, when a job has waited for one, then it goes on waiting."""
    held = claim(limited_at=NOW - 2 * steps.LIMITED_S)
    move = legal(steps.not_yet(held, 12.3), held).move
    assert (move.name, move.delay) == ("defer", 12.3)
    assert move.fields == {"note": "waiting for the account's limit: 12 s"}
    mine = Limited(steps.OWN_LIMIT, "the account's limit", retry_after=4.0)
    void = steps.not_created(claim(limited_at=NOW - 2 * steps.LIMITED_S), mine, 0.0).move
    assert (void.name, void.delay, void.fields["attempts"]) == ("void", 4.0, 0)
    assert "limited" not in void.fields


def test_a_created_run_remembers_what_was_put_aside_for_it() -> None:
    move = steps.created(claim(), status(RunState.PENDING), TUTOR, 0.0, estimated=321.0).move
    assert (move.fields["est"], move.fields["seen"]) == (321.0, None)


def test_a_run_ended_between_the_last_two_polls() -> None:
    done = status(RunState.DONE)
    first, later = running(), running(seen=2.0)
    age = first.now - (first.started_at or 0.0)
    assert steps.took(first, done, 0.5)[-1] == bucket_of(age / 2)
    assert steps.took(later, done, 0.25)[-1] == bucket_of(2 + 0.25 * (age - 2))
    assert steps.took(later, done, 0.0) == [bucket_of(2.0)], "what it outlived before was counted before"
    assert steps.polled(first, status(RunState.PENDING), TUTOR, 0.0).move.fields["seen"] == pytest.approx(age)
    for seen in (status(RunState.FAILED), status(RunState.CANCELLED)):
        assert steps.took(first, seen, 0.5) == []
    assert steps.took(running(cancel_sent=True), done, 0.5) == [], "that says when we lost patience"


def test_a_run_that_is_still_at_work_says_that_runs_take_longer() -> None:
    pending = status(RunState.PENDING)
    first, later = running(), running(seen=2.0)
    age = first.now - (first.started_at or 0.0)
    assert steps.took(first, pending, 0.5) == [-1 - bucket for bucket in range(bucket_of(age))]
    assert steps.took(later, pending, 0.5) == [-1 - bucket for bucket in range(bucket_of(2.0), bucket_of(age))]


# -- when a person cancels -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (running(), False),
        (running(cancel="asked"), True),
        (running(cancel="asked", cancel_sent=True), False),
        (running(deadline=NOW), False),
        (running(deadline=NOW - 0.1), True),
        (running(deadline=NOW - 0.1, cancel="deadline", cancel_sent=True), False),
        (running(deadline=NOW - 0.1, cancel="asked", cancel_sent=True), False),
        (running(deadline=None), False),
        (running(deadline=None, cancel="asked"), True),
    ],
)
def test_the_service_is_told_once_when_a_run_is_to_end(held: Claim, wanted: bool) -> None:  # noqa: FBT001
    assert steps.to_cancel(held) is wanted


@pytest.mark.parametrize(
    ("changes", "name", "code"),
    [
        ({"cancel": "asked", "cancel_sent": True}, "cancel", "cancelled"),
        ({"cancel": "asked"}, "cancel", "cancelled"),
        ({"cancel": "deadline", "cancel_sent": True, "deadline": NOW - 5}, "expire", "deadline"),
        ({"deadline": NOW - 5}, "expire", "deadline"),
        ({"cancel": "asked", "deadline": NOW - 5}, "cancel", "cancelled"),
        ({}, "cancel", "cancelled_remotely"),
    ],
)
def test_a_run_that_says_it_was_cancelled_ends_by_whoever_wanted_it(
    changes: dict[str, Any], name: str, code: str
) -> None:
    """Responses cancel at once: the very poll that follows the request says so, before the record knows of it."""
    held = running(**changes)
    seen = status(RunState.CANCELLED, "cancelled", error_code="cancelled_remotely")
    move = legal(steps.polled(held, seen, TUTOR, 0.0), held).move
    assert (move.name, move.fields["error_code"]) == (name, code)


def test_a_run_that_was_told_to_end_is_looked_at_soon_and_noted_as_told() -> None:
    held = running(cancel="asked")
    move = legal(steps.polled(held, status(RunState.PENDING, "cancelling"), TUTOR, 0.0), held).move
    assert (move.name, move.delay, move.fields["cancel"], move.fields["cancel_sent"]) == ("poll", 1.0, "asked", 1)
    told = running(cancel="asked", cancel_sent=True)
    move = steps.polled(told, status(RunState.PENDING, "cancelling"), TUTOR, 0.0).move
    assert "cancel_sent" not in move.fields
    assert move.delay == pytest.approx(1.2), "as any other from then on"


@pytest.mark.parametrize("cancel", ["asked", "deadline"])
@pytest.mark.parametrize("state", [State.RUNNING, State.COLLECTING])
def test_a_run_that_completes_although_it_was_cancelled_is_kept_and_says_so(state: State, cancel: str) -> None:
    held = claim(state, thread_id="t", run_id="r", cancel=cancel, cancel_sent=True, runs=1)
    move = legal(steps.answered(held, ANSWER, {}, usage=None), held).move
    assert (move.name, move.answer) == ("complete", ANSWER)
    assert move.fields["note"] == "the run completed although it was to be cancelled"


@pytest.mark.parametrize("state", sorted(PENDING - {State.QUEUED, State.STARTING}))
def test_a_cancelled_job_that_needs_something_else_first_keeps_the_wish(state: State) -> None:
    """No decision but an end may drop that a person wants the job to end."""
    held = claim(state, cancel="asked", thread_id="t", run_id="r", runs=1)
    for decision in (
        steps.not_polled(held, LOST, 0.0),
        steps.not_polled(held, LIMITED, 0.0),
        steps.not_polled(held, BLOCKED, 0.0),
        steps.paused(held, PAUSE),
    ):
        assert decision.move.fields.get("cancel", "kept") == "kept"


def test_a_run_the_service_does_not_cancel_ends_by_its_deadline_at_last() -> None:
    held = running(cancel="asked", cancel_sent=True, deadline=NOW - CANCEL_GRACE_S - 1)
    move = legal(steps.polled(held, status(RunState.PENDING, "in_progress"), TUTOR, 0.0), held).move
    assert (move.name, move.fields["error_code"]) == ("cancel", "cancelled")


# -- when nothing but "not now" is heard ---------------------------------------------------------------------

DAY = steps.LIMITED_S
UNREACHABLE = Limited("unreachable", "no connection could be made")


@pytest.mark.parametrize(("error", "code"), [(LIMITED, "rate_limited"), (UNREACHABLE, "unreachable")])
def test_a_job_without_a_run_that_is_put_off_for_a_day_is_given_up(error: Limited, code: str) -> None:
    patient, late = claim(limited_at=NOW - DAY), claim(limited_at=NOW - DAY - 1)
    assert legal(steps.not_prepared(patient, error, 0.0), patient).move.name == "defer"
    move = legal(steps.not_prepared(late, error, 0.0), late).move
    assert (move.name, move.fields["error_code"]) == ("fail", code)
    created = legal(steps.not_created(late, error, 0.0), late).move
    assert (created.name, created.fields["error_code"], created.fields["attempts"]) == ("fail", code, 0)


@pytest.mark.parametrize("error", [LIMITED, UNREACHABLE])
def test_where_a_run_may_exist_being_put_off_never_ends_a_job(error: Limited) -> None:
    for decision in (
        steps.not_searched(starting(limited_at=NOW - 9 * DAY), error, TUTOR, 0.0),
        steps.not_polled(running(limited_at=NOW - 9 * DAY), error, 0.0),
        steps.not_polled(claim(State.COLLECTING, limited_at=NOW - 9 * DAY), error, 0.0),
    ):
        assert decision.move.name == "defer"


def test_the_day_counts_from_the_first_not_now_and_anything_else_ends_it() -> None:
    assert steps.not_prepared(claim(), LIMITED, 0.0).move.fields["limited"] == NOW
    assert steps.not_prepared(claim(limited_at=NOW - 50), LIMITED, 0.0).move.fields["limited"] == NOW - 50
    held = claim(limited_at=NOW - DAY)
    for decision in (
        steps.prepared(held, "t"),
        steps.created(held, status(RunState.PENDING), TUTOR, 0.0),
        steps.not_prepared(held, BLOCKED, 0.0),
        steps.paused(held, PAUSE),
        steps.over_budget(held),
    ):
        assert decision.move.fields["limited"] is None, "an account that is paused for two days puts nobody off"


def test_without_a_word_how_long_the_wait_is_jittered() -> None:
    waits = [steps.not_prepared(claim(), UNREACHABLE, jitter).move.delay for jitter in (-1.0, 0.0, 1.0)]
    assert waits == [0.8, 1.0, 1.2]


# -- pauses and budgets --------------------------------------------------------------------------------------

PAUSE = Pause(account="a", code="endpoint_gone", message="no such endpoint", since=NOW, probe_at=NOW + 30)


@pytest.mark.parametrize("state", sorted(PENDING))
def test_a_job_whose_protocol_is_paused_keeps_its_state_and_says_why(state: State) -> None:
    held = claim(state)
    move = legal(steps.paused(held, PAUSE), held).move
    assert (move.name, move.delay, move.fields["note"]) == ("defer", PAUSED_S, "paused: no such endpoint")
    assert "attempts" not in move.fields


def test_the_longer_a_pause_lasts_the_more_rarely_anybody_looks() -> None:
    waits = [steps.paused(claim(now=NOW + age), PAUSE).move.delay for age in (0, 25, 100, 300, 9_000)]
    assert waits == [PAUSED_S, PAUSED_S, 20.0, LONGEST_PAUSED_S, LONGEST_PAUSED_S]


def test_a_job_over_budget_waits_and_one_that_nobody_can_price_ends() -> None:
    moves = [legal(steps.over_budget(claim(looks=looks)), claim()).move for looks in (0, 1, 4, 9)]
    assert [(move.name, move.delay) for move in moves] == [("defer", wait) for wait in (1.0, 2.0, 16.0, BUDGET_S)]
    assert all("attempts" not in move.fields for move in moves)
    ended = legal(steps.unbounded(claim()), claim()).move
    assert (ended.name, ended.fields["error_code"]) == ("fail", "unbounded_cost")


@pytest.mark.parametrize(
    ("worst", "told"),
    [(None, "what it may have cost is not known"), (0.01234, "it may have cost up to $0.0123"), (0.0, "up to $0.0000")],
)
def test_an_uncertain_job_says_what_was_done_and_what_it_may_have_cost(worst: float | None, told: str) -> None:
    late = starting(intent_at=NOW - 600, looks=4)
    decision = steps.searched(late, Found(search=Search.UNKNOWN), TUTOR, LEASE, 0.0, at_worst=worst)
    message = str(legal(decision, late).move.fields["error_message"])
    assert told in message
    assert "in 5 looks within 600 s no answer appeared" in message


def test_an_intent_whose_call_was_not_made_is_taken_back() -> None:
    held = claim(attempts=1, allowance=1)
    move = legal(steps.not_sent(held), held).move
    assert (move.name, move.fields["attempts"], move.delay) == ("void", 1, 0.0)


@pytest.mark.parametrize(
    ("attempts", "allowance", "name"),
    [(1, 0, "void"), (2, 0, "doubt"), (2, 1, "void"), (3, 1, "doubt"), (3, 2, "void"), (5, 5, "void")],
)
def test_a_person_who_asks_again_allows_as_many_attempts_again(attempts: int, allowance: int, name: str) -> None:
    late = starting(intent_at=NOW - 600, attempts=attempts, allowance=allowance)
    found = Found(search=Search.UNKNOWN)
    assert legal(steps.searched(late, found, RETRYING, LEASE, 0.0), late).move.name == name
    assert legal(steps.searched(late, found, TUTOR, LEASE, 0.0), late).move.name == "doubt"
