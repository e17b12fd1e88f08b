"""The `chat` engine: forwards to any server that speaks chat completions."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from askq.localapi.engines.base import Call, Outcome, Output, Plan, Request, Text, Usage
from askq.localapi.wire import JsonObject

_SNIPPET_CHARS = 300


class ChatEngine:
    """One POST to `<url>/chat/completions` for each leg of a run.

    What the upstream refuses becomes the run's failure, with its message. After a restart an unfinished run is asked
    again. Tools other than functions are left out: the upstream has no interpreter and no files.
    """

    name = "chat"

    def __init__(self, url: str, *, model: str | None, key: str | None, timeout_s: float, concurrency: int) -> None:
        self.concurrency = concurrency
        self.models: tuple[str, ...] = () if model is None else (model,)
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    def plan(self, request: Request) -> Plan | None:
        """Nothing is planned: the upstream decides."""
        return None

    async def answer(self, request: Request) -> Outcome:
        """Ask the upstream."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=self.concurrency),
            )
        try:
            async with self._session.post(self._url, json=chat_body(request, self._model)) as reply:
                text = await reply.text(errors="replace")
                status = reply.status
        except TimeoutError:
            return _failed(f"{self._url} did not answer within {self._timeout_s:g} s.")
        except aiohttp.ClientError as exc:
            return _failed(f"{self._url} cannot be reached: {exc}. Is the server behind --chat-url running?")
        if status != 200:
            return _failed(
                f"{self._url} answered {status}: {_upstream_message(text)}",
                code="rate_limit_exceeded" if status == 429 else "server_error",
            )
        return _read(self._url, text)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def chat_body(request: Request, model: str | None) -> JsonObject:
    """The request as chat completions spell it."""
    body: JsonObject = {"model": model or request.model, "messages": _messages(request)}
    tools = [_function(tool) for tool in request.tools if tool.get("type") == "function"]
    if tools:
        body["tools"] = tools
    options = request.options
    body.update({name: options[name] for name in ("temperature", "top_p", "reasoning_effort") if name in options})
    if "max_output_tokens" in options:
        body["max_tokens"] = options["max_output_tokens"]
    if "format" in options:
        body["response_format"] = _response_format(options["format"])
    return body


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
            if messages and messages[-1].get("tool_calls"):
                messages[-1]["tool_calls"].append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif turn.role == "output":
            messages.append({"role": "tool", "tool_call_id": turn.call_id, "content": turn.text})
        else:
            # Few of the servers behind this know `developer`.
            role = "system" if turn.role == "developer" else turn.role
            messages.append({"role": role, "content": turn.text})
    return messages


def _function(tool: Any) -> JsonObject:
    if "function" in tool:
        return {"type": "function", "function": dict(tool["function"])}
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _response_format(wanted: JsonObject) -> JsonObject:
    if wanted["type"] != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": {name: value for name, value in wanted.items() if name != "type"}}


def _failed(message: str, *, code: str = "server_error") -> Outcome:
    return Outcome(status="failed", error_code=code, error_message=message)


def _upstream_message(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        return str(error["message"]) if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        return text.strip()[:_SNIPPET_CHARS] or "(an empty body)"


def _read(url: str, text: str) -> Outcome:
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        outputs: list[Output] = []
        if message.get("content"):
            outputs.append(Text(value=str(message["content"])))
        outputs.extend(
            Call(call_id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        )
        given = body.get("usage")
        usage = (
            Usage(input_tokens=int(given["prompt_tokens"]), output_tokens=int(given["completion_tokens"]))
            if given
            else None
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return _failed(f"{url} did not answer with a chat completion: {text.strip()[:_SNIPPET_CHARS]}")
    finish = choice.get("finish_reason")
    if finish in ("length", "content_filter"):
        reason = "max_output_tokens" if finish == "length" else "content_filter"
        return Outcome(status="incomplete", outputs=tuple(outputs), usage=usage, reason=reason)
    return Outcome(outputs=tuple(outputs), usage=usage)
