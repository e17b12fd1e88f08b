"""One row per job in Flower: Celery's own events, sent under the job's id instead of a message's.

Flower shows tasks, and the unit a person watches is the job. Events are buffered and sent together; they are for
eyes only, so losing some with a broken connection is counted and not repaired.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from askq.ends import ENDS
from askq.ids import split_job_id
from askq.jobs.model import Claim, Move
from askq.names import JOB

log = logging.getLogger(__name__)

_QUESTION_SHOWN = 80
_RESULT_SHOWN = 70
_PROGRESS_EVERY_S = 2.0


class Monitor:
    """Collects events of one process. `flush` blocks for a round trip to the broker; call it from a thread."""

    def __init__(self, app: Celery, node: str, *, show_text: bool) -> None:
        self._app = app
        self._node = node
        self._show_text = show_text
        self._waiting: list[tuple[str, dict[str, Any]]] = []
        self._told: dict[str, float] = {}
        self._lock = threading.Lock()
        self._dispatcher: Any = None
        self._connection: Any = None

    def claimed(self, claim: Claim) -> None:
        """A job was taken up for the first time."""
        if claim.first:
            batch, row = split_job_id(claim.id)
            # Flower's search reads the arguments as a Python literal, its table shows their beginning.
            about = {}
            if self._show_text and claim.question is not None:
                about["q"] = _cut(claim.question.text, _QUESTION_SHOWN)
            about |= {"assistant": claim.assistant, "item": row, "batch": batch}
            self._send("task-received", claim, kwargs=repr(about), retries=0, eta=None)

    def moved(self, claim: Claim, move: Move) -> None:
        """A transition was committed."""
        match move.name:
            case "start" | "adopt":
                self._send("task-started", claim)
            case "poll":
                self._progress(claim, move.fields)
            case "act" | "wait":
                self._tell(claim, str(move.fields.get("note") or "functions"))
            case "complete":
                self._end("task-succeeded", claim, result=self._result(move))
            case "cut" | "fail" | "cancel" | "expire" | "doubt":
                told = self._failure(move)
                # Flower's table shows the result, which would go on saying how far the run was.
                self._end("task-failed", claim, exception=told, traceback="", result=told)

    def _tell(self, claim: Claim, text: str) -> None:
        """What a job that waits for functions waits for: their names, no arguments."""
        self._told[claim.id] = time.monotonic()
        self._send("task-progress", claim, result=text)

    def _progress(self, claim: Claim, fields: Mapping[str, str | int | float | None]) -> None:
        now = time.monotonic()
        if now - self._told.get(claim.id, 0.0) < _PROGRESS_EVERY_S:
            return
        self._told[claim.id] = now
        age = claim.now - (claim.started_at or claim.now)
        text = f"{fields.get('remote')} · {age:.0f} s · poll {fields.get('polls')}"
        self._send("task-progress", claim, result=text)

    def _end(self, kind: str, claim: Claim, **fields: Any) -> None:
        self._told.pop(claim.id, None)
        runtime = max(0.0, claim.now - (claim.began_at or claim.started_at or claim.intent_at or claim.now))
        self._send(kind, claim, runtime=runtime, **fields)

    def _result(self, move: Move) -> str:
        answer = move.answer
        if answer is None:
            return "completed"
        parts = []
        if self._show_text and answer.text:
            parts.append(_cut(answer.text, _RESULT_SHOWN))
        if answer.usage is not None:
            parts.append(f"{answer.usage.total_tokens} tokens")
            if answer.usage.cost_usd is not None:
                parts.append(f"${answer.usage.cost_usd:.4f}")
        return " · ".join(parts) or "completed"

    def _failure(self, move: Move) -> str:
        """Why a job has no complete answer. A message may quote it, or the question: a service's refusal, a value that
        does not fit the schema. Where texts are hidden, what to do stands in its place."""
        code, message = str(move.fields.get("error_code")), str(move.fields.get("error_message"))
        if not self._show_text:
            message = ENDS[code].remedy if code in ENDS else "see `askq show`"
        return f"{code}: {_cut(message, _RESULT_SHOWN)}"

    def _send(self, kind: str, claim: Claim, **fields: Any) -> None:
        # Every event says what its row is: a Flower that was started later has not seen the first one.
        about = {"uuid": claim.id, "name": JOB, "args": f"({claim.assistant!r},)"}
        with self._lock:
            self._waiting.append((kind, about | fields))

    @property
    def waiting(self) -> int:
        """Events not sent yet."""
        return len(self._waiting)

    def flush(self) -> None:
        """Send what is waiting. A broker that does not answer costs these events and nothing else."""
        with self._lock:
            events, self._waiting = self._waiting, []
        if not events:
            return
        try:
            dispatcher = self._open()
            for kind, fields in events:
                dispatcher.send(kind, **fields)
            dispatcher.flush(errors=False, groups=True)
        except self._broken() as error:
            log.warning("%d events for Flower were lost: %s", len(events), error)
            self._hang_up()

    def _open(self) -> Any:
        if self._dispatcher is None:
            self._connection = self._app.connection_for_write()
            self._dispatcher = self._app.events.Dispatcher(
                self._connection,
                hostname=self._node,
                buffer_group=frozenset({"task"}),
                buffer_limit=10_000,
                # Else it keeps all that it cannot send, for ever, and never says that its connection is broken.
                buffer_while_offline=False,
            )
        return self._dispatcher

    def _broken(self) -> tuple[type[Exception], ...]:
        """What sending raises where the broker is away: each kind of broker has errors of its own."""
        known = self._connection
        return (OperationalError, OSError, *(() if known is None else known.connection_errors + known.channel_errors))

    def _hang_up(self) -> None:
        """The next events go over a new connection."""
        broken, self._connection, self._dispatcher = self._connection, None, None
        if broken is not None:
            with contextlib.suppress(Exception):  # whatever is wrong with it, nobody needs it any more
                broken.release()


def _cut(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
