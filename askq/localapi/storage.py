"""The data folder: one SQLite file, written in groups by one thread, read once at start.

Objects live in memory; the file is what survives. A change is noted with `put`, `delete`, `append_ledger` or
`keep_reply` and becomes durable with the next `commit`, which every request awaits before it is answered. While one
group is being written the next one gathers, so the number of commits adapts itself to the load.

`journal_mode=WAL` with `synchronous=NORMAL`: killing the process loses nothing that was answered; a power failure may
lose the last moments but leaves the file whole. `locking_mode=EXCLUSIVE` keeps a second server off the folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from askq.localapi import given
from askq.localapi.errors import LocalApiError
from askq.localapi.wire import JsonObject

FILE_NAME = "localapi.sqlite3"
MEMORY = ":memory:"
SCHEMA_VERSION = 1
SCRUB_S = 0.5
"""How long deleted contents may stay in the write-ahead log."""
LOCK_WAIT_S = 3.0
"""How long to wait for a server that is just leaving the folder."""

_SCHEMA = """
CREATE TABLE objects (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    parent TEXT,
    seq INTEGER NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE ledger (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    protocol TEXT NOT NULL,
    created_at REAL NOT NULL,
    scope TEXT,
    model TEXT NOT NULL,
    metadata TEXT NOT NULL,
    round INTEGER NOT NULL,
    digest TEXT NOT NULL,
    question TEXT NOT NULL
);
CREATE TABLE replies (
    key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    body TEXT,
    work TEXT
) WITHOUT ROWID;
"""

_PUT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM objects WHERE id = ?"
_ERASE = "UPDATE ledger SET question = digest_of(question), metadata = '{}' WHERE id = ?"
_FORGET_REPLY = "UPDATE replies SET body = NULL, work = ? WHERE json_extract(body, '$.id') = ?"
_LEDGER = "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_REPLY = "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)"

Row = tuple[str | int | float | None, ...]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A row of `objects`."""

    id: str
    kind: str
    parent: str | None
    seq: int
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One run or response that was created; entries stay when it is deleted, without what was said."""

    n: int
    id: str
    protocol: str
    created_at: float
    scope: str | None
    """The thread or conversation."""
    model: str
    metadata: dict[str, str]
    round: int
    """0 for a question; k for a response that carries the k-th round of tool outputs."""
    digest: str
    """SHA-256 over model, instructions, history and tools."""
    question: str

    outputs: list[JsonObject] = field(default_factory=list)
    """The outputs of function calls it was given (`askq.localapi.given`); a reader fills them in."""

    def to_wire(self) -> JsonObject:
        """As `GET /_askq/ledger` shows it."""
        return {
            "n": self.n,
            "id": self.id,
            "protocol": self.protocol,
            "created_at": self.created_at,
            "thread_id": self.scope if self.protocol == "assistants" else None,
            "conversation_id": self.scope if self.protocol == "responses" else None,
            "model": self.model,
            "metadata": self.metadata,
            "round": self.round,
            "input_digest": self.digest,
            "question": self.question,
            "tool_outputs": self.outputs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReply:
    """What an idempotency key was answered with: a body, or the id of the work whose end is the reply."""

    request: str
    """Digest of path and body."""
    body: JsonObject | None
    work: str | None


class Storage:
    """One open data folder. Use `open` and, at the end, `close`."""

    def __init__(self, connection: sqlite3.Connection, where: str) -> None:
        self._connection = connection
        self._where = where
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="localapi-storage")
        self._pending: list[tuple[str, Row]] = []
        self._noted = 0
        self._durable = 0
        self._flush: asyncio.Task[None] | None = None
        self._afterwards: deque[tuple[int, Callable[[], None]]] = deque()
        self._unclean = False
        self._scrub: asyncio.Task[None] | None = None
        self._ledger_length: int = connection.execute("SELECT COALESCE(MAX(n), 0) FROM ledger").fetchone()[0]

    @classmethod
    def open(cls, data: str) -> Storage:
        """Open (or make) the data folder, or a store in memory for `:memory:`; raises LocalApiError."""
        path = Path(data) / FILE_NAME
        try:
            if data != MEMORY:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(
                MEMORY if data == MEMORY else path, check_same_thread=False, isolation_level=None, timeout=LOCK_WAIT_S
            )
        except (OSError, sqlite3.Error) as exc:
            raise LocalApiError(
                f"The data folder {data} cannot be opened: {exc}. Name another folder with --data."
            ) from exc
        try:
            connection.row_factory = sqlite3.Row
            connection.create_function("digest_of", 1, _digest_of, deterministic=True)
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA secure_delete=ON")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise LocalApiError(
                    f"{path} was written by another version (schema {version}, this one has {SCHEMA_VERSION}). "
                    "Name another folder with --data, or remove it."
                )
            # The exclusive lock is taken by the first write, so there has to be one.
            connection.execute("BEGIN IMMEDIATE")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
            connection.execute("CREATE INDEX IF NOT EXISTS reply_of ON replies (json_extract(body, '$.id'))")
            for statement in given.SCHEMA.split(";"):  # folders of earlier versions lack it
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
            return cls(connection, data)
        except sqlite3.Error as exc:
            connection.close()
            if "locked" in str(exc):
                raise LocalApiError(
                    f"The data folder {data} is in use by another local API. Stop that one, or name another folder "
                    "with --data."
                ) from exc
            raise LocalApiError(
                f"The data file {path} cannot be used: {exc}. Name another folder with --data."
            ) from exc
        except LocalApiError:
            connection.close()
            raise

    def objects(self) -> Iterator[StoredObject]:
        """Everything that was stored, oldest first."""
        for row in self._connection.execute("SELECT id, kind, parent, seq, body FROM objects ORDER BY seq"):
            yield StoredObject(row[0], row[1], row[2], row[3], json.loads(row[4]))

    def put(self, stored: StoredObject) -> None:
        """Note a new or changed object."""
        self._note(_PUT, (stored.id, stored.kind, stored.parent, stored.seq, _dump(stored.body)))

    def delete(self, object_id: str) -> None:
        """Note that an object is gone."""
        self._note(_DELETE, (object_id,))
        # An idempotency key stays used, but what it was answered with goes with the object.
        self._note(_FORGET_REPLY, (object_id, object_id))
        self._unclean = True

    def after_commit(self, act: Callable[[], None]) -> None:
        """Call `act` once everything noted so far is durable."""
        if self._durable == self._noted:
            act()
        else:
            self._afterwards.append((self._noted, act))

    def next_ledger_number(self) -> int:
        """Take the number of the next ledger entry."""
        self._ledger_length += 1
        return self._ledger_length

    @property
    def ledger_length(self) -> int:
        """How many runs and responses were ever created here."""
        return self._ledger_length

    def append_ledger(self, entry: LedgerEntry) -> None:
        """Note a ledger entry."""
        self._note(
            _LEDGER,
            (
                entry.n,
                entry.id,
                entry.protocol,
                entry.created_at,
                entry.scope,
                entry.model,
                _dump(entry.metadata),
                entry.round,
                entry.digest,
                entry.question,
            ),
        )

    def erase(self, work_id: str) -> None:
        """Note that a run or response was deleted: its entry in the ledger stays, but not what was said.

        The question becomes its digest, so that equal ones can still be told.
        """
        self._note(_ERASE, (work_id,))
        self._note(given.ERASE, (work_id,))
        self._unclean = True

    def append_given(self, output: given.GivenOutput) -> None:
        """Note an output that was accepted."""
        self._note(given.INSERT, output.row())

    async def ledger(self, after: int, limit: int) -> list[LedgerEntry]:
        """At most `limit` entries behind number `after`, oldest first."""
        await self.commit()

        def read() -> list[LedgerEntry]:
            rows = self._connection.execute(
                "SELECT * FROM ledger WHERE n > ? ORDER BY n LIMIT ?", (after, limit)
            ).fetchall()
            outputs = given.read(self._connection, after, rows[-1]["n"]) if rows else {}
            return [_ledger_entry(row, outputs.get(row["id"], [])) for row in rows]

        return await self._in_writer(read)

    def keep_reply(self, key: str, reply: KeptReply) -> None:
        """Note the reply that belongs to an idempotency key."""
        body = None if reply.body is None else _dump(reply.body)
        self._note(_REPLY, (key, reply.request, body, reply.work))

    async def kept_reply(self, key: str) -> KeptReply | None:
        """The reply noted under a key."""
        await self.commit()

        def read() -> list[sqlite3.Row]:
            return self._connection.execute("SELECT * FROM replies WHERE key = ?", (key,)).fetchall()

        for row in await self._in_writer(read):
            body = None if row["body"] is None else json.loads(row["body"])
            return KeptReply(request=row["request"], body=body, work=row["work"])
        return None

    async def commit(self) -> None:
        """Return when everything noted so far is durable; raises LocalApiError when it cannot be written."""
        target = self._noted
        while self._durable < target:
            await asyncio.shield(self._flushing())

    def commit_soon(self) -> None:
        """Have everything noted so far written, without waiting for it."""
        if self._pending:
            self._flushing()

    async def close(self) -> None:
        """Write what is left and close the file."""
        try:
            await self.commit()
        finally:
            if self._scrub is not None:
                self._scrub.cancel()
            self._writer.shutdown(wait=True)
            self._connection.close()

    def _note(self, statement: str, row: Row) -> None:
        # SQLite would refuse halves of characters, and with the row the whole group, now and every time after.
        whole = tuple(part if not isinstance(part, str) or _is_text(part) else _without_halves(part) for part in row)
        self._pending.append((statement, whole))
        self._noted += 1

    def _flushing(self) -> asyncio.Task[None]:
        if self._flush is None:
            self._flush = asyncio.create_task(self._write_group())
            # Whoever awaits the group hears of a failure; nobody has to.
            self._flush.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._flush

    async def _write_group(self) -> None:
        try:
            # One turn of the loop: requests that arrived together join this group.
            await asyncio.sleep(0)
            group, self._pending = self._pending, []
            try:
                await self._in_writer(partial(self._write, group))
            except sqlite3.Error as exc:
                self._pending = group + self._pending
                raise LocalApiError(
                    f"The data folder {self._where} cannot be written: {exc}. What was not written is kept and tried "
                    "again with the next request."
                ) from exc
            self._durable += len(group)
            while self._afterwards and self._afterwards[0][0] <= self._durable:
                self._afterwards.popleft()[1]()
            if self._unclean and self._scrub is None:
                self._scrub = asyncio.create_task(self._scrub_soon(), name="localapi-scrub")
        finally:
            self._flush = None

    async def _scrub_soon(self) -> None:
        """Take what was deleted out of the write-ahead log too, where it would stay until that fills up."""
        await asyncio.sleep(SCRUB_S)
        self._unclean = False
        try:
            await self._in_writer(self._truncate_log)
        except sqlite3.Error:
            self._unclean = True  # the next deletion tries again
        finally:
            self._scrub = None

    def _truncate_log(self) -> None:
        # Read to its end here: as long as the statement is open, no transaction can be committed.
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _write(self, group: list[tuple[str, Row]]) -> None:
        self._connection.execute("BEGIN")
        try:
            for statement, row in group:
                self._connection.execute(statement, row)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    async def _in_writer(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def _digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _dump(value: JsonObject | dict[str, str]) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A half of a character, as an engine or a script may bring it, is kept as an escape.
    return text if _is_text(text) else json.dumps(value, separators=(",", ":"))


def _is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no halves of surrogate pairs."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return True


def _without_halves(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _ledger_entry(row: sqlite3.Row, outputs: list[JsonObject]) -> LedgerEntry:
    return LedgerEntry(
        n=row["n"],
        id=row["id"],
        protocol=row["protocol"],
        created_at=row["created_at"],
        scope=row["scope"],
        model=row["model"],
        metadata=json.loads(row["metadata"]),
        round=row["round"],
        digest=row["digest"],
        question=row["question"],
        outputs=outputs,
    )
