"""How questions and answers are written in Redis: JSON, compressed above 1 KiB."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zlib
from collections.abc import Sequence
from typing import Any

from askq.files.model import Attachment
from askq.jobs.model import Answer, Move, NewJob, Question, Usage

COMPRESS_ABOVE = 1024
_COMPRESSED = b"z"
OF_A_RUN = (
    *("thread", "run", "remote", "deadline", "intent_at", "started", "completed", "done", "claims", "looks", "errors"),
    *("polls", "witness", "cancel", "cancel_sent", "limited", "unsent", "note", "error_code", "error_message", "model"),
    *("in", "cached", "out", "total", "cost", "est", "seen", "live", "final", "gone", "asked_of", "held"),
    *("rounds", "closed", "earlier", "acted", "began", "brought"),
    *("joined", "previous", "history", "woken"),
    *("fixes", "wrong", "refers", "spent", "voids", "deaths"),
)
"""Fields of a record that speak of one run: a job that is asked again begins without them. `resets` stays, because it
is part of the key under which the next thread is made: the same key would give back the one that vanished."""
_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "total_tokens", "cost_usd")
_LISTS = ("citations", "code", "files", "tool_calls")


def dump(value: Any) -> bytes:
    """JSON as bytes, compressed when that pays."""
    # Half of a surrogate pair is legal in JSON and may stand in a question or an answer: it comes back as it was.
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    return plain if len(plain) <= COMPRESS_ABOVE else _COMPRESSED + zlib.compress(plain, 6)


def load(data: bytes) -> Any:
    """What `dump` wrote."""
    return json.loads(zlib.decompress(data[1:]) if data.startswith(_COMPRESSED) else data)


def dump_question(question: Question) -> bytes:
    """A question without its row id and index, which the record holds."""
    value: dict[str, Any] = {"text": question.text}
    for name in ("assistant", "model", "instructions", "thread"):
        if (part := getattr(question, name)) is not None:
            value[name] = part
    if question.stream:
        value["stream"] = True
    if question.files:
        value["files"] = [file.to_json() for file in question.files]
    if question.input:
        value["input"] = dict(question.input)
    return dump(value)


def load_question(data: bytes, *, row_id: str, index: int) -> Question:
    """The question `dump_question` wrote."""
    value = load(data)
    value["files"] = tuple(Attachment.from_json(file) for file in value.get("files", ()))
    return Question(row_id=row_id, index=index, **value)


def dump_held(files: Sequence[Attachment]) -> str | None:
    """Files of a conversation, as a job's record has them; None for none."""
    return json.dumps([file.to_json() for file in files], ensure_ascii=False) if files else None


def load_held(text: str | None) -> tuple[Attachment, ...]:
    """What `dump_held` wrote."""
    return tuple(Attachment.from_json(value) for value in json.loads(text or "[]"))


def dump_answer(answer: Answer) -> bytes:
    """An answer without its usage, which the record holds."""
    value: dict[str, Any] = {"text": answer.text, "model": answer.model, "refused": answer.refused or None}
    for name in _LISTS:
        value[name] = [dict(part) for part in getattr(answer, name)]
    return dump({name: part for name, part in value.items() if part is not None and part != []})


def load_answer(data: bytes, usage: Usage | None) -> Answer:
    """The answer `dump_answer` wrote."""
    value = load(data)
    for name in _LISTS:
        value[name] = tuple(value.get(name, ()))
    return Answer(text=value.pop("text", None), usage=usage, **value)


def record_fields(move: Move) -> dict[str, str | int | float | None]:
    """What a move writes into the record: its own fields, then what its answer says of model and usage."""
    fields = dict(move.fields)
    if move.answer is not None and move.answer.model is not None:
        fields["model"] = move.answer.model
    if move.answer is not None and (usage := move.answer.usage) is not None:
        fields |= {
            "in": usage.input_tokens,
            "cached": usage.cached_tokens,
            "out": usage.output_tokens,
            "total": usage.total_tokens,
        }
        if usage.cost_usd is not None:
            fields["cost"] = usage.cost_usd
    return fields


def dump_usage(usage: Usage) -> str:
    """Usage as one field of a record."""
    return json.dumps([getattr(usage, name) for name in _USAGE])


def load_usage(text: str) -> Usage:
    """What `dump_usage` wrote."""
    return Usage(**dict(zip(_USAGE, json.loads(text), strict=True)))


MOST_BROUGHT = 256 * 1024
"""Characters that are kept of what earlier runs have brought: they are a field of the record."""
_BROUGHT = ("citations", "code", "files")
_SHORTENED_TO = (8000, 800, 80)
"""Characters left of each text of code, as far as it takes for all to have room."""


def dump_brought(answer: Answer, earlier: str | None) -> str | None:
    """What a run has brought besides text, after those before it, as one field of a record; None = nothing.

    Where there is too much of it, what code has printed is shortened first, and files are kept longest: they are on
    disk, and nothing else says so.
    """
    kept: dict[str, list[Any]] = json.loads(earlier) if earlier is not None else {}
    for name in _BROUGHT:
        if parts := [dict(part) for part in getattr(answer, name)]:
            kept[name] = kept.get(name, []) + parts
    if not kept:
        return None
    text = _packed(kept)
    for most in _SHORTENED_TO:
        if len(text) > MOST_BROUGHT and "code" in kept:
            text = _packed({**kept, "code": [_shortened(call, most) for call in kept["code"]]})
    if len(text) > MOST_BROUGHT:
        files = sorted(kept.get("files", ()), key=lambda file: "path" not in file)
        while files and len(text := _packed({"files": files})) > MOST_BROUGHT:
            files = files[: len(files) * 9 // 10]
        text = text if files else _packed({})
    return text


def _packed(kept: dict[str, list[Any]]) -> str:
    return json.dumps(kept, separators=(",", ":"))


def _shortened(call: dict[str, Any], most: int) -> dict[str, Any]:
    return {
        name: f"{part[: most - 1]}…" if isinstance(part, str) and len(part) > most else part
        for name, part in call.items()
    }


def files_brought(earlier: str | None) -> list[dict[str, Any]]:
    """The files among what earlier runs have brought (`dump_brought`)."""
    files: list[dict[str, Any]] = [] if earlier is None else json.loads(earlier).get("files", [])
    return files


def with_brought(answer: Answer, earlier: str) -> Answer:
    """An answer, with what the runs before its own have brought (`dump_brought`) in front."""
    kept = json.loads(earlier)
    return dataclasses.replace(
        answer,
        citations=(*kept.get("citations", ()), *answer.citations),
        code=(*kept.get("code", ()), *answer.code),
        files=(*kept.get("files", ()), *answer.files),
    )


def cost_in_millionths(usd: float) -> int:
    """An amount as budgets are kept: whole numbers add up exactly, and a part of a millionth counts as one."""
    return math.ceil(_millionths(usd))


def limit_in_millionths(usd: float) -> int:
    """A bound, as budgets are kept: never more than was said."""
    return math.floor(_millionths(usd))


def _millionths(usd: float) -> float:
    # 0.07 times a million is a little more than 70,000: what binary fractions add is not money.
    return round(usd * 1_000_000, 3)


def digest(job: NewJob) -> str:
    """What tells whether a row submitted again is the same question to the same assistant."""
    question = job.question
    parts: list[Any] = [question.text, question.model, question.instructions, job.assistant_digest, job.protocol]
    if question.files:
        parts.append([file.to_json() for file in question.files])
    if question.thread is not None:
        # Its place in the conversation is part of what is asked.
        parts += [question.thread, job.after]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()[:24]
