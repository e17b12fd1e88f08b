"""Runs that are watched: a stream of events, read as pieces of one vocabulary for both protocols (`askq.jobs.live`).

A stream is a way to see a run early and nothing more. Whatever happens to it, its run goes on, and polling finds its
end: so everything that cannot be understood here is passed over, and a stream that breaks says so and is closed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import aiohttp
import httpx2
from openai import AsyncStream, OpenAIError

from askq.jobs.live import Kind, Piece
from worker.protocols.base import Ambiguous, Broken, RunState, Status
from worker.protocols.fields import JsonObject, a_text, an_object, objects
from worker.protocols.translate import translate
from worker.protocols.wire import Reply, parsed

Events = AsyncStream[object]
_BROKEN = (OpenAIError, TimeoutError, ValueError, RecursionError, aiohttp.ClientError, httpx2.HTTPError, OSError)
"""What reading a stream can raise: cut, stalled, or no events at all."""

_OVER = frozenset({"requires_action", "completed", "incomplete", "failed", "cancelled", "expired"})
"""What a run says at its end, or when it waits for the client. What nobody knows yet is no end, as with polls."""

_OPENING, _CLOSING = "【", "】"
_LONGEST_MARKER = 80


class Reader(Protocol):
    """Reads the events of one run, in order."""

    ended: bool
    """Whether an event said that the run has ended, or waits for the client."""

    whole: JsonObject | None
    """The run as it was at its end, where the last event carries it with all that it has brought."""

    def run(self, event: JsonObject) -> JsonObject | None:
        """The run that an event names."""

    def pieces(self, event: JsonObject) -> list[Piece]:
        """What an event brings to see."""


class Watched:
    """A run's stream. Belongs to whoever asked for it, who must close it."""

    def __init__(self, stream: Events, reader: Reader) -> None:
        self.understood: Callable[[Reply], Status] | None = None
        """What a whole run means, where the last event brings one."""
        self._stream = stream
        self._reader = reader
        self._ahead: list[Piece] = []
        self._read = self._events()
        self.sequence: int | None = None
        """Number of the last event, where the protocol numbers them: a broken stream can be resumed after it."""

    @property
    def reader(self) -> Reader:
        """What has been read so far: whoever resumes the stream goes on with it."""
        return self._reader

    @property
    def ended(self) -> bool:
        """Whether the run has ended, as far as the stream tells."""
        return self._reader.ended

    @property
    def brings_end(self) -> bool:
        return self.understood is not None

    @property
    def final(self) -> Status | None:
        whole = self._reader.whole
        if whole is None or self.understood is None:
            return None
        status = self.understood(Reply(whole, self._stream.response.headers))
        return None if status.state is RunState.PENDING else status

    async def opening(self) -> Reply:
        """The first event that names the run, as if it were the reply to a create that was not streamed; that reply
        itself, where the server knows no streams. Raises what `_BROKEN` says, and Ambiguous when neither comes."""
        headers = self._stream.response.headers
        if "text/event-stream" not in headers.get("content-type", ""):
            await self._stream.response.aread()
            body = parsed(self._stream.response.text)
            self._reader.ended = True
            if not isinstance(body, dict) or not a_text(body.get("id")):
                raise Ambiguous("unreadable", "the reply is no object with an id")
            return Reply(body, headers)
        async for event in self._read:
            self._ahead += self._reader.pieces(event)
            run = self._reader.run(event)
            if run is not None and a_text(run.get("id")):
                return Reply(run, headers)
        raise Ambiguous("no_reply", "the stream ended before it named its run")

    async def pieces(self) -> AsyncIterator[Piece]:
        """What is to see, until the run or the stream ends; `ended` says which. Raises Broken."""
        while self._ahead:
            yield self._ahead.pop(0)
        try:
            while not self._reader.ended and (event := await anext(self._read, None)) is not None:
                for piece in self._reader.pieces(event):
                    yield piece
        except _BROKEN as exc:
            raise Broken(translate(exc).message) from exc

    async def _events(self) -> AsyncIterator[JsonObject]:
        async for found in self._stream:
            event = _sound(found)
            number = event.get("sequence_number")
            if isinstance(number, int) and number >= 0:
                self.sequence = number
            yield event

    async def close(self) -> None:
        """Hang up. Neither protocol ends a run for that."""
        await self._stream.close()


async def watched(
    opened: Awaitable[Events], reader: Reader, *, names: str, longest_s: float | None
) -> tuple[Watched, Reply]:
    """Open the stream of a create: it, and what its first event says of the run. Raises CallError."""
    found: Watched | None = None
    try:
        async with asyncio.timeout(longest_s):
            found = Watched(await opened, reader)
            return found, await found.opening()
    except Ambiguous:
        if found is not None:
            await found.close()
        raise
    except _BROKEN as exc:
        if found is not None:
            await found.close()
        raise translate(exc, names=names) from exc


