"""What Celery's result backend has for the tickets that a submit script noted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import redis


def results(store: redis.Redis, tickets: Path, status: Literal["SUCCESS", "FAILURE"]) -> dict[str, Mapping[str, Any]]:
    """Results with this status, by question."""
    sent: dict[str, str] = json.loads(tickets.read_text("utf-8"))
    values = cast("list[str | None]", store.mget([f"celery-task-meta-{ticket}" for ticket in sent.values()]))
    found = {question: json.loads(value) for question, value in zip(sent, values, strict=True) if value}
    return {question: result for question, result in found.items() if result["status"] == status}
