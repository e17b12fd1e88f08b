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


def keep(summary: Summary) -> str:
    """What is kept of a checked list, as `NewBatch.table`."""
    table = {"columns": summary.columns, "roles": dict(summary.roles), "delimiter": summary.delimiter}
    return json.dumps(table, ensure_ascii=False)


def kept(table: str | None) -> KeptTable:
    """What was kept; nothing where the batch has none."""
    found: KeptTable = json.loads(table or "{}")
    return found
