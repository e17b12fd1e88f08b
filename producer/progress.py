"""How far a batch is: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import IO, Any, Protocol, Self

from askq.jobs.model import BatchStatus, State

_PLAIN_EVERY_S = 5.0
_WINDOW_S = 20.0
_ORDER = (State.QUEUED, State.STARTING, State.RUNNING, State.ACTION, State.COLLECTING, State.COMPLETED)


class Speed:
    """Answers per second over the last while, and what that means for the rest."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int, now: float) -> float | None:
        """Note how many are done; answers per second, or None while nothing can be said."""
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


def summary(status: BatchStatus, rate: float | None) -> str:
    """Everything about a batch's progress in one line."""
    done = status.total - status.pending
    parts = [f"{done}/{status.total} done", counts_in_words(status)]
    if rate is not None:
        parts.append(f"{rate:.1f}/s, {duration(status.pending / rate)} left")
    parts += [
        text
        for text in (spent(status), *(f"PAUSED ({pause.code}: {pause.message})" for pause in status.paused))
        if text
    ]
    return " · ".join(parts)


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
        self._out.write(text + "\n")
        self._out.flush()


class Live(Silent):
    """A bar and the counts, kept up to date in place."""

    def __init__(self, out: IO[str], *, color: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress: Any = Progress(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=Console(file=out, no_color=not color, highlight=False, markup=False),
        )
        self._task: Any = None
        self._speed = Speed()

    def update(self, status: BatchStatus) -> None:
        from rich.markup import escape

        done = status.total - status.pending
        line = summary(status, None if status.done else self._speed.update(done, time.monotonic()))
        text = escape(line.split(" · ", 1)[1])
        if self._task is None:
            self._task = self._progress.add_task(text, total=status.total)
        self._progress.update(self._task, completed=done, total=status.total, description=text)

    def note(self, text: str) -> None:
        self._progress.console.print(text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def display(out: IO[str], *, quiet: bool, color: bool) -> Display:
    """The display that suits a stream."""
    if quiet:
        return Silent()
    return Live(out, color=color) if out.isatty() else Lines(out)
