"""The list's own table, kept with its batch, so that answers go back into the columns the questions came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from askq.structured import columns_of

if TYPE_CHECKING:
    from producer.questions import Summary


class KeptTable(TypedDict, total=False):
    """What `producer.answers.writer_for` is told of it."""

    columns: list[str]
    roles: dict[str, str]
    delimiter: str | None
    fields: list[str]


def keep(summary: Summary, *, whole: bool = True, schemas: Iterable[Mapping[str, Any] | None] = ()) -> str:
    """What is kept of a checked list, as `NewBatch.table`; `whole`: all of it is asked. `schemas` are those of its
    assistants: their fields become columns."""
    table: dict[str, object] = {
        "columns": summary.columns,
        "roles": dict(summary.roles),
        "delimiter": summary.delimiter,
    }
    if summary.conversations and whole:
        table["conversations"] = summary.conversations
    fields = dict.fromkeys(name for schema in schemas if schema is not None for name in columns_of(schema))
    if fields:
        table["fields"] = list(fields)
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
