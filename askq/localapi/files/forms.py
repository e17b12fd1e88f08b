"""Multipart requests: fields into the body of the call, files into drafts of blobs."""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from aiohttp import BodyPartReader, web

from askq.localapi.errors import ApiError, invalid
from askq.localapi.files.blobs import Blobs, Draft
from askq.localapi.wire import JsonObject

FIELD_BYTES = 1 << 16
PARTS = 100
_ESCAPED = (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"))
"""What the HTML standard has forms do to names of files, and to nothing else in them."""
_KEYS = re.compile(r"[^\[\]]+")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that came with a request; its bytes are in a sealed draft."""

    name: str
    draft: Draft


def is_form(request: web.Request) -> bool:
    """Whether the request is a multipart form."""
    return request.content_type == "multipart/form-data"


async def read_form(request: web.Request, blobs: Blobs, most_bytes: int) -> JsonObject:
    """The fields of a form; `a[b]` is field `b` of object `a`. Files are Uploads. Raises ApiError."""
    body: JsonObject = {}
    try:
        reader = await request.multipart()
        for _ in range(PARTS):
            part = await reader.next()
            if part is None:
                return body
            if not isinstance(part, BodyPartReader) or not part.name:
                raise invalid("Each part of a multipart form must have a name.")
            if part.filename is None:
                _set(body, part.name, await _field(part))
            else:
                _set(body, part.name, Upload(_name(part.filename), await _draft(part, blobs, most_bytes)))
        raise invalid(f"The form has more than {PARTS} parts.")
    except ApiError:
        discard(body)
        raise
    except (ValueError, AssertionError, RuntimeError) as exc:
        discard(body)
        raise invalid(f"We could not parse the multipart form of your request: {exc}.") from exc
    except BaseException:  # the client has gone, or the server ends: nothing of it may stay
        discard(body)
        raise


def summary(body: JsonObject) -> bytes:
    """What tells one form from another."""
    said = {name: value.draft.digest if isinstance(value, Upload) else value for name, value in body.items()}
    return json.dumps(said, sort_keys=True).encode()


def discard(body: JsonObject) -> None:
    """Remove the drafts that nobody has taken."""
    for value in body.values():
        if isinstance(value, Upload):
            value.draft.discard()


async def _field(part: BodyPartReader) -> str:
    text = b""
    while piece := await part.read_chunk():
        text += piece
        if len(text) > FIELD_BYTES:
            raise invalid(f"The field '{part.name}' of the form is too long.", param=part.name)
    return text.decode("utf-8", "replace")


async def _draft(part: BodyPartReader, blobs: Blobs, most_bytes: int) -> Draft:
    draft = blobs.draft()
    try:
        while piece := await part.read_chunk(1 << 18):
            if draft.size + len(piece) > most_bytes:
                raise ApiError(
                    413,
                    f"File is too large: the maximum is {most_bytes} bytes ({most_bytes // 1_048_576} MB).",
                    param="file",
                    code="file_too_large",
                )
            draft.write(piece)
        await asyncio.to_thread(draft.seal, durable=True)
    except BaseException:
        draft.discard()
        raise
    return draft


def _name(name: str) -> str:
    """The last part of the name, without what no terminal should be sent; in Unicode's composed form."""
    for escaped, sign in _ESCAPED:
        name = name.replace(escaped, sign)
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    cleaned = "".join(sign for sign in last if unicodedata.category(sign) not in ("Cc", "Cs"))
    return cleaned.strip() or "file"


def _set(body: JsonObject, name: str, value: Any) -> None:
    first, *rest = _KEYS.findall(name) or [name]
    if not rest:
        body[first] = value
    elif isinstance(value, str):
        inner = body.setdefault(first, {})
        if isinstance(inner, dict):
            inner[rest[0]] = value
