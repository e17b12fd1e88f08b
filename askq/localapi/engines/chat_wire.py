"""Chat completions: a request in their words, and what they answer, whole or piece by piece."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from askq.localapi.engines.base import Call, Outcome, Output, Request, Text, Turn, Usage
from askq.localapi.engines.live import Live
from askq.localapi.engines.written_calls import form_of_a_call, may_be_calls, written_calls
from askq.localapi.wire import JsonObject, derived_id

SNIPPET_CHARS = 300


def chat_body(request: Request, model: str | None) -> JsonObject:
    """The request as chat completions spell it."""
    body: JsonObject = {"model": model or request.model, "messages": _messages(request)}
    options = request.options
    tools = [_function(tool) for tool in request.tools if tool.get("type") == "function"]
    choice = options.get("tool_choice")
    if choice not in (None, "none", "required"):
        # A function by its name: llama.cpp and LM Studio know no such choice, but all know what this comes to.
        tools = [tool for tool in tools if tool["function"]["name"] == choice]
        choice = "required"
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = choice
        if options.get("parallel_tool_calls") is False:
            body["parallel_tool_calls"] = False
    body.update({name: options[name] for name in ("temperature", "top_p", "reasoning_effort") if name in options})
    if "max_output_tokens" in options:
        body["max_tokens"] = options["max_output_tokens"]
    if "format" in options:
        body["response_format"] = _response_format(options["format"])
    if request.live is not None:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def as_a_form(body: JsonObject) -> JsonObject:
    """A body that requires a call, for servers that cannot require one: the call becomes the form of the answer."""
    functions = [tool["function"] for tool in body["tools"]]
    told = [{name: value for name, value in function.items() if name != "strict"} for function in functions]
    lines = "\n".join(json.dumps(function, ensure_ascii=False) for function in told)
    rule = f'Call one of these functions: answer with JSON, {{"name": …, "arguments": …}}, and nothing else.\n{lines}'
    messages = list(body["messages"])
    if messages and messages[0]["role"] == "system":
        messages[0] = {**messages[0], "content": f"{messages[0]['content']}\n\n{rule}"}
    else:
        messages.insert(0, {"role": "system", "content": rule})
    rest = {
        name: value
        for name, value in body.items()
        if name not in ("tools", "tool_choice", "parallel_tool_calls", "messages")
    }
    schema = {"name": "call", "schema": form_of_a_call(functions), "strict": True}
    return {**rest, "messages": messages, "response_format": {"type": "json_schema", "json_schema": schema}}


def reader_for(url: str, request: Request, body: JsonObject, live: Live | None) -> Reader:
    """A reader for the answer to this body; it tells `live` what comes piece by piece."""
    forced = body.get("tool_choice") == "required"
    callable_ = forced or ("response_format" not in body and body.get("tool_choice") != "none")
    return Reader(
        url,
        request.work_id,
        live,
        functions=[tool["function"]["name"] for tool in body.get("tools", ())] if callable_ else (),
        forced=forced,
        one_call=body.get("parallel_tool_calls") is False,
        before=sum(turn.role == "call" for turn in request.turns),
    )


def _messages(request: Request) -> list[JsonObject]:
    messages: list[JsonObject] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    for turn in request.turns:
        if turn.role == "call":
            call = {
                "id": turn.call_id,
                "type": "function",
                "function": {"name": turn.name, "arguments": turn.text},
            }
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif turn.role == "output":
            messages.append({"role": "tool", "tool_call_id": turn.call_id, "content": turn.text})
        else:
            # Few of the servers behind this know `developer`.
            role = "system" if turn.role == "developer" else turn.role
            messages.append({"role": role, "content": _content(turn, request) if turn.images else turn.text})
    return messages


def _content(turn: Turn, request: Request) -> list[JsonObject]:
    """A message with pictures: files become data URLs, as the upstream has none of them."""
    parts: list[JsonObject] = [{"type": "text", "text": turn.text}] if turn.text else []
    paths = {file.file_id: file for file in request.files}
    for image in turn.images:
        url = image.get("url")
        if url is None:
            file = paths.get(image["file_id"])
            if file is None:
                parts.append({"type": "text", "text": f"(The image {image['file_id']} is not there any more.)"})
                continue
            media = mimetypes.guess_type(file.name)[0] or "image/png"
            url = f"data:{media};base64,{base64.b64encode(file.read()).decode()}"
        shown = {"url": url} if image.get("detail") in (None, "auto") else {"url": url, "detail": image["detail"]}
        parts.append({"type": "image_url", "image_url": shown})
    return parts


def _function(tool: Any) -> JsonObject:
    if "function" in tool:
        return {"type": "function", "function": dict(tool["function"])}
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _response_format(wanted: JsonObject) -> JsonObject:
    if wanted["type"] != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": {name: value for name, value in wanted.items() if name != "type"}}


def failed(message: str, *, code: str = "server_error", outputs: tuple[Output, ...] = ()) -> Outcome:
    """A failure that says what the upstream did."""
    return Outcome(status="failed", outputs=outputs, error_code=code, error_message=message)


def refused(url: str, status: int, text: str) -> Outcome:
    """The failure that an error status stands for."""
    code = "rate_limit_exceeded" if status == 429 else "server_error"
    return failed(f"{url} answered {status}: {_upstream_message(text)}", code=code)


def _upstream_message(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        return str(error["message"]) if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        return text.strip()[:SNIPPET_CHARS] or "(an empty body)"


def read_whole(reader: Reader, text: str) -> Outcome:
    """The outcome of a completion that came as one object."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        calls = [{"index": index, **call} for index, call in enumerate(message.get("tool_calls") or ())]
        reader.chunk(
            {
                "choices": [
                    {
                        "delta": {"content": message.get("content"), "tool_calls": calls},
                        "finish_reason": choice.get("finish_reason") or "stop",
                    }
                ],
                "usage": body.get("usage"),
            }
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return failed(f"{reader.url} did not answer with a chat completion: {text.strip()[:SNIPPET_CHARS]}")
    return reader.outcome()


def whole(text: str) -> str:
    """A text with its surrogate pairs put together; what is left of halves becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(slots=True)
class _Growing:
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class Reader:
    """Puts the chunks of a streamed completion together, and tells them on."""

    def __init__(
        self,
        url: str,
        work_id: str,
        live: Live | None,
        *,
        functions: Collection[str] = (),
        forced: bool = False,
        one_call: bool = False,
        before: int = 0,
    ) -> None:
        """`functions`: those that may be called, also by writing the call into the text; `forced`: one must
        be; `one_call`: at most one may be; `before`: how many calls the conversation had before."""
        self.url = url
        self._work_id = work_id
        self._live = live
        self._functions = functions
        self._forced = forced
        self._one_call = one_call
        self._before = before
        self._held = bool(functions)
        """Whether the text is kept back, because it may be calls, or in place of one that was asked for."""
        self._text: list[str] = []
        self._half = ""
        self._calls: dict[int, _Growing] = {}
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._error: str | None = None

    def line(self, line: bytes) -> bool:
        """Read a line of the stream; whether it goes on."""
        text = line.decode("utf-8", "replace").strip()
        if not text.startswith("data:"):
            return True
        data = text.removeprefix("data:").strip()
        if data == "[DONE]":
            return False
        try:
            self.chunk(json.loads(data))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            self._error = f"{self.url} sent a chunk that is none: {data[:SNIPPET_CHARS]}"
        return self._error is None

    def chunk(self, chunk: Any) -> None:
        """Take in a chunk. Raises what a malformed one leads to."""
        if chunk.get("error"):
            self._error = f"{self.url} broke off: {_upstream_message(json.dumps(chunk))}"
            return
        usage = chunk.get("usage")
        if usage:
            self._usage = Usage(
                input_tokens=int(usage["prompt_tokens"]), output_tokens=int(usage.get("completion_tokens") or 0)
            )
        if not chunk.get("choices"):
            return
        choice = chunk["choices"][0]
        delta = choice.get("delta") or {}
        if delta.get("content"):
            piece = self._in_whole_signs(str(delta["content"]))
            self._text.append(piece)
            self._tell(piece)
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if choice.get("finish_reason"):
            self._finish = str(choice["finish_reason"])

    def _in_whole_signs(self, piece: str) -> str:
        """A piece, with the half of a sign that the one before ended with, and without the half that it ends with:
        some servers cut their JSON in the middle of a surrogate pair."""
        piece = self._half + piece
        self._half = piece[-1] if "\ud800" <= piece[-1] <= "\udbff" else ""
        return whole(piece[: len(piece) - len(self._half)])

    def _tell(self, piece: str) -> None:
        if self._held:
            piece = "".join(self._text)
            self._held = self._forced or may_be_calls(piece)
        if self._live is not None and not self._held:
            self._live.text(piece)

    def _call(self, given: Any) -> None:
        if self._held and self._text and self._live is not None:
            self._live.text("".join(self._text))
        self._held = False
        index = given.get("index")
        index = len(self._calls) if index is None else int(index)
        function = given.get("function") or {}
        if index not in self._calls:
            # Some servers give no ids; whoever answers the call needs one.
            self._calls[index] = _Growing(str(given.get("id") or self._id(index)), str(function["name"]))
        growing = self._calls[index]
        arguments = function.get("arguments")
        piece = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        growing.arguments.append(piece)
        if self._live is not None:
            self._live.call(growing.call_id, growing.name, piece)

    def _id(self, index: int) -> str:
        return derived_id("call", self._work_id, self._before + index)

    def outcome(self) -> Outcome:
        """What it comes to, at the end of the stream."""
        text = "".join(self._text) + ("\ufffd" if self._half else "")
        outputs: tuple[Output, ...] = (Text(value=text),) if text else ()
        if self._held and not self._calls and self._error is None and self._finish not in (None, "length"):
            written = written_calls(text, self._functions)[: 1 if self._one_call else None]
            if written:
                calls = enumerate(written)
                outputs = tuple(Call(call_id=self._id(at), name=name, arguments=args) for at, (name, args) in calls)
                return Outcome(outputs=outputs, usage=self._usage)
        if self._error is not None:
            return failed(self._error, outputs=outputs)
        if self._finish is None:
            return failed(f"{self.url} broke off before the end of its answer.", outputs=outputs)
        outputs += tuple(
            Call(call_id=whole(call.call_id), name=whole(call.name), arguments=whole("".join(call.arguments)))
            for _, call in sorted(self._calls.items())
        )
        if self._finish in ("length", "content_filter"):
            reason = "max_output_tokens" if self._finish == "length" else "content_filter"
            return Outcome(status="incomplete", outputs=outputs, usage=self._usage, reason=reason)
        return Outcome(outputs=outputs, usage=self._usage)
