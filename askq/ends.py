"""How a job can end: one table that the engine, the documents and the tests read.

`retryable` says whether asking the same question again may succeed without changing it. `remedy` is one line for
the person who reads the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from askq.jobs.model import State


@dataclass(frozen=True, slots=True)
class End:
    """One documented way for a job to end other than with a complete answer."""

    code: str
    state: State
    retryable: bool
    remedy: str


_ENDS = (
    # The run itself ended so.
    End("server_error", State.FAILED, True, "The service failed while answering; ask again."),
    End("rate_limit_exceeded", State.FAILED, True, "The run met the account's limit; ask again later."),
    End("invalid_prompt", State.FAILED, False, "The service refused the question; change its wording."),
    End("content_policy", State.FAILED, False, "The service refused the content; change the question."),
    End("vector_store_timeout", State.FAILED, True, "File search timed out at the service; ask again."),
    End("invalid_image", State.FAILED, False, "An image could not be used; check its format and size."),
    End("run_failed", State.FAILED, True, "The run failed with a code askq does not know; see the message."),
    End("max_output_tokens", State.INCOMPLETE, False, "Raise max_output_tokens; the partial text is kept."),
    End("max_prompt_tokens", State.INCOMPLETE, False, "Shorten the question or raise max_prompt_tokens."),
    End(
        "content_filter",
        State.INCOMPLETE,
        False,
        "A content filter cut the answer; the partial text is kept.",
    ),
    End("incomplete", State.INCOMPLETE, True, "The run stopped early; the partial text is kept."),
    End("cancelled_remotely", State.CANCELLED, True, "Somebody else cancelled the run at the service."),
    End("cancelled", State.CANCELLED, True, "Cancelled with `askq cancel`; `askq retry --only cancelled` asks again."),
    End("run_expired", State.EXPIRED, True, "The service let the run expire; ask again."),
    End(
        "deadline",
        State.EXPIRED,
        True,
        "The run outlived the assistant's [run] timeout; raise it or ask again.",
    ),
    End("run_vanished", State.FAILED, True, "The service no longer knows the run; ask again."),
    End(
        "unknown_function",
        State.FAILED,
        False,
        "The run asked for what askq has no function for: name it in the assistant's file under tools.",
    ),
    End(
        "function_unavailable",
        State.FAILED,
        True,
        "A worker could not load the function; correct its module, or where the worker looks for it, then ask again.",
    ),
    End(
        "too_many_rounds",
        State.FAILED,
        False,
        "The run kept asking for functions; raise [run] max_rounds, or change instructions or functions.",
    ),
    End(
        "invalid_output",
        State.FAILED,
        True,
        'The answer does not fit the schema; its text is kept. `[text] on_invalid = "retry"` asks once more by itself.',
    ),
    End("refused", State.FAILED, False, "The model refused to answer; its words are kept. Change the question."),
    End("no_answer", State.FAILED, True, "The run completed without any text; ask again."),
    # The request was refused: no run exists.
    End("bad_request", State.FAILED, False, "The service refused the request; see the message."),
    End("context_length_exceeded", State.FAILED, False, "The question is too long for the model; shorten it."),
    End(
        "model_not_found",
        State.FAILED,
        False,
        "The account has no such model; set another in the assistant file.",
    ),
    End("assistant_not_found", State.FAILED, False, "The assistant id does not exist at the service."),
    End("thread_vanished", State.FAILED, True, "The thread disappeared before the run was made; ask again."),
    End(
        "conversation_stopped",
        State.FAILED,
        True,
        "A question before it has no complete answer; `askq retry` (--all where it did not fail) asks both again.",
    ),
    End(
        "conversation_vanished",
        State.FAILED,
        False,
        "What was said before is gone at the service; submit the whole conversation anew.",
    ),
    End(
        "conversation_busy",
        State.FAILED,
        True,
        "Something else was at work in the conversation all the time; ask again later.",
    ),
    End("forbidden", State.FAILED, False, "The account may not do this; see the message."),
    # A file or store could not be made ready: the question was not asked.
    End(
        "file_unavailable",
        State.FAILED,
        True,
        "A file could not be uploaded; see the message, correct it, and ask again.",
    ),
    End(
        "index_failed",
        State.FAILED,
        False,
        'The service could not read a file; replace it, or set on_failed_file = "continue" in the assistant\'s file.',
    ),
    End(
        "store_missing",
        State.FAILED,
        True,
        "The assistant names a store that is not there; make it with `askq stores create`, then ask again.",
    ),
    # askq could not get through, or gave up.
    End(
        "rate_limited",
        State.FAILED,
        True,
        'For a day the service answered only "not now"; raise the limit, then ask again.',
    ),
    End(
        "unreachable",
        State.FAILED,
        True,
        "For a day no connection could be made; check OPENAI_BASE_URL, then ask again.",
    ),
    End("upstream", State.FAILED, True, "The service kept failing before a run existed; ask again later."),
    End(
        "uncertain_create",
        State.UNCERTAIN,
        True,
        "A run may have been created and paid for, but its reply was lost; ask again to accept the risk.",
    ),
    End(
        "poison",
        State.FAILED,
        False,
        "Workers died repeatedly on this question; look at it before asking again.",
    ),
    End(
        "assistant_missing",
        State.FAILED,
        False,
        "The record of the assistant is gone from Redis; submit again.",
    ),
    End(
        "unbounded_cost",
        State.FAILED,
        False,
        "Give the assistant's file max_output_tokens and a price (with tools: max_prompt_tokens), and submit anew.",
    ),
    End("internal", State.FAILED, True, "A defect in askq; please report the message."),
)

ENDS: MappingProxyType[str, End] = MappingProxyType({end.code: end for end in _ENDS})
