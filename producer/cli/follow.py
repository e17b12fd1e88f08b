"""Following one question until its answer is there: what is seen live first, the rest from its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from askq.assistants.model import Assistant
from askq.errors import NotFound, WaitTimeout
from askq.ids import split_job_id
from askq.jobs.live import Kind
from askq.jobs.model import Job
from askq.jobs.store import Store
from producer.answers.plain import plain
from producer.batch import require_budget
from producer.cli.functions import Functions, Shown
from producer.cli.screen import Screen
from producer.outage import Outage
from producer.seen import Seen

_WAIT_S = 0.25
_WAIT_AT_THE_END_S = 0.05
_SOON_S = 3.0
"""How long after its run has ended an answer is expected any moment."""
_LOOK_EVERY_S = 1.0
_LOOK_FOR_OUTPUTS_S = 0.3
"""While functions run."""
_TELL_WHY_AFTER_S = 2.0


def follow(
    store: Store,
    job: str,
    screen: Screen,
    *,
    tick: Callable[[], None],
    timeout_s: float | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Job | None:
    """Show one question's answer as it comes; the job once it has ended, or None when `enough` says so before.

    `tick` is called several times a second. Raises WaitTimeout, NotFound, and StoreUnreachable for a store that stays
    away.
    """
    return _Following(store, job, screen).until_ended(tick, timeout_s, enough)


class _Following:
    def __init__(self, store: Store, job: str, screen: Screen) -> None:
        self._store = store
        self._id = job
        self._screen = screen
        self._seen = Seen()
        self._functions = Functions(screen)
        self._calls: bool | None = None
        """Whether the assistant has functions, once that is known."""
        self._outputs: list[Shown] = []
        """Their calls, as they were when somebody last looked."""
        self._outage = Outage(screen.note)
        self._told: str | None = None
        """Why it waits, as far as that was told."""
        self._heard_at = time.monotonic()

    def until_ended(self, tick: Callable[[], None], timeout_s: float | None, enough: Callable[[], bool]) -> Job | None:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        after: str | None = None
        fresh, soon, look_at = False, 0.0, 0.0
        found = self._outage.through(self._read)
        while not enough():
            tick()
            wait = _WAIT_AT_THE_END_S if time.monotonic() < soon else _WAIT_S
            entries = self._outage.through(partial(self._store.listen, self._id, after, wait_s=wait))
            if entries is None:
                time.sleep(_WAIT_S)
                continue
            for entry in entries:
                after = entry.id
                if not fresh and found is not None and found.retries > 0 and found.run_id != entry.run:
                    # The log still tells of a run before a person asked anew.
                    continue
                fresh, self._heard_at = True, time.monotonic()
                if any(piece.kind is Kind.END for piece in entry.pieces):
                    soon = self._heard_at + _SOON_S
                if self._functions.precede(entry):
                    self._look_for_outputs()
                    self._functions.show(self._outputs, seen_only=True)
                if self._seen.run not in (None, entry.run):
                    # After a function's output, or when it was asked again.
                    self._screen.finish()
                    self._screen.begin()
                for piece in self._seen.take(entry):
                    self._functions.see(entry.run, piece)
                    self._screen.show(piece)
            if not entries:
                # All that was told before these were on record has been seen by now.
                self._functions.show(self._outputs)
            elif time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + (_LOOK_FOR_OUTPUTS_S if self._functions.owed else _LOOK_EVERY_S)
            found = self._outage.through(self._read)
            if found is not None and not found.state.terminal and self._has_functions(found):
                self._look_for_outputs()
            if found is not None and found.state.terminal:
                self._conclude(found)
                return found
            if until is not None and time.monotonic() >= until:
                self._screen.finish()
                raise WaitTimeout(
                    f"no whole answer to {self._id} after {timeout_s:g} s",
                    remedy=f"`askq show {self._id}` shows it when it is there.",
                )
            if found is not None and time.monotonic() - self._heard_at > _TELL_WHY_AFTER_S:
                self._tell_why(found)
        return None

    def _read(self) -> Job:
        found = self._store.job(self._id)
        if found is None:
            message = f"the question {self._id} is not in the store any more"
            raise NotFound(message, remedy="It has expired or was erased.")
        return found

    def _has_functions(self, job: Job) -> bool:
        """Whether the assistant has functions; while nobody can tell, it has."""
        if self._calls is None:
            digest = job.assistant_digest
            definition = self._outage.through(lambda: self._store.assistant(digest) or "")
            if definition is None:
                return True
            self._calls = definition != "" and bool(Assistant.from_json(definition).functions)
        return self._calls

    def _look_for_outputs(self) -> None:
        """What functions have returned until now."""
        kept = self._outage.through(lambda: self._store.calls().look(self._id))
        if kept is not None:
            self._outputs = [call.shown() for call in kept]

    def _tell_why(self, job: Job) -> None:
        """Why nothing comes, once for each reason."""
        status = self._outage.through(lambda: self._store.batch(split_job_id(self._id)[0]))
        if status is not None:
            require_budget(status)
        pauses = status.paused if status is not None else ()
        why = f"paused: {pauses[0].message}" if pauses else job.note
        if not pauses and self._outage.through(self._store.nodes) == []:
            why = "waiting: no worker is at work" if job.run_id else "waiting for a worker to begin"
        if why is not None and why != self._told:
            self._told = why
            self._screen.note(f"askq: {plain(why, one_line=True)}")

    def _conclude(self, job: Job) -> None:
        if job.answer is not None:
            self._functions.show(job.answer.tool_calls)
        answer = job.answer.text if job.answer is not None else None
        if answer is not None:
            rest = self._seen.rest(answer)
            if rest is None:
                self._screen.instead(answer)
            else:
                self._screen.rest(rest)
        self._screen.finish()
