"""Words of the services in ours: nothing the SDK knows is left out, and every word of ours is in the table of ends."""

from __future__ import annotations

import typing

import pytest
from openai.types.beta.threads import Run, RunStatus
from openai.types.beta.threads.run import IncompleteDetails as RunIncomplete
from openai.types.beta.threads.run import LastError
from openai.types.responses import ResponseError, ResponseStatus
from openai.types.responses.response import IncompleteDetails as ResponseIncomplete

from askq.ends import ENDS
from askq.jobs.model import State
from worker.protocols import assistants_replies, responses_replies
from worker.protocols.codes import FAILURES, INCOMPLETE, code_of_failure, code_of_incomplete, code_of_refusal


def words(annotation: object) -> set[str]:
    """The literals of a type, optional or not."""
    found = set()
    for part in typing.get_args(annotation):
        found |= {part} if isinstance(part, str) else words(part)
    return found


def test_the_search_for_words_finds_them() -> None:
    assert words(typing.Optional[typing.Literal["a", "b"]]) == {"a", "b"}  # noqa: UP045  as the SDK writes it
    assert "status" in Run.model_fields


@pytest.mark.parametrize("model", [ResponseError, LastError])
def test_every_code_of_a_failed_run_that_the_sdk_knows_is_mapped(model: typing.Any) -> None:
    known = words(model.model_fields["code"].annotation)
    assert known
    assert known <= set(FAILURES)


@pytest.mark.parametrize("model", [RunIncomplete, ResponseIncomplete])
def test_every_reason_of_an_incomplete_run_that_the_sdk_knows_is_mapped(model: typing.Any) -> None:
    known = words(model.model_fields["reason"].annotation)
    assert known
    assert known <= set(INCOMPLETE)


def test_every_status_that_the_sdk_knows_is_mapped() -> None:
    assert words(RunStatus) == set(assistants_replies.STATES)
    assert words(ResponseStatus) == set(responses_replies.STATES) - {"expired"}


def test_all_words_of_ours_are_in_the_table_of_ends() -> None:
    assert {*FAILURES.values(), "run_failed"} <= set(ENDS)
    assert {*INCOMPLETE.values(), "incomplete"} <= set(ENDS)
    assert {ENDS[code].state for code in FAILURES.values()} == {State.FAILED}
    assert {ENDS[code].state for code in INCOMPLETE.values()} == {State.INCOMPLETE}


def test_only_what_may_pass_by_itself_is_worth_asking_again() -> None:
    again = {code for code, end in FAILURES.items() if ENDS[end].retryable}
    assert again == {"server_error", "rate_limit_exceeded", "vector_store_timeout"}


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("chemistry_policy_violation", "content_policy"),
        ("image_upside_down", "invalid_image"),
        ("something_new", "run_failed"),
        ("deadline", "run_failed"),
        ("", "run_failed"),
        (None, "run_failed"),
        (17, "run_failed"),
    ],
)
def test_codes_nobody_has_heard_of(code: object, end: str) -> None:
    assert code_of_failure(code) == end


@pytest.mark.parametrize("reason", ["tired", None, 3, ""])
def test_reasons_nobody_has_heard_of(reason: object) -> None:
    assert code_of_incomplete(reason) == "incomplete"


@pytest.mark.parametrize(
    ("code", "message", "end"),
    [
        ("context_length_exceeded", "too long", "context_length_exceeded"),
        ("", "This model's maximum context length is 4096 tokens.", "context_length_exceeded"),
        ("400", "Your input exceeds the context window of this model.", "context_length_exceeded"),
        ("content_filter", "The prompt was filtered.", "content_policy"),
        ("content_policy_violation", "No.", "content_policy"),
        ("invalid_image_url", "No.", "invalid_image"),
        ("invalid_prompt", "No.", "invalid_prompt"),
        ("unknown_parameter", "Unknown parameter: 'x'.", "bad_request"),
        ("server_error", "In a 400, this speaks of no run.", "bad_request"),
        ("", "", "bad_request"),
    ],
)
def test_refusals_never_say_that_a_run_existed(code: str, message: str, end: str) -> None:
    assert code_of_refusal(code, message) == end
    assert ENDS[end].state is State.FAILED
