"""Telling live what runs do: streams are read beside the chains, and what they bring goes into the jobs' live logs.

Nothing here holds a job. The run's id is on record before its stream is read on, and the poll chain goes its way as if
there were no stream: killed, cut off, stalled or fed with garbage, a stream costs what could have been seen earlier.
When a stream says that its run has ended, the job is made due at once.

On a server that keeps no responses there is more to lose: the last event of the stream is all that will ever be heard
of the run's end. So what it says goes on record (`Store.hurry`), for whoever polls the run and is told that there is no
such thing; and a stream that may bring it is read to its end, also while nothing of it can be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial

from askq.errors import StoreError
from askq.jobs import live
from askq.jobs.live import Kind, Piece
from askq.jobs.model import Outcome
from askq.jobs.store import Store
from worker import final
from worker.protocols.base import Broken, CallError, Live, Status

log = logging.getLogger(__name__)

GATHER_S = 0.05
"""How long pieces wait for company: quicker than an eye, and twenty entries a second at most."""
STALL_S = 45.0
"""A stream that says nothing for so long is taken for dead."""
MOST_RESUMES = 5
"""Streams of one run that may break before this process leaves it to the polls."""
MOST_STREAMS = 200
"""Streams a process reads at once; runs beyond are polled, and their answers come whole."""
_BREATH_S = live.TELLS_S / 4
"""At the latest after so long the teller says that it is still there."""
_RESUME_AFTER_S = 0.2
_HURRY_EVERY_S = 0.15
_MOST_HURRIES = 20
"""Until long after the moment from which a server that comes back knows what was written to it."""
_STORE_AGAIN_S = 0.5

Resume = Callable[[Live | None], Awaitable[Live | None]]
"""Opens the stream of a run again; None where that cannot be. Raises CallError."""


class Desk:
    """The streams that one process reads. Belongs to one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._me = uuid.uuid4().hex
        self._open: dict[str, asyncio.Task[None]] = {}
        """By the id of the run."""
        self._breaks: dict[str, int] = {}
        self._precious: set[str] = set()
        """Runs whose end may be said by the stream that is open here, and nowhere else."""

    @property
    def room(self) -> bool:
        """Whether one more stream may be opened."""
        return len(self._open) < MOST_STREAMS

    def wanted(self, run: str) -> bool:
        """Whether a stream of this run may be opened by this process."""
        return run not in self._open and self.room and self._breaks.get(run, 0) < MOST_RESUMES

    def precious(self) -> set[asyncio.Task[None]]:
        """Who reads what may be heard nowhere else."""
        return {self._open[run] for run in self._precious & self._open.keys()}

    def begin(self, job: str, run: str, resume: Resume, *, attempt: int) -> None:
        """Tell what a run's stream brings that `resume` opens, unless another process tells it."""
        self._begin(job, run, None, resume, attempt)

    def take(self, job: str, run: str, stream: Live, resume: Resume, *, attempt: int) -> None:
        """Tell what an open stream brings: that of a call that was just made, so that nobody knows more of the run.
        Whoever tells the job's log, here or elsewhere, reads a stream of what was before, and is relieved. `room` was
        asked before the call."""
        before = self._open.pop(run, None)
        if before is not None:
            before.cancel()
        self._begin(job, run, stream, resume, attempt)
        if stream.brings_end:
            self._precious.add(run)

    def _begin(self, job: str, run: str, stream: Live | None, resume: Resume, attempt: int) -> None:
        task = asyncio.create_task(self._tell(job, run, stream, resume, attempt))
        self._open[run] = task
        task.add_done_callback(partial(self._forget, run))

    def _forget(self, run: str, task: asyncio.Task[None]) -> None:
        if self._open.get(run) is task:
            del self._open[run]
            self._precious.discard(run)

    async def _tell(self, job: str, run: str, stream: Live | None, resume: Resume, attempt: int) -> None:
        patient = stream is not None and stream.brings_end
        teller = _Teller(self._store, job, self._me, run, relieves=stream is not None, patient=patient)
        try:
            # Another process may tell this run's log by now: then it is not opened twice.
            while await teller.say([]):
                if stream is None:
                    stream = await resume(None)
                if stream is None:
                    return
                try:
                    async with contextlib.aclosing(_in_time(stream)) as pieces:
                        await teller.all(pieces)
                except Broken as error:
                    log.info("%s: the stream of run %s broke: %s", job, run, error)
                finally:
                    await stream.close()
                if stream.ended:
                    self._breaks.pop(run, None)
                    await teller.say([Piece(kind=Kind.END)])
                    await self._hurry(job, run, stream.final, attempt)
                    return
                if teller.silenced:
                    return
                self._note_break(run)
                await teller.say([Piece(kind=Kind.CUT)])
                if not self.wanted_again(run):
                    return
                await asyncio.sleep(_RESUME_AFTER_S)
                stream = await resume(stream)
                # This server keeps its runs, as it shows.
                teller.patient = False
        except CallError as error:
            self._note_break(run)
            log.info("%s: the stream of run %s cannot be opened: %s", job, run, error)
        except StoreError as error:
            log.info("%s: not told live any more: %s", job, error.message)
        except Exception:  # a defect here must not end a process that holds jobs
            log.exception("%s: a defect while its run was told live", job)
        finally:
            if stream is not None:
                with contextlib.suppress(Exception):
                    await stream.close()

    def wanted_again(self, run: str) -> bool:
        """Whether a stream that broke may be opened again."""
        return self._breaks.get(run, 0) < MOST_RESUMES

    def _note_break(self, run: str) -> None:
        self._breaks[run] = self._breaks.get(run, 0) + 1
        while len(self._breaks) > 10 * MOST_STREAMS:
            del self._breaks[next(iter(self._breaks))]

    async def _hurry(self, job: str, run: str, said: Status | None, attempt: int) -> None:
        """Let the end of the run be polled now. A poll that is under way may have seen it a moment before its end, and
        would set the next one far off: so this is repeated until the job has moved on. What the stream has `said` of
        the end is kept in any case, however long the store is away."""
        kept = "" if said is None else final.dump(said)
        made = 0
        while made < _MOST_HURRIES:
            try:
                found = await asyncio.to_thread(self._store.hurry, job, run, final=kept, attempt=attempt)
            except StoreError as error:
                if not kept:
                    raise
                log.warning("%s: what its run has ended with waits for the store: %s", job, error.message)
                await asyncio.sleep(_STORE_AGAIN_S)
                continue
            if found in (Outcome.ALREADY, Outcome.MISSING):
                return
            made += 1
            await asyncio.sleep(_HURRY_EVERY_S)


