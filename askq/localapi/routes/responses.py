"""Responses: create, retrieve, delete, cancel, input items. There is no list of responses, here as at OpenAI.

With `--client-ids` a create may carry `request_id`, such as `resp_5f0c…`: it becomes the response's id, as on vLLM and
SGLang, so that a client whose reply was lost can look for it. A second create under the same id is refused. Without the
option `request_id` is an unknown parameter, as at OpenAI.
"""

from __future__ import annotations

import re

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route, Stream
from askq.localapi.errors import conversation_locked, invalid, not_found, unsupported
from askq.localapi.routes.attached import check_parts, check_tool_files, last_container
from askq.localapi.routes.formats import checked_text
from askq.localapi.routes.items import TEXT_CHARS, checked_item, find_conversation, user_message
from askq.localapi.routes.models import check_model
from askq.localapi.routes.tools import checked_choice, checked_tools
from askq.localapi.scribes.responses import history, item_wire, response_wire
from askq.localapi.wire import JsonObject, new_id, page
from askq.localapi.work import Work

INPUT_ITEMS = 10_000
TOOLS = 128
WINDOWS = ("soonest", "2h", "8h")
_ID = re.compile(r"resp_[0-9A-Za-z_-]+")

PARAMETERS = frozenset(
    {
        "access_programs",
        "background",
        "background_options",
        "context_management",
        "conversation",
        "image",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)


def _input(body: JsonObject) -> list[JsonObject]:
    value = body.get("input")
    if isinstance(value, list):
        items = fields.objects(body, "input", most=INPUT_ITEMS)
        return [checked_item(item, f"input[{index}]") for index, item in enumerate(items)]
    text = fields.text(body, "input", most=TEXT_CHARS)
    return [] if text is None else [user_message(text)]


def _conversation_id(body: JsonObject) -> str | None:
    value = body.get("conversation")
    if isinstance(value, dict):
        return fields.required_text(value, "id")
    return fields.text(body, "conversation")


def _previous(api: Api, body: JsonObject) -> Work | None:
    previous_id = fields.text(body, "previous_response_id")
    if previous_id is None:
        return None
    previous = api.works.get("responses", previous_id)
    if previous is None:
        raise invalid(
            f"Previous response with id '{previous_id}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if previous.ended is None:
        raise invalid(f"Previous response with id '{previous_id}' has not ended yet.", param="previous_response_id")
    return previous


def _check_calls(items: list[JsonObject]) -> None:
    """Every call answered, every answer called for; raises ApiError."""
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    answered = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    for item in items:
        if item["type"] == "function_call" and item["call_id"] not in answered:
            raise invalid(f"No tool output found for function call {item['call_id']}.", param="input")
        if item["type"] == "function_call_output" and item["call_id"] not in calls:
            raise invalid(f"No tool call found for function call output with call_id {item['call_id']}.", param="input")


def _first_number(api: Api, items: list[JsonObject], previous: Work | None, conversation_id: str | None) -> int | None:
    """The ledger number of the response that the question came with, for one that brings outputs of its calls."""
    answered = {item["call_id"] for item in items if item["type"] == "function_call_output"}
    if not answered:
        return None
    candidates = [] if conversation_id is None else api.works.in_scope(conversation_id)
    if previous is not None:
        candidates = [previous]
    for work in reversed(candidates):
        if any(item["type"] == "function_call" and item["call_id"] in answered for item in work.made):
            return work.number if work.first is None else work.first
    return None


def _check_background(body: JsonObject, *, background: bool) -> None:
    options = fields.obj(body, "background_options")
    if options is None:
        return
    window = fields.one_of(options, "completion_window", WINDOWS)
    if window in ("2h", "8h") and not background:
        raise invalid(f"The completion window '{window}' requires 'background' to be true.", param="background_options")
    if window in ("2h", "8h") and body.get("stream"):
        raise invalid(f"The completion window '{window}' cannot be streamed.", param="background_options")


def _settings(api: Api, body: JsonObject) -> JsonObject:
    """The response's own fields; raises ApiError."""
    model = fields.required_text(body, "model")
    check_model(api, model)
    background = fields.flag(body, "background", default=False)
    _check_background(body, background=background)
    temperature = fields.number(body, "temperature", low=0, high=2)
    top_p = fields.number(body, "top_p", low=0, high=1)
    service_tier = fields.text(body, "service_tier")
    tools = checked_tools(body, "responses", most=TOOLS)
    return {
        "background": background,
        "store": fields.flag(body, "store", default=True),
        "model": model,
        "instructions": fields.text(body, "instructions", most=TEXT_CHARS),
        "metadata": fields.metadata(body),
        "tools": tools,
        "tool_choice": checked_choice(body, tools),
        "parallel_tool_calls": fields.flag(body, "parallel_tool_calls", default=True),
        "max_output_tokens": fields.whole(body, "max_output_tokens", least=16),
        "max_tool_calls": fields.whole(body, "max_tool_calls", least=1),
        "temperature": 1.0 if temperature is None else temperature,
        "top_p": 1.0 if top_p is None else top_p,
        "text": checked_text(body),
        "reasoning": fields.obj(body, "reasoning") or {"effort": None, "summary": None},
        "truncation": fields.one_of(body, "truncation", ("auto", "disabled")) or "disabled",
        "service_tier": "default" if service_tier in (None, "auto") else service_tier,
        "safety_identifier": fields.text(body, "safety_identifier", most=128),
        "previous_response_id": fields.text(body, "previous_response_id"),
    }


def _chosen_id(api: Api, body: JsonObject) -> str | None:
    """The id the client wants its response to have; raises ApiError."""
    chosen = fields.text(body, "request_id", most=64)
    if chosen is None:
        return None
    if _ID.fullmatch(chosen) is None:
        raise invalid(f"Invalid 'request_id': '{chosen}'. Expected an ID that begins with 'resp_'.", param="request_id")
    if api.works.get("responses", chosen) is not None:
        raise invalid(f"A response with id '{chosen}' exists already.", param="request_id", code="response_exists")
    return chosen


def _create(api: Api, call: Call) -> Reply:
    body = call.body
    fields.only(body, PARAMETERS | {"request_id"} if api.options.client_ids else PARAMETERS)
    streamed = fields.flag(body, "stream", default=False)
    if body.get("prompt") is not None:
        raise unsupported("prompt objects (OpenAI shuts them down on 2026-11-30)", param="prompt")
    response_id = _chosen_id(api, body) or new_id("resp")
    settings = _settings(api, body)
    container = check_tool_files(api, settings["tools"])
    include = frozenset(fields.strings(body, "include"))
    items = _input(body)
    check_parts(api, items)
    conversation_id = _conversation_id(body)
    previous = _previous(api, body)
    if conversation_id is not None:
        if previous is not None:
            raise invalid(
                "Mutually exclusive parameters. Ensure you are only providing one of: 'previous_response_id' or "
                "'conversation'.",
                code="mutually_exclusive_parameters",
            )
        find_conversation(api, conversation_id)
        if api.works.active_in(conversation_id) is not None:
            raise conversation_locked()
    elif previous is None and not items:
        raise invalid(
            "One of 'input', 'previous_response_id' or 'conversation' must be provided.",
            code="missing_required_parameter",
        )
    settings["conversation"] = None if conversation_id is None else {"id": conversation_id}
    before = history(api.store, api.works, conversation_id, settings["previous_response_id"])
    _check_calls([*before, *items])
    now = api.now()
    work = Work(
        id=response_id,
        protocol="responses",
        scope=conversation_id,
        number=api.storage.next_ledger_number(),
        created=now,
        deadline=None,
        body=settings,
        input=items,
        container=container or last_container(api, before),
        first=_first_number(api, items, previous, conversation_id),
        started=now,
        streamed=streamed,
    )
    api.works.begin(work)
    api.stats.created["responses"] += 1
    if streamed:
        return Reply(stream=Stream(work=work, include=include), work=work)
    if settings["background"]:
        return Reply(body=response_wire(work, now, include), work=work)
    return Reply(wait_for=work, work=work, include=include)


def _response(api: Api, call: Call) -> Work:
    response_id = call.params["response_id"]
    work = api.works.get("responses", response_id)
    if work is None:
        raise not_found(f"Response with id '{response_id}' not found.")
    return work


def _retrieve(api: Api, call: Call) -> Reply:
    work = _response(api, call)
    if call.query.get("stream", "false") != "false":
        return Reply(stream=_resumed(work, call))
    api.works.poll(work)
    hint = work.poll_after_ms
    headers = {} if hint is None else {"openai-poll-after-ms": str(hint)}
    return Reply(body=response_wire(work, api.now(), call.include), headers=headers)


def _resumed(work: Work, call: Call) -> Stream:
    """The stream of a response from where the client has it; raises ApiError."""
    if not (work.streamed and work.body["background"]):
        raise invalid(
            "This response cannot be streamed: it was not created with both 'background' and 'stream' set to true.",
            param="stream",
        )
    given = call.query.get("starting_after")
    if given is not None and not (given.isascii() and given.isdigit()):
        raise invalid(
            f"Invalid type for 'starting_after': expected an integer, but got {given!r} instead.",
            param="starting_after",
            code="invalid_type",
        )
    return Stream(work=work, after=-1 if given is None else int(given), include=call.include)


def _delete(api: Api, call: Call) -> Reply:
    work = _response(api, call)
    api.works.forget(work)
    return Reply(body={"id": work.id, "object": "response", "deleted": True})


def _cancel(api: Api, call: Call) -> Reply:
    work = _response(api, call)
    if not work.body["background"]:
        raise invalid("Cannot cancel a synchronous response.")
    api.works.cancel(work)
    return Reply(body=response_wire(work, api.now(), frozenset()))


def _input_items(api: Api, call: Call) -> Reply:
    work = _response(api, call)
    data, has_more = fields.cut_page(work.input, fields.page_query(call.query))
    return Reply(body=page([item_wire(item, call.include) for item in data], has_more=has_more))


ROUTES = (
    Route("POST", "/responses", _create),
    Route("GET", "/responses/{response_id}", _retrieve),
    Route("DELETE", "/responses/{response_id}", _delete),
    Route("POST", "/responses/{response_id}/cancel", _cancel),
    Route("GET", "/responses/{response_id}/input_items", _input_items),
)
