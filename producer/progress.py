"""How far a batch is: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import IO, Protocol, Self

from askq.jobs.limits import GETS
from askq.jobs.model import BatchStatus, State
from producer.answers.plain import plain

_PLAIN_EVERY_S = 5.0
_WINDOW_S = 20.0
_BAR_WIDTH = 30
_ORDER = (State.QUEUED, State.STARTING, State.RUNNING, State.ACTION, State.COLLECTING, State.COMPLETED)


class Speed:
    """Answers per second over the last while, and what that means for the rest."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int, now: float) -> float | None:
        """Note how many are done; answers per second, or None while nothing can be said."""
        if done and self._seen and self._seen[-1][1] == 0:
            # Until the first answer comes, workers start and runs take their time: that says nothing of the pace.
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return (done - before) / (now - then) if now - then >= 1.0 and done > before else None


def counts_in_words(status: BatchStatus) -> str:
    """`12 running, 30 completed, 1 failed`: what is not zero, in the order of a job's life."""
    states = [*_ORDER, *(state for state in State if state not in _ORDER)]
    parts = [f"{status.counts[state]} {state}" for state in states if status.counts.get(state)]
    if missing := status.total - sum(status.counts.values()):
        parts.insert(0, f"{missing} not submitted yet")
    return ", ".join(parts) or "nothing yet"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def spent(status: BatchStatus) -> str:
    """Tokens and cost so far."""
    usage = status.usage
    if not usage.total_tokens:
        return ""
    cost = "" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}"
    return f"{usage.total_tokens:,} tokens{cost}"


def pace(status: BatchStatus, rate: float | None) -> str:
    """How fast it goes and how long the rest takes."""
    return "" if rate is None else f"{rate:.1f}/s, {duration(status.pending / rate)} left"


def details(status: BatchStatus) -> list[str]:
    """The counts by state, what was spent, and why nothing moves."""
    paused = [f"PAUSED ({plain(f'{pause.code}: {pause.message}', one_line=True)})" for pause in status.paused]
    return [text for text in (counts_in_words(status), limited(status), spent(status), *paused) if text]


def summary(status: BatchStatus, rate: float | None) -> str:
    """Everything about a batch's progress in one line."""
    done = status.total - status.pending
    told = [f"{done}/{status.total} done", *details(status)]
    if speed := pace(status, rate):
        told.insert(2, speed)
    return " · ".join(told)


def limited(status: BatchStatus) -> str:
    """What the account's limit makes it wait for, or how fast it lets it go; empty where it does not matter."""
    if not status.waits:
        return ""
    wait = status.waits[0]
    if wait.seconds >= 1:
        return f"waiting for the account's limit: {duration(wait.seconds)}"
    if wait.rate is None:
        return "finding the account's limit"
    often = f"{wait.rate:.3g}/s" if wait.rate >= 1 else f"{60 * wait.rate:.3g}/min"
    what = "GETs" if wait.model == GETS else "requests"
    return f"at the account's limit: {often} {what}"


class Display(Protocol):
    """Shows progress until it is closed."""

    def update(self, status: BatchStatus) -> None: ...

    def note(self, text: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Silent:
    """Shows nothing."""

    def update(self, status: BatchStatus) -> None: ...

    def note(self, text: str) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines(Silent):
    """A line when something changed, at most every few seconds, and one at the end."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._speed = Speed()
        self._told = ""
        self._next = 0.0

    def update(self, status: BatchStatus) -> None:
        now = time.monotonic()
        rate = self._speed.update(status.total - status.pending, now)
        line = summary(status, None if status.done else rate)
        if line != self._told and (now >= self._next or status.done):
            self._told, self._next = line, now + _PLAIN_EVERY_S
            self.note(line)

    def note(self, text: str) -> None:
        self._out.write(plain(text) + "\n")
        self._out.flush()


class Live(Silent):
    """A bar with the pace beside it and the counts below, kept up to date in place."""

    def __init__(self, out: IO[str], *, color: bool) -> None:
        from rich.console import Console
        from rich.live import Live as Region

        self._console = Console(file=out, no_color=not color, highlight=False, markup=False, emoji=False)
        self._region = Region(console=self._console, auto_refresh=False)
        self._speed = Speed()

    def update(self, status: BatchStatus) -> None:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done = status.total - status.pending
        rate = None if status.done else self._speed.update(done, time.monotonic())
        # In columns of their own the numbers would shrink with the terminal before the bar does.
        told = " · ".join(part for part in (f"{done}/{status.total} done", pace(status, rate)) if part)
        bar = ProgressBar(total=max(status.total, 1), completed=done, width=_BAR_WIDTH)
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(bar, Text(told, no_wrap=True))
        # It wraps rather than loses a word: an account that is paused says why at its end.
        self._region.update(Group(line, Text(" · ".join(details(status)))), refresh=True)

    def note(self, text: str) -> None:
        self._console.print(plain(text))

    def __enter__(self) -> Self:
        self._region.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._region.stop()


def display(out: IO[str], *, quiet: bool, color: bool) -> Display:
    """The display that suits a stream."""
    if quiet:
        return Silent()
    return Live(out, color=color) if out.isatty() else Lines(out)
