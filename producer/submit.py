"""Putting a list into the store: all of it or, after a crash, what is missing of it."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from askq.assistants.model import Assistant
from askq.errors import InputError, Problem, StoreError
from askq.files.folder import Folder
from askq.files.model import FileRef
from askq.jobs.forgetting import keeps_files_of
from askq.jobs.model import Added, NewBatch, NewJob, Question
from askq.jobs.objects import assistant_thing, content_thing
from askq.jobs.store import Store
from producer.kept_table import keep
from producer.questions import QuestionList, Summary
from producer.questions.question_list import same_thread
from producer.questions.reading import quoted

CHUNK_ROWS = 1000
"""Most rows per round trip: three chunks are in memory at a time, whatever the length of the list."""
FIRST_ROWS = 50
"""Rows of the first chunk: a worker is told of them while the next ones are read."""
CHUNK_TEXT = 4 << 20
"""No chunk grows once its questions have so many characters."""
CHUNKS_AT_ONCE = 2
"""Chunks on their way: while Redis works on one, the next is packed. With one alone 30,000 rows took 3.4 s instead of
2.0 (on two busy cores); with three no less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """What came of it."""

    batch: str
    created: bool
    """False when the batch was there under its idempotency key."""
    added: int
    already: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked list and who is to answer it."""

    questions: QuestionList
    summary: Summary
    assistant: Assistant
    others: Mapping[str, Assistant]
    """Assistants that rows name themselves."""
    name: str | None = None
    metadata: Mapping[str, str] | None = None
    idempotency_key: str | None = None
    limit: int | None = None
    max_cost_usd: float | None = None
    stream: bool = False
    """Whether somebody watches the answers as they are written."""

    @property
    def rows(self) -> int:
        """How many questions will be asked."""
        return self.summary.rows if self.limit is None else min(self.limit, self.summary.rows)

    def table(self) -> str:
        """What is kept of the list's own table, so that answers go back into it."""
        schemas = [assistant.schema for assistant in _all(self)]
        return keep(self.summary, whole=self.limit is None, schemas=schemas)

    def rows_asked(self) -> Iterator[Question]:
        """The questions that will be asked; the list is read anew."""
        return itertools.islice(iter(self.questions), self.limit)

    def jobs(self) -> Iterator[list[NewJob]]:
        """The rows as new jobs, in chunks; the list is read anew."""
        # A digest is made of the whole definition: once per assistant, not once per row.
        digests = {name: assistant.digest for name, assistant in self.others.items()}
        own = self.assistant.digest
        last: dict[str, str] = {}
        """Conversation → row id of its last question so far."""

        def job(question: Question) -> NewJob:
            name = question.assistant
            assistant = self.assistant if name is None else self.others[name]
            after = None
            if question.thread is not None:
                after = last.get(thread := same_thread(question.thread))
                last[thread] = question.row_id
            return NewJob(
                question=dataclasses.replace(question, stream=True) if self.stream else question,
                assistant=assistant.name,
                assistant_digest=own if name is None else digests[name],
                protocol=assistant.protocol,
                after=after,
            )

        chunk: list[NewJob] = []
        text, most = 0, FIRST_ROWS
        for question in self.rows_asked():
            chunk.append(job(question))
            text += len(question.text)
            if len(chunk) == most or text >= CHUNK_TEXT:
                yield chunk
                chunk, text, most = [], 0, CHUNK_ROWS
        if chunk:
            yield chunk

    def require_one_protocol(self) -> None:
        """Raise InputError for a conversation whose questions are spoken over both protocols: none has the other's."""
        if not self.summary.conversations or len({assistant.protocol for assistant in _all(self)}) == 1:
            return
        spoken: dict[str, tuple[str, str]] = {}
        problems = []
        for question in self.rows_asked():
            if question.thread is None:
                continue
            assistant = self.assistant if question.assistant is None else self.others[question.assistant]
            row, protocol = spoken.setdefault(same_thread(question.thread), (question.row_id, assistant.protocol))
            if protocol != assistant.protocol:
                message = (
                    f"row {question.row_id} asks over {assistant.protocol}, and row {row} of the same conversation "
                    f"({quoted(question.thread)}) over {protocol}"
                )
                problems.append(Problem(file=self.questions.name, message=message))
        if problems:
            raise InputError(problems, remedy="Choose assistants of one protocol, or say --protocol.")


def submit(
    store: Store,
    submission: Submission,
    *,
    folder: Folder | None = None,
    progress: Callable[[int], None] | None = None,
    begun: Callable[[], None] | None = None,
) -> Submitted:
    """Store every row that is not there yet.

    `begun` is called once the first rows are there: workers may start on them while the others come. `folder` is where
    what is sent along was copied to: it is noted, so that whoever forgets the batch knows where its copies are.

    Raises StoreFull, and adds nothing, when Redis has little memory left and rows are to be added; InputError, and adds
    nothing, when the batch of this idempotency key has other questions under the same ids; StoreError: the rows stored
    until then stay, and the same call adds the rest.
    """
    submission.require_one_protocol()
    key = submission.idempotency_key
    if key is None or store.batch_under(key) is None:
        store.health().require_room()
    batch, created = store.open_batch(
        NewBatch(
            name=submission.name,
            assistant=submission.assistant.name,
            protocol=submission.assistant.protocol,
            idempotency_key=submission.idempotency_key,
            metadata=submission.metadata or {},
            table=submission.table(),
            max_cost_usd=submission.max_cost_usd,
        )
    )
    for assistant in {assistant.digest: assistant for assistant in _all(submission)}.values():
        # Once it is noted that this batch asks it, nobody who forgets another erases it; saved after that, because
        # somebody may just have done so.
        store.share(assistant_thing(assistant.digest), batch)
        store.save_assistant(assistant.digest, assistant.to_json())
    there: set[int] = set()
    if not created:
        _require_kept(store, batch)
        _renew_budget(store, batch, submission)
        there, missing = _compare(store, batch, submission)
        if missing:
            store.health().require_room()
    added = already = 0
    for found in _add(store, batch, submission, folder, there):
        if begun is not None and added + already == 0:
            begun()
        added += found.added
        already += found.already
        if progress is not None:
            progress(added + already)
    store.seal(batch, added + already)
    _require_all(store, batch)
    return Submitted(batch=batch, created=created, added=added, already=already)


