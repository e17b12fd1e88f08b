"""People who watch: each follows one question after the other as `askq ask --stream` does, whatever happens."""

from __future__ import annotations

import io
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from askq.errors import AskqError
from askq.ids import job_id
from askq.jobs.live import Kind, Piece
from askq.jobs.model import Job, State
from askq.jobs.redis_store import RedisStore
from producer.cli.follow import follow
from producer.cli.screen import Screen
from tests.chaos.questions import Asked
from tests.chaos.world import World

_LEAVES_S = 60.0


class _Watched(Screen):
    """A screen that remembers what it showed, and whether a part of the answer came before the whole."""

    def __init__(self) -> None:
        self.shown = io.StringIO()
        super().__init__(out=self.shown, err=io.StringIO())
        self.live = False

    def show(self, piece: Piece) -> None:
        self.live = self.live or piece.kind is Kind.TEXT
        super().show(piece)


class Audience:
    """So many threads, from entering until leaving; what each has seen is judged when its answer is whole."""

    def __init__(self, world: World, people: int) -> None:
        self.seen: Counter[str] = Counter()
        """Answers that were watched to their end, by how they came: `live`, in part at least, or `whole`."""
        self.problems: list[str] = []
        self._world = world
        self._store = RedisStore(world.stack.redis_url)
        self._taken: set[int] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._people = [threading.Thread(target=self._watch, daemon=True) for _ in range(people)]

    def __enter__(self) -> Self:
        for person in self._people:
            person.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for person in self._people:
            person.join(_LEAVES_S)
        self._store.close()
        assert not any(person.is_alive() for person in self._people), "somebody watches for ever"

    def _watch(self) -> None:
        while not self._over.is_set():
            if (asked := self._next()) is None:
                self._over.wait(0.05)
                continue
            batch, row = asked
            screen = _Watched()
            try:
                job = follow(self._store, job_id(batch, row.row), screen, tick=lambda: None, enough=self._over.is_set)
            except AskqError as error:
                self.problems.append(f"{row.key}/{row.row} could not be watched: {error}")
                continue
            if job is not None and job.state is State.COMPLETED:
                self._judge(job, row, screen)

    def _next(self) -> tuple[str, Asked] | None:
        """The newest question that nobody has watched: of an old one the answer may be there already."""
        with self._lock:
            for at in range(len(self._world.submitted) - 1, -1, -1):
                if at not in self._taken:
                    self._taken.add(at)
                    return self._world.submitted[at]
        return None

    def _judge(self, job: Job, row: Asked, screen: _Watched) -> None:
        self.seen["live" if screen.live else "whole"] += 1
        shown, right = screen.shown.getvalue(), f"{row.answer()}\n"
        # Of a run that had to be made again a part may have been seen before.
        if shown != right and (job.attempts <= row.runs() or not shown.endswith(f"\n{right}")):
            self.problems.append(f"{job.id} was seen as {shown!r}, not as {right!r}; attempts={job.attempts}")
