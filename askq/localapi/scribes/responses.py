"""Responses and the items of conversations: request, output items, wire form."""

from __future__ import annotations

from collections.abc import Collection

from askq.localapi.engines.base import Call, Code, Outcome, Output, Request, Search, Text, Turn
from askq.localapi.files.products import Products
from askq.localapi.scribes.contained import Contained, search_item
from askq.localapi.scribes.given import Belongings
from askq.localapi.scribes.tools import offered, tool_options
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject, derived_id
from askq.localapi.work import Work
from askq.localapi.works import Works

CODE_OUTPUTS = "code_interpreter_call.outputs"
"""The include without which the outputs of code are null."""

SEARCH_RESULTS = "file_search_call.results"
"""The include without which the results of a search are null."""

_REASONS = {"max_completion_tokens": "max_output_tokens", "max_prompt_tokens": "max_output_tokens"}
"""Reasons in the words of the Assistants protocol, and what a response calls them."""


class ResponsesScribe:
    """Writes for responses."""

    def __init__(self, store: Store, works: Works, products: Products, belongings: Belongings | None = None) -> None:
        self._belongings = belongings
        self._products = products
        self._store = store
        self._works = works

    def request(self, work: Work) -> Request:
        """History and input."""
        body = work.body
        before = history(self._store, self._works, work.scope, body["previous_response_id"])
        items = [*before, *work.input]
        options = {
            "temperature": body["temperature"],
            "top_p": body["top_p"],
            "max_output_tokens": body["max_output_tokens"],
            "reasoning_effort": (body["reasoning"] or {}).get("effort"),
            "format": _format(body["text"]),
            **tool_options(body),
        }
        return Request(
            work_id=work.id,
            protocol="responses",
            model=body["model"],
            instructions=body["instructions"] or "",
            turns=turns(items),
            tools=tuple(offered(body)),
            options={name: value for name, value in options.items() if value is not None},
            metadata=body["metadata"],
            number=work.number if work.first is None else work.first,
            **({} if self._belongings is None else self._belongings.of_response(work, items)),
        )

    def write(self, work: Work, outcome: Outcome, at: float) -> bool:
        """Make the output items; a completed response adds its input and output to its conversation."""
        container = Contained(self._products, work, outcome)
        work.made = [
            _output_item(work, output, outcome, number, container) for number, output in enumerate(outcome.outputs)
        ]
        container.leave()
        if outcome.status == "completed" and work.scope is not None and self._store.get("conversation", work.scope):
            for item in (*work.input, *work.made):
                self._store.add("item", item, parent=work.scope)
        return True


def history(store: Store, works: Works, conversation_id: str | None, previous_id: str | None) -> list[JsonObject]:
    """The items before a response's input: the conversation's, or those of the chain it continues.

    A chain begins at the first response without a `previous_response_id`, even where that one was part of a
    conversation.
    """
    if conversation_id is not None:
        return store.below("item", conversation_id)
    chain: list[list[JsonObject]] = []
    while previous_id is not None:
        previous = works.get("responses", previous_id)
        if previous is None:  # deleted meanwhile; what came before it cannot be known
            break
        chain.append([*previous.input, *previous.made])
        previous_id = previous.body["previous_response_id"]
    return [item for items in reversed(chain) for item in items]


def item_text(item: JsonObject) -> str:
    """The text of a message item or of a tool output."""
    content = item.get("output") if item["type"] == "function_call_output" else item.get("content")
    if isinstance(content, str):
        return content
    texts = (part.get("text") or part.get("refusal") or "" for part in content or [])
    return "\n".join(text for text in texts if text)


def _images(item: JsonObject) -> tuple[JsonObject, ...]:
    """The pictures in a message."""
    content = item.get("content")
    found = [part for part in content if part.get("type") == "input_image"] if isinstance(content, list) else []
    return tuple(
        {"detail": part.get("detail"), **({"file_id": part["file_id"]} if part.get("file_id") else {"url": url})}
        for part in found
        if (url := part.get("image_url")) is not None or part.get("file_id")
    )


def turns(items: list[JsonObject]) -> tuple[Turn, ...]:
    """Items as the engine sees them; kinds that carry no text for it are left out."""
    found: list[Turn] = []
    for item in items:
        match item["type"]:
            case "message":
                found.append(Turn(role=item["role"], text=item_text(item), images=_images(item)))
            case "function_call":
                found.append(Turn(role="call", text=item["arguments"], call_id=item["call_id"], name=item["name"]))
            case "function_call_output":
                found.append(Turn(role="output", text=item_text(item), call_id=item["call_id"]))
    return tuple(found)


def item_wire(item: JsonObject, include: Collection[str]) -> JsonObject:
    """An item as it is given out: the outputs of code only where they were asked for."""
    if item["type"] == "code_interpreter_call" and CODE_OUTPUTS not in include:
        return {**item, "outputs": None}
    if item["type"] == "file_search_call" and SEARCH_RESULTS not in include:
        return {**item, "results": None}
    return item


def response_wire(work: Work, now: float, include: Collection[str]) -> JsonObject:
    """The response object."""
    outcome = work.outcome if work.ended is not None else None
    status = work.status(now)
    error = incomplete = None
    if outcome is not None and status == "failed":
        error = {"code": outcome.error_code, "message": outcome.error_message}
        if outcome.status == "expired":
            error = {"code": "server_error", "message": outcome.error_message or "The response expired."}
    if outcome is not None and status == "incomplete":
        incomplete = {"reason": _REASONS.get(outcome.reason, outcome.reason)}
    return {
        "id": work.id,
        "object": "response",
        "created_at": int(work.created),
        "status": status,
        "completed_at": int(work.ended) if work.ended is not None and status == "completed" else None,
        "error": error,
        "incomplete_details": incomplete,
        "output": [item_wire(item, include) for item in work.made],
        "usage": _usage(work) if status in ("completed", "incomplete") and outcome is not None else None,
        **work.body,
    }


def _usage(work: Work) -> JsonObject:
    return {
        "input_tokens": work.spent.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": work.spent.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": work.spent.input_tokens + work.spent.output_tokens,
    }


def _output_item(work: Work, output: Output, outcome: Outcome, number: int, container: Contained) -> JsonObject:
    status = "completed" if outcome.status == "completed" else "incomplete"
    match output:
        case Text():
            part: JsonObject = {"type": "refusal", "refusal": output.value}
            if not output.refusal:
                annotations = container.annotations(output)
                part = {"type": "output_text", "text": output.value, "annotations": annotations, "logprobs": []}
            item: JsonObject = {
                "id": derived_id("msg", work.id, number),
                "type": "message",
                "role": "assistant",
                "status": status,
                "content": [part],
            }
            if output.phase is not None:
                item["phase"] = output.phase
            return item
        case Code():
            return container.code_item(output, number)
        case Search():
            return search_item(work.id, output, number)
        case Call():
            return {
                "id": derived_id("fc", work.id, number),
                "type": "function_call",
                "status": status,
                "call_id": output.call_id,
                "name": output.name,
                "arguments": output.arguments,
            }


def _format(text: JsonObject | None) -> JsonObject | None:
    format_ = (text or {}).get("format")
    return None if not isinstance(format_, dict) or format_.get("type") in (None, "text") else format_