def _compare(store: Store, batch: str, submission: Submission) -> tuple[set[int], int]:
    """The chunks (their numbers) whose rows are all there already, and how many rows of the others are not. Raises
    InputError when a row is another there."""
    there: set[int] = set()
    missing = 0
    conflicts: list[str] = []
    compared = _side_by_side(((chunk, store.compare) for chunk in submission.jobs()), batch)
    for number, (chunk, found) in enumerate(compared):
        conflicts += found.conflicts
        missing += found.added
        # Of a conversation each row is told to the one before it, which a producer that died may have left undone.
        if found.already == len(chunk) and all(new.after is None for new in chunk):
            there.add(number)
    if conflicts:
        raise _conflict(batch, submission, conflicts)
    return there, missing


def _add(
    store: Store, batch: str, submission: Submission, folder: Folder | None, there: Collection[int]
) -> Iterator[Added]:
    """Add chunk after chunk, but for those that are there; while the store takes some, the next are read."""
    sent = {file.sha256 for assistant in _all(submission) for file in files_of(assistant)}
    noted: set[str] = set()

    def chunks() -> Iterator[tuple[list[NewJob], _Send]]:
        nonlocal sent, noted
        for number, chunk in enumerate(submission.jobs()):
            sent |= {file.file.sha256 for new in chunk for file in new.question.files if file.file is not None}
            if sent and not noted and folder is not None:
                # Before the copies: a copy of which nobody knows where it is would outlast them.
                keeps_files_of(store, folder, batch)
            for sha256 in sent - noted:
                # So that whoever forgets the batch knows which copies nobody else needs.
                store.share(content_thing(sha256), batch)
            noted |= sent
            yield chunk, _known if number in there else store.add

    for _, found in _side_by_side(chunks(), batch):
        yield found


_Send = Callable[[str, Sequence[NewJob]], Added]


def _known(batch: str, chunk: Sequence[NewJob]) -> Added:
    return Added(added=0, already=len(chunk), conflicts=())


def _side_by_side(chunks: Iterable[tuple[list[NewJob], _Send]], batch: str) -> Iterator[tuple[list[NewJob], Added]]:
    """Send each chunk; what comes of it, in their order. While the store works on one the next is written to it, and
    the one after that is read."""
    with ThreadPoolExecutor(CHUNKS_AT_ONCE, thread_name_prefix="askq-submit") as senders:
        under_way: deque[tuple[list[NewJob], Future[Added]]] = deque()
        for chunk, send in chunks:
            # A question of a conversation is told to the one before it: that has to be there.
            alone = any(new.after is not None for new in chunk)
            while under_way and (alone or len(under_way) == CHUNKS_AT_ONCE or under_way[0][1].done()):
                sent, found = under_way.popleft()
                yield sent, found.result()
            under_way.append((chunk, senders.submit(send, batch, chunk)))
        while under_way:
            sent, found = under_way.popleft()
            yield sent, found.result()


def files_of(assistant: Assistant) -> Iterator[FileRef]:
    """The files of an assistant's own."""
    for resources in (assistant.resources, assistant.thread_resources):
        if resources is not None:
            yield from resources.code
            yield from (resources.store.files or ()) if resources.store is not None else ()


def _require_all(store: Store, batch: str) -> None:
    """What `seal` has put on disk may lack rows: of a server that was cut off meanwhile, and came back without them."""
    status = store.batch(batch)
    missing = 0 if status is None else status.total - sum(status.counts.values())
    if status is None or missing:
        raise StoreError(
            f"Redis has lost {missing or 'all'} of the rows of batch {batch} while it was submitted",
            remedy="It was restarted without its last moves. The same command again adds what is missing.",
        )


def _require_kept(store: Store, batch: str) -> None:
    status = store.batch(batch)
    if status is not None and status.forgetting:
        raise InputError(
            f"batch {batch} of this idempotency key is being forgotten",
            remedy=f"`askq forget {batch}` waits until that is done; then submit the list again.",
        )


def _renew_budget(store: Store, batch: str, submission: Submission) -> None:
    if submission.max_cost_usd is None:
        return
    status = store.batch(batch)
    if status is None or status.budget is None:
        raise InputError(
            f"batch {batch} was submitted without a budget",
            remedy="A bound must be there from the first question on: leave out --max-cost, or ask anew with --new.",
        )
    store.set_budget(batch, submission.max_cost_usd)


def _all(submission: Submission) -> Iterator[Assistant]:
    yield submission.assistant
    yield from submission.others.values()


def _conflict(batch: str, submission: Submission, rows: Sequence[str]) -> InputError:
    return InputError(
        [
            Problem(
                file=submission.questions.name,
                message=f"row {row} is in batch {batch} already, with another question, model or assistant",
            )
            for row in rows
        ],
        remedy="Nothing was added. Use another idempotency key for a changed list.",
    )
