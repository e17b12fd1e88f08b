"""Scenarios that every contender meets alike: a kill, a limit told in headers or not, and what a question costs.

Without `--peers` only askq and the peers that need no environment of their own take part.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.peers.cell import Cell, Setting, running_cell
from benchmarks.peers.environments import NotInstallable
from benchmarks.peers.manifest import Peer, read_manifest

_KILL = Setting(questions=400, run_seconds=(2.0, 6.0), concurrency=100)
_KILL_TINY = Setting(questions=20, run_seconds=(0.5, 1.5), concurrency=8, deadline_s=150.0, run_s=20)
_LIMITED = Setting(questions=300, run_seconds=(0.2, 1.0), rate=20.0, burst=20.0)
_LIMITED_TINY = Setting(questions=12, run_seconds=(0.1, 0.3), rate=8.0, burst=4.0, deadline_s=90.0)
_COST = Setting(questions=500, run_seconds=(2.0, 20.0), concurrency=100)
_COST_TINY = Setting(questions=12, run_seconds=(0.1, 0.3), concurrency=8, deadline_s=90.0)

_HALF_S = 180.0
_TINY_PEERS = {"sdk-gather"}
"""Beside askq in a tiny run without --peers: enough to show that the harness works."""


def kill(*, tiny: bool, peers: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """The command is SIGKILLed when the server has finished half of the list, and given again."""
    return _table("peers-kill", _KILL_TINY if tiny else _KILL, _kill, contenders(tiny=tiny, peers=peers, only=only))


def limited(*, tiny: bool, peers: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """An account's limit, nobody told beforehand, all defaults."""
    return _table(
        "peers-limited", _LIMITED_TINY if tiny else _LIMITED, _whole, contenders(tiny=tiny, peers=peers, only=only)
    )


def limited_silently(*, tiny: bool, peers: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """The same limit on a server that sends no headers but Retry-After."""
    setting = replace(_LIMITED_TINY if tiny else _LIMITED, hints=False)
    return _table("peers-limited-silently", setting, _whole, contenders(tiny=tiny, peers=peers, only=only))


def cost(*, tiny: bool, peers: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """Processor time of a list whose runs take long, no limit."""
    return _table("peers-cost", _COST_TINY if tiny else _COST, _whole, contenders(tiny=tiny, peers=peers, only=only))


def _table(
    name: str,
    setting: Setting,
    measure: Callable[[Cell, Setting], dict[str, Any]],
    taking_part: Sequence[Peer | None],
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for peer in taking_part:
        contender = "askq" if peer is None else peer.name
        load = round(os.getloadavg()[0], 2)
        try:
            with running_cell(setting, peer) as cell:
                rows[contender] = {**measure(cell, setting), "load_before": load}
        except NotInstallable as exc:
            rows[contender] = {"not_measured": str(exc)}
        print(f"{name}, {contender}: {rows[contender]}", file=sys.stderr, flush=True)
    return {
        "questions": setting.questions,
        "run_seconds": list(setting.run_seconds),
        "calls_at_a_time": setting.concurrency,
        "limit": None
        if setting.rate is None
        else {"per_s": setting.rate, "burst": setting.burst, "in_headers": setting.hints},
        "versions": {peer.name: list(peer.requirements) for peer in taking_part if peer and peer.requirements},
        "rows": rows,
    }


def contenders(*, tiny: bool, peers: bool, only: Collection[str] = ()) -> list[Peer | None]:
    """Who takes part; None is askq. `only` names some of them."""
    found: list[Peer | None] = [None, *read_manifest()]
    if only:
        return [one for one in found if ("askq" if one is None else one.name) in only]
    if peers:
        return found
    return [one for one in found if one is None or (not one.requirements and (not tiny or one.name in _TINY_PEERS))]


def _whole(cell: Cell, setting: Setting) -> dict[str, Any]:
    """The command once, from its start to its end."""
    redis_before = cell.redis_cpu_s()
    cell.command.start()
    ended = cell.command.wait(setting.deadline_s)
    redis_s = cell.redis_cpu_s() - redis_before
    front = cell.front()
    first, last = front["first_create"], front["last_answer"]
    found: dict[str, Any] = {
        **cell.verdict(),
        "exit_code": ended.code,
        "wall_s": round(ended.wall_s, 1),
        "first_request_to_last_answer_s": None if first is None or last is None else round(last - first, 1),
        "requests": front["requests"],
        "cpu_ms_per_question": round(ended.cpu_s * 1000 / setting.questions, 1),
        "redis_cpu_ms_per_question": round(redis_s * 1000 / setting.questions, 1),
    }
    if found["answered"] < setting.questions:
        found["said_last"] = cell.command.tail()[-400:]
    return found


def _kill(cell: Cell, setting: Setting) -> dict[str, Any]:
    """Killed at half, then the same command again."""
    cell.command.start()
    until = time.monotonic() + _HALF_S
    half = setting.questions // 2
    while cell.finished() < half:
        early = cell.command.ended()
        if early is not None and cell.finished() >= half:
            break  # quicker than this looks: there is nothing left to kill
        if early is not None or time.monotonic() > until:
            why = f"not half answered after {_HALF_S:g} s" if early is None else f"ended ({early.code}) before half"
            return {"not_measured": f"{why}: {cell.command.tail()[-400:]}"}
        time.sleep(0.02)
    killed = cell.command.kill()
    before = cell.verdict()["runs"]
    cell.command.start()
    ended = cell.command.wait(setting.deadline_s)
    found: dict[str, Any] = {
        **cell.verdict(),
        "held_by_the_dead": cell.held(),
        "runs_at_the_kill": before,
        "processes_killed": killed,
        "exit_code_of_the_second": ended.code,
        "seconds_of_the_second": round(ended.wall_s, 1),
    }
    if found["answered"] < setting.questions:
        found["said_last"] = cell.command.tail()[-400:]
    return found
