"""Named places where a process can be made to die: for tests, and off unless settings arm them.

A place calls `hit("start.after")`. Disarmed, that is one comparison. Armed, the first rule whose pattern matches
decides: `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself: whoever tests continues it) or `raise` (a defect).

    ASKQ_FAILPOINTS="start.after=kill:0.05,commit.start.before=stop:0.1,*=kill:0.01"
"""

from __future__ import annotations

import fnmatch
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    *("ensure_assistant", "prepare", "join", "start", "find", "poll", "submit", "answer", "cancel", "probe"),
    *("upload", "store.create", "store.fill", "store.look", "store.delete", "file.delete", "index", "made", "download"),
    *("start_live", "resume_live", "submit_live"),
    "delete",
)
"""Remote calls; each has a place before it and one after it."""
PARTS = (
    "claim",
    "renew",
    "follow",
    "limits",
    "permits",
    "witness",
    "reserve",
    "tell",
    "hurry",
    "hint",
    "reschedule",
    "retry",
    "settle",
    "share",
    "unshare",
    "bury",
    "item.want",
    "item.claim",
    "item.move",
    "item.drop",
    "file.keep",
    "submit.open",
    "submit.add",
    "submit.seal",
    "call.look",
    "call.claim",
    "call.begin",
    "call.run",
    "call.finish",
    "call.again",
    "remember",
    "gone",
    "forget.begin",
    "forget.jobs",
    "forget.folder",
    "forget.erase",
)
"""Steps within askq; each has a place before it and one after it. Commits are `commit.<move>`."""
MOMENTS = ("chain.begin", "chain.end", "timer.tick")

ACTIONS = ("kill", "stop", "raise")


class Failpoint(Exception):
    """What `raise` raises: a defect on purpose."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where, what, and how often (0 < probability ≤ 1)."""

    pattern: str
    action: str
    probability: float


class _Armed:
    def __init__(self, rules: tuple[Rule, ...], seed: int | None, log: Path | None) -> None:
        self._rules = rules
        self._seed = seed
        self._log = log
        self._pid = 0
        self._draws = random.Random()  # noqa: S311  repeatable on purpose

    def hit(self, name: str) -> None:
        if self._pid != os.getpid():
            # Processes of one pool share the memory in which this was drawn; each must draw for itself.
            self._pid = os.getpid()
            self._draws = random.Random(None if self._seed is None else f"{self._seed}/{self._pid}")  # noqa: S311
        rule = next((rule for rule in self._rules if fnmatch.fnmatchcase(name, rule.pattern)), None)
        if rule is None or self._draws.random() >= rule.probability:
            return
        if self._log is not None:
            line = f"{time.time():.6f} {self._pid} {name} {rule.action}\n"
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(descriptor, line.encode())
            os.close(descriptor)
        if rule.action == "raise":
            raise Failpoint(name)
        if rule.action == "kill":
            os.kill(self._pid, signal.SIGKILL)
        else:
            # To this thread, whose process stops with it: of a stop that another thread takes first it would hear a
            # moment later, and be past this place.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


_armed: _Armed | None = None


def hit(name: str) -> None:
    """This process has come to a place where it may be made to die."""
    if _armed is not None:
        _armed.hit(name)


def parse(text: str) -> tuple[Rule, ...]:
    """Rules of the form `pattern=action[:probability]`, separated by commas. Raises ValueError."""
    rules = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, separator, told = part.partition("=")
        action, _, share = told.partition(":")
        probability = float(share) if share else 1.0
        if not pattern or not separator or action not in ACTIONS or not 0 < probability <= 1:
            raise ValueError(
                f"{part!r} is no failpoint; write name=kill, name=stop or name=raise, and :0.1 for a share"
            )
        rules.append(Rule(pattern, action, probability))
    return tuple(rules)


def arm(text: str | None, *, seed: int | None = None, log: Path | None = None) -> None:
    """Arm this process and its children, or disarm them. Raises ValueError for rules that are none."""
    global _armed
    rules = parse(text or "")
    _armed = _Armed(rules, seed, log) if rules else None
