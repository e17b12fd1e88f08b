"""The `chat` engine: forwards to any server that speaks chat completions."""

from __future__ import annotations

import aiohttp

from askq.localapi.engines.base import Outcome, Plan, Request
from askq.localapi.engines.chat_wire import chat_body, failed, read_whole, reader_for, refused

_LINE_BYTES = 8 * 1024 * 1024


class ChatEngine:
    """One POST to `<url>/chat/completions` for each leg of a run; a stream if the run is one.

    Functions, the choice among them, calls and their outputs, images and the form of the answer are passed through.
    Other tools are left out: the upstream has no interpreter and no files. What the upstream refuses becomes the run's
    failure, with its message. After a restart an unfinished run is asked again.
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
                read_bufsize=_LINE_BYTES,
            )
        body = chat_body(request, self._model)
        reader = reader_for(self._url, request, body, request.live)
        try:
            async with self._session.post(self._url, json=body) as reply:
                if reply.status == 200 and reply.content_type == "text/event-stream":
                    async for line in reply.content:
                        if not reader.line(line):
                            break
                    return reader.outcome()
                text = await reply.text(errors="replace")
                if reply.status == 200:
                    return read_whole(reader_for(self._url, request, body, None), text)
                return refused(self._url, reply.status, text)
        except TimeoutError:
            return failed(f"{self._url} did not answer within {self._timeout_s:g} s.", outputs=reader.outcome().outputs)
        except aiohttp.ClientConnectorError as exc:
            return failed(f"{self._url} cannot be reached: {exc}. Is the server behind --chat-url running?")
        except (aiohttp.ClientError, ValueError) as exc:
            return failed(f"{self._url} broke off: {exc}.", outputs=reader.outcome().outputs)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