async def _in_time(stream: Live) -> AsyncGenerator[Piece, None]:
    """The pieces of a stream. Raises Broken, also when it says nothing for too long."""
    pieces = stream.pieces()
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise Broken(f"nothing came for {STALL_S:g} s") from error
        if piece is None:
            return
        yield piece


class _Teller:
    """Writes one run's pieces into its job's log, in batches."""

    def __init__(self, store: Store, job: str, me: str, run: str, *, relieves: bool, patient: bool) -> None:
        self.silenced = False
        """Whether there is nothing to tell any more: the job has ended, or somebody else tells."""
        self._store = store
        self._job = job
        self._me = me
        self._run = run
        self._relieves = relieves
        """Whether it takes the log over from whoever tells it, with its first word."""
        self.patient = patient
        """Whether the stream is read to its end, whatever becomes of the log: until the job has ended."""
        self._lost = False
        """Whether something could not be told."""
        self._told = 0
        self._full = False

    async def all(self, pieces: AsyncIterator[Piece]) -> None:
        """Tell what comes, until it ends, breaks or nobody needs it. Raises Broken."""
        waiting: list[Piece] = []
        arrived = asyncio.Event()

        async def read() -> None:
            try:
                async for piece in pieces:
                    waiting.append(piece)
                    arrived.set()
            finally:
                arrived.set()

        reader = asyncio.create_task(read())
        try:
            while not reader.done() or waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_BREATH_S):
                        await arrived.wait()
                    if not reader.done():
                        await asyncio.sleep(GATHER_S)
                    arrived.clear()
                batch, waiting[:] = list(waiting), []
                if not await self.say(batch):
                    return
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def say(self, pieces: list[Piece]) -> bool:
        """Add to the log, or only say that somebody tells it; whether there is any use in going on."""
        told = self._bounded(pieces)
        if self._lost and told:
            told = [Piece(kind=Kind.CUT), *told]
        tell = partial(self._store.tell, self._job, self._me, self._run, told, relieves=self._relieves)
        try:
            found = await asyncio.to_thread(tell)
        except StoreError as error:
            if not self.patient:
                raise
            log.info("%s: a part is not told live: %s", self._job, error.message)
            self._lost = self._lost or bool(told)
            return True
        self._relieves = False
        if self.patient and found is Outcome.NOT_YOURS:
            self._lost = self._lost or bool(told)
            return True
        self._lost = self._lost and not told
        self.silenced = found is not Outcome.MOVED
        return not self.silenced

    def _bounded(self, pieces: list[Piece]) -> list[Piece]:
        if self._full:
            return [piece for piece in pieces if piece.kind is Kind.END]
        together = live.joined(pieces)
        self._told += sum(len(piece.text.encode(errors="surrogatepass")) for piece in together)
        if self._told > live.MOST_BYTES:
            self._full = True
            return [Piece(kind=Kind.CUT), *(piece for piece in together if piece.kind is Kind.END)]
        return together
