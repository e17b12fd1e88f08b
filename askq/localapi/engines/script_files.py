"""What a script prescribes of files: products of code, searches and citations (`script_file` documents the keys)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import zlib
from typing import Any

from askq.localapi.engines.base import Code, Hit, Product, Quote, Request, Search
from askq.localapi.files.products import LINK
from askq.localapi.wire import JsonObject

_KEYS = {"name", "text", "base64", "size"}


def is_product(value: Any) -> bool:
    """Whether this is a name, or a table that says what a file contains."""
    if isinstance(value, str):
        return bool(value)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not set(value) <= _KEYS:
        return False
    if len(value) > 2:
        return False
    size = value.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        return False
    return isinstance(value.get("text", ""), str) and _decoded(value.get("base64", "")) is not None


def is_result(value: Any) -> bool:
    """Whether this is a result of a search."""
    return (
        isinstance(value, dict)
        and set(value) <= {"file", "text", "score"}
        and isinstance(value.get("file"), str)
        and isinstance(value.get("text", ""), str)
        and isinstance(value.get("score", 0), (int, float))
    )


def is_search(value: Any) -> bool:
    """Whether this is a search."""
    return (
        isinstance(value, dict)
        and set(value) <= {"queries", "results"}
        and all(isinstance(query, str) for query in value.get("queries", []))
        and all(is_result(result) for result in value.get("results", []))
    )


def is_citation(value: Any) -> bool:
    """Whether this is a file, or a table with a file and the text it stands behind."""
    if isinstance(value, str):
        return bool(value)
    return (
        isinstance(value, dict)
        and set(value) <= {"file", "after"}
        and isinstance(value.get("file"), str)
        and isinstance(value.get("after", ""), str)
    )


def code(prescribed: JsonObject) -> Code:
    """A code-interpreter call."""
    return Code(
        source=prescribed["input"],
        logs=prescribed.get("logs") or "",
        images=tuple(_product(image, picture=True) for image in prescribed.get("images") or ()),
        files=tuple(_product(file, picture=False) for file in prescribed.get("files") or ()),
    )


def search(prescribed: JsonObject, request: Request) -> Search:
    """A search of the stores."""
    hits = []
    for result in prescribed.get("results", []):
        file_id, name = _file(result["file"], request)
        hits.append(
            Hit(file_id=file_id, filename=name, score=float(result.get("score", 1)), text=result.get("text", ""))
        )
    return Search(queries=tuple(prescribed.get("queries") or [request.question]), hits=tuple(hits))


def quotes(prescribed: list[Any], text: str, request: Request) -> tuple[Quote, ...]:
    """The citations of a text."""
    made = []
    for citation in prescribed:
        wanted = {"file": citation} if isinstance(citation, str) else citation
        file_id, name = _file(wanted["file"], request)
        after = wanted.get("after", "")
        at = text.find(after) + len(after) if after and after in text else len(text)
        made.append(Quote(at=at, file_id=file_id, filename=name))
    return tuple(made)


def links(codes: list[Code]) -> str:
    """What {files} in an answer stands for: a line for each file that was made."""
    return "\n".join(f"[{product.name}]({LINK}{product.name})" for made in codes for product in made.files)


def _file(wanted: str, request: Request) -> tuple[str, str]:
    """Id and name of a file that is named by either; a name nobody has gets an id of its own."""
    for given in request.files:
        if wanted in (given.file_id, given.name):
            return given.file_id, given.name
    if wanted.startswith("file-"):
        return wanted, wanted
    return f"file-{hashlib.sha256(wanted.encode()).hexdigest()[:24]}", wanted


def _product(value: str | JsonObject, *, picture: bool) -> Product:
    wanted: JsonObject = {"name": value} if isinstance(value, str) else value
    name: str = wanted["name"]
    if "text" in wanted:
        content = wanted["text"].encode()
    elif "base64" in wanted:
        content = _decoded(wanted["base64"]) or b""
    elif "size" in wanted:
        content = (name.encode() * (wanted["size"] // max(len(name.encode()), 1) + 1))[: wanted["size"]]
    else:
        content = png(name) if picture else f"The content of {name}.\n".encode()
    return Product(name=name, content=content)


def _decoded(text: Any) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None


def png(name: str) -> bytes:
    """A small picture whose colour depends on the name."""
    red, green, blue = hashlib.sha256(name.encode()).digest()[:3]
    rows = b"".join(b"\0" + bytes((red, green, blue)) * 16 for _ in range(16))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
