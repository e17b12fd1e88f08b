"""The list's own table, kept with its batch, so that answers go back into the columns the questions came from."""

from __future__ import annotations

import json
from typing import TypedDict

from producer.questions import Summary


class KeptTable(TypedDict, total=False):
    """What `producer.answers.writer_for` is told of it."""

    columns: list[str]
    roles: dict[str, str]
    delimiter: str | None


def keep(summary: Summary, *, whole: bool = True) -> str:
    """What is kept of a checked list, as `NewBatch.table`; `whole`: all of it is asked."""
    table: dict[str, object] = {
        "columns": summary.columns,
        "roles": dict(summary.roles),
        "delimiter": summary.delimiter,
    }
    if summary.conversations and whole:
        table["conversations"] = summary.conversations
    return json.dumps(table, ensure_ascii=False)


def kept(table: str | None) -> KeptTable:
    """What was kept; nothing where the batch has none."""
    found = json.loads(table or "{}")
    found.pop("conversations", None)
    known: KeptTable = found
    return known


def conversations(table: str | None) -> int:
    """How many conversations a batch has; 0 where that was not kept."""
    return int(json.loads(table or "{}").get("conversations", 0))