async def resumed(opened: Awaitable[Events], reader: Reader, *, names: str, longest_s: float | None) -> Watched:
    """Open the stream of a run that exists. Raises CallError."""
    try:
        async with asyncio.timeout(longest_s):
            stream = await opened
    except _BROKEN as exc:
        raise translate(exc, names=names) from exc
    if "text/event-stream" not in stream.response.headers.get("content-type", ""):
        await stream.close()
        raise Ambiguous("unreadable", "the server does not stream this run")
    return Watched(stream, reader)


class _Texts:
    """How long each growing text is by now: where the next piece of it belongs."""

    def __init__(self) -> None:
        self._lengths: dict[tuple[Kind, str], int] = {}

    def grown(self, kind: Kind, key: str, text: str, name: str = "") -> list[Piece]:
        if not text and not name:
            return []
        at = self._lengths.get((kind, key), 0)
        self._lengths[kind, key] = at + len(text)
        return [Piece(kind=kind, key=key, at=at, text=text, name=name)]

    def rest(self, kind: Kind, key: str, whole: str, name: str = "") -> list[Piece]:
        """What of a text that is known whole by now has not been seen."""
        return self.grown(kind, key, whole[self._lengths.get((kind, key), 0) :], name)


class ResponseReader:
    """The events of a response (protocols B.5)."""

    def __init__(self) -> None:
        self.ended = False
        self.whole: JsonObject | None = None
        self._items: list[JsonObject] = []
        self._texts = _Texts()
        self._asides: set[str] = set()
        """Messages that are commentary, not answer."""
        self._status = ""

    def run(self, event: JsonObject) -> JsonObject | None:
        found = event.get("response")
        return found if isinstance(found, dict) else None

    def pieces(self, event: JsonObject) -> list[Piece]:
        kind = a_text(event.get("type"))
        item, delta = a_text(event.get("item_id")), a_text(event.get("delta"))
        match kind:
            case "response.output_text.delta" | "response.refusal.delta":
                return self._texts.grown(Kind.ASIDE if item in self._asides else Kind.TEXT, item, delta)
            case "response.code_interpreter_call_code.delta":
                return self._texts.grown(Kind.CODE, item, delta)
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                return self._texts.grown(Kind.CALL, item, delta)
            case "response.output_item.added":
                return self._item(an_object(event.get("item")))
            case "response.output_item.done":
                return self._item_done(an_object(event.get("item")))
            case "response.output_text.annotation.added":
                return _file_of(an_object(event.get("annotation")))
        response = self.run(event)
        if response is None:
            return []
        status = a_text(response.get("status"))
        self.ended = status in _OVER
        if self.ended:
            # Some servers repeat nothing of what they have sent.
            self.whole = response if objects(response.get("output")) else {**response, "output": self._items}
        if status in ("", self._status) or self.ended:
            return []
        self._status = status
        return [Piece(kind=Kind.STATUS, text=status)]

    def _item(self, item: JsonObject) -> list[Piece]:
        key = a_text(item.get("id"))
        match item.get("type"):
            case "message" if item.get("phase") == "commentary":
                self._asides.add(key)
            case "function_call" | "custom_tool_call":
                return self._texts.grown(Kind.CALL, key, "", a_text(item.get("name")))
            case "file_search_call":
                return [Piece(kind=Kind.SEARCH, key=key, name="files")]
            case "web_search_call":
                return [Piece(kind=Kind.SEARCH, key=key, name="web")]
        return []

    def _item_done(self, item: JsonObject) -> list[Piece]:
        self._items.append(item)
        key = a_text(item.get("id"))
        match item.get("type"):
            case "code_interpreter_call":
                found = self._texts.rest(Kind.CODE, key, a_text(item.get("code")))
                for number, output in enumerate(objects(item.get("outputs"))):
                    if output.get("type") == "logs":
                        found += self._texts.rest(Kind.OUTPUT, f"{key}/{number}", a_text(output.get("logs")))
                    elif output.get("type") == "image":
                        found.append(Piece(kind=Kind.IMAGE, key=a_text(output.get("url"))))
                return found
            case "function_call":
                return self._texts.rest(Kind.CALL, key, a_text(item.get("arguments")), a_text(item.get("name")))
            case "message":
                kind = Kind.ASIDE if item.get("phase") == "commentary" or key in self._asides else Kind.TEXT
                parts = objects(item.get("content"))
                whole = "".join(a_text(part.get("text")) or a_text(part.get("refusal")) for part in parts)
                return self._texts.rest(kind, key, whole)
        return []


