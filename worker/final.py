"""What the last event of a stream says of its run, as it is kept until the job has it.

Servers that keep no responses answer nobody who asks for a run. The stream was the one place where its end could be
seen, so what it said goes on record, and whoever polls the run next goes on from that.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import zlib
from typing import Any

from askq.jobs.codec import COMPRESS_ABOVE
from askq.jobs.model import Answer, Claim, Usage
from worker.protocols.base import RunState, Status, ToolCall

log = logging.getLogger(__name__)

MOST_CHARACTERS = 16 << 20
"""More is not kept: it would be a field of the record."""
_LISTS = ("citations", "code", "files", "tool_calls")


def dump(status: Status) -> str:
    """A status as one field of a record; empty where there would be too much of it."""
    plain = {name: part for name, part in dataclasses.asdict(status).items() if name != "limits"}
    text = json.dumps(plain, separators=(",", ":"))
    if len(text) > COMPRESS_ABOVE:
        text = base64.b64encode(zlib.compress(text.encode(), 6)).decode()
    return text if len(text) <= MOST_CHARACTERS else ""


def final_of(claim: Claim) -> Status | None:
    """How the claim's run has ended, if its stream said so."""
    if claim.final is None:
        return None
    try:
        status = _load(claim.final)
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
        # Written by another version, perhaps.
        log.warning("%s: what its stream said at the end cannot be read: %s", claim.id, error)
        return None
    return status if status.run_id == claim.run_id else None


def _load(text: str) -> Status:
    plain = text if text.startswith("{") else zlib.decompress(base64.b64decode(text))
    value: dict[str, Any] = json.loads(plain)
    value["state"] = RunState(value["state"])
    value["tool_calls"] = tuple(ToolCall(**call) for call in value["tool_calls"])
    value["usage"] = _usage(value["usage"])
    if (answer := value["answer"]) is not None:
        lists = {name: tuple(answer[name]) for name in _LISTS}
        value["answer"] = Answer(**{**answer, **lists, "usage": _usage(answer["usage"])})
    return Status(**value)


def _usage(value: dict[str, Any] | None) -> Usage | None:
    return None if value is None else Usage(**value)
