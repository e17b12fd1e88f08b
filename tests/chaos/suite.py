"""Which experiments there are, and what all of them together must have done."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from tests.chaos.profiles import (
    api,
    conversations,
    failpoints,
    files,
    forgetting,
    kills,
    messages,
    mix,
    producers,
    recovery,
    redis,
    rollback,
    streams,
    tools,
    zombie,
)
from tests.chaos.report import Report

PROFILES: dict[str, ModuleType] = {
    "recovery": recovery,
    "failpoints": failpoints,
    "kills": kills,
    "redis": redis,
    "rollback": rollback,
    "api": api,
    "zombie": zombie,
    "producers": producers,
    "messages": messages,
    "tools": tools,
    "conversations": conversations,
    "files": files,
    "forgetting": forgetting,
    "streams": streams,
    "mix": mix,
}


ALONE = ("recovery",)
"""What measures time, and so shares the machine with no other experiment."""


BY_NAME = ("tools", "conversations", "files", "forgetting", "streams")
"""What assistants can do besides answering, and what becomes of it. The full profile would take half as long again with
these, and more than a quarter of an hour: in full size each is carried out when it is named."""


def names(profile: str) -> list[str]:
    """The experiments of a profile."""
    return [name for name, module in PROFILES.items() if profile in module.SIZES and (profile, name) not in _LEFT_OUT]


_LEFT_OUT = {("full", name) for name in BY_NAME}


def run(name: str, profile: str, seed: int, folder: Path) -> Report:
    """Carry one experiment out."""
    module = PROFILES[name]
    report: Report = module.run(module.SIZES[profile], seed, folder)
    return report


def check_whole(total: Report) -> None:
    """Note what the full profile claims of itself and did not do."""
    for what, found, least in (
        ("jobs", total.jobs, 3000),
        ("kills", total.kills, 200),
        ("failpoints", len(total.points), 30),
        ("Redis restarts", total.redis_restarts, 20),
        ("roll-backs", total.rollbacks, 6),
        ("API faults", sum(total.fault_kinds.values()), 1000),
        ("kinds of API faults", len(total.fault_kinds), 18),
        ("stale commits attempted", total.stale_commits, 1),
    ):
        total.need(what, found, least)
    for kind, hits in total.fault_kinds.items():
        total.need(f"API fault {kind!r}", hits, 5)