class ThreadReader:
    """The events of a run in a thread (protocols A.9)."""

    def __init__(self) -> None:
        self.ended = False
        self.whole: JsonObject | None = None
        self._texts = _Texts()
        self._marks: dict[str, _Unmarked] = {}
        self._status = ""

    def run(self, event: JsonObject) -> JsonObject | None:
        data = an_object(event.get("data"))
        return data if a_text(event.get("event")).startswith("thread.run.") and "step" not in event["event"] else None

    def pieces(self, event: JsonObject) -> list[Piece]:
        name, data = a_text(event.get("event")), an_object(event.get("data"))
        delta = an_object(data.get("delta"))
        match name:
            case "thread.message.delta":
                return self._message(a_text(data.get("id")), objects(delta.get("content")))
            case "thread.message.completed" | "thread.message.incomplete":
                return self._message_done(data)
            case "thread.run.step.delta":
                details = an_object(delta.get("step_details"))
                return self._calls(a_text(data.get("id")), objects(details.get("tool_calls")))
        run = self.run(event)
        if run is None:
            return []
        status = name.removeprefix("thread.run.")
        self.ended = status in _OVER
        if status in ("created", self._status) or self.ended:
            return []
        self._status = status
        return [Piece(kind=Kind.STATUS, text=status)]

    def _message(self, message: str, parts: list[JsonObject]) -> list[Piece]:
        found: list[Piece] = []
        for place, part in enumerate(parts):
            key = f"{message}/{part.get('index', place)}"
            text = an_object(part.get("text"))
            match part.get("type"):
                case "text":
                    unmarked = self._marks.setdefault(key, _Unmarked())
                    found += self._texts.grown(Kind.TEXT, key, unmarked.fed(a_text(text.get("value"))))
                    found += [piece for note in objects(text.get("annotations")) for piece in _file_of(note)]
                case "refusal":
                    found += self._texts.grown(Kind.TEXT, key, a_text(part.get("refusal")))
                case "image_file":
                    found.append(_image(part))
        return [piece for piece in found if piece.kind is not Kind.IMAGE or piece.key]

    def _message_done(self, message: JsonObject) -> list[Piece]:
        """What was held back, because it might have been a mark."""
        found: list[Piece] = []
        for key, unmarked in self._marks.items():
            if key.startswith(f"{a_text(message.get('id'))}/"):
                found += self._texts.grown(Kind.TEXT, key, unmarked.rest())
        return found

    def _calls(self, step: str, calls: list[JsonObject]) -> list[Piece]:
        found: list[Piece] = []
        for place, call in enumerate(calls):
            key = f"{step}/{call.get('index', place)}"
            match call.get("type"):
                case "code_interpreter":
                    code = an_object(call.get("code_interpreter"))
                    found += self._texts.grown(Kind.CODE, key, a_text(code.get("input")))
                    for number, output in enumerate(objects(code.get("outputs"))):
                        where = f"{key}/{output.get('index', number)}"
                        if output.get("type") == "logs":
                            found += self._texts.grown(Kind.OUTPUT, where, a_text(output.get("logs")))
                        elif output.get("type") == "image" and (image := a_text(_image(output, "image").key)):
                            found.append(Piece(kind=Kind.IMAGE, key=image))
                case "function":
                    function = an_object(call.get("function"))
                    name, arguments = a_text(function.get("name")), a_text(function.get("arguments"))
                    found += self._texts.grown(Kind.CALL, key, arguments, name)
                case "file_search":
                    found.append(Piece(kind=Kind.SEARCH, key=key, name="files"))
        return found


class _Unmarked:
    """A text without the marks where sources are cited (`【4:0†source】`), which come in parts."""

    def __init__(self) -> None:
        self._held = ""

    def fed(self, text: str) -> str:
        """What can be shown by now."""
        self._held += text
        shown = ""
        while self._held:
            start = self._held.find(_OPENING)
            if start < 0:
                # The blank before a mark goes with it.
                keep = len(self._held) - len(self._held.rstrip(" \u00a0"))
                cut = len(self._held) - keep
                shown, self._held = shown + self._held[:cut], self._held[cut:]
                return shown
            end = self._held.find(_CLOSING, start)
            if end < 0 and len(self._held) - start <= _LONGEST_MARKER:
                cut = len(self._held[:start].rstrip(" \u00a0"))
                shown, self._held = shown + self._held[:cut], self._held[cut:]
                return shown
            if end < 0 or "†" not in self._held[start:end]:
                # No mark after all.
                shown, self._held = shown + self._held[: start + 1], self._held[start + 1 :]
                continue
            shown += self._held[:start].removesuffix(" ").removesuffix("\u00a0")
            self._held = self._held[end + 1 :]
        return shown

    def rest(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _image(part: JsonObject, name: str = "image_file") -> Piece:
    return Piece(kind=Kind.IMAGE, key=a_text(an_object(part.get(name)).get("file_id")))


def _file_of(note: JsonObject) -> list[Piece]:
    """The file that an annotation speaks of, where the run has made it."""
    kind = a_text(note.get("type"))
    if kind == "container_file_citation":
        return [Piece(kind=Kind.FILE, key=a_text(note.get("file_id")), name=a_text(note.get("filename")))]
    if kind == "file_path":
        source = an_object(note.get("file_path")) or note
        name = a_text(note.get("text")).rpartition("/")[2]
        return [Piece(kind=Kind.FILE, key=a_text(source.get("file_id")), name=name)]
    return []


def _sound(event: object) -> JsonObject:
    """An event as it can be stored: half of a surrogate pair is legal in JSON, and no text."""
    if not isinstance(event, dict):
        return {}
    try:
        json.dumps(event, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        mended: Mapping[str, Any] = json.loads(json.dumps(event, ensure_ascii=False).encode("utf-8", "replace"))
        return mended
    return event
