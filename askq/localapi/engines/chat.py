"""The `chat` engine: forwards to any server that speaks chat completions."""

from __future__ import annotations

import dataclasses
import re

import aiohttp

from askq.localapi.engines.base import Outcome, Plan, Request, Usage
from askq.localapi.engines.chat_wire import as_a_form, chat_body, failed, read_whole, reader_for, refused
from askq.localapi.wire import JsonObject

_LINE_BYTES = 8 * 1024 * 1024
_PASSWORD = re.compile(r"(?<=://)[^/?#]*@")


class ChatEngine:
    """One POST to `<url>/chat/completions` for each leg of a run; a stream if the run is one.

    Functions, the choice among them, calls and their outputs, images and the form of the answer are passed through. A
    call that the model has written into its text is one all the same; where one is required and the upstream brings
    none, it is asked once more, for the call as the form of its answer.
    Other tools are left out: the upstream has no interpreter and no files. What the upstream refuses becomes the run's
    failure, with its message. After a restart an unfinished run is asked again.
    """

    name = "chat"

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        key: str | None,
        timeout_s: float,
        concurrency: int,
        by_form: bool = False,
    ) -> None:
        """`by_form`: the upstream does not keep to a choice that requires a call."""
        self._by_form = by_form
        self.concurrency = concurrency
        self.models: tuple[str, ...] = () if model is None else (model,)
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._shown = _PASSWORD.sub("…@", self._url)
        """The address as messages may have it: they are kept, and read by others."""
        self._model = model
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    def plan(self, request: Request) -> Plan | None:
        """Nothing is planned: the upstream decides."""
        return None

    async def answer(self, request: Request) -> Outcome:
        """Ask the upstream. Where a call is required and none comes, ask for it as the form of the answer."""
        body = chat_body(request, self._model)
        if body.get("tool_choice") != "required":
            return await self._asked(request, body, body)
        if self._by_form:
            return await self._asked(request, body, as_a_form(body))
        outcome = await self._asked(request, body, body)
        if outcome.calls or outcome.status not in ("completed", "incomplete"):
            return outcome
        again = await self._asked(request, body, as_a_form(body))
        return dataclasses.replace(again, usage=_both(outcome.usage, again.usage)) if again.calls else outcome

    async def _asked(self, request: Request, body: JsonObject, sent: JsonObject) -> Outcome:
        """What comes of a request; `body` says what may be called, `sent` what is posted."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=self.concurrency),
                read_bufsize=_LINE_BYTES,
            )
        reader = reader_for(self._shown, request, body, request.live)
        try:
            async with self._session.post(self._url, json=sent) as reply:
                if reply.status == 200 and reply.content_type == "text/event-stream":
                    async for line in reply.content:
                        if not reader.line(line):
                            break
                    return reader.outcome()
                text = await reply.text(errors="replace")
                if reply.status == 200:
                    return read_whole(reader_for(self._shown, request, body, None), text)
                return refused(self._shown, reply.status, text)
        except TimeoutError:
            return failed(
                f"{self._shown} did not answer within {self._timeout_s:g} s.", outputs=reader.outcome().outputs
            )
        except aiohttp.ClientConnectorError as exc:
            return failed(f"{self._shown} cannot be reached: {exc}. Is the server behind --chat-url running?")
        except (aiohttp.ClientError, ValueError) as exc:
            told = str(exc).replace(self._url, self._shown)
            return failed(f"{self._shown} broke off: {told}.", outputs=reader.outcome().outputs)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def _both(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return one or other
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens, output_tokens=one.output_tokens + other.output_tokens
    )
