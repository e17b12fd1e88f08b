"""The search index of one vector store: an SQLite file of its own, so that deleting the store deletes it for good.

SQLite's FTS5 finds the passages that share words with a question, and ranks them by BM25. The best are weighed again
here, because FTS5 gives a word that most passages have no weight at all, which makes nonsense of small stores; and to
have a score from 0 (nothing of it) to 1 (every word, often).
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from askq.localapi.files.chunks import Chunk
from askq.localapi.files.tokens import asked, tokens

CANDIDATES = 64
WORDS = 64
"""Of a question; more are cut off."""
K1, B = 1.2, 0.75

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunks (
    id INTEGER PRIMARY KEY, file TEXT, start INTEGER, stop INTEGER, length INTEGER, text TEXT
);
CREATE INDEX IF NOT EXISTS chunks_of_file ON chunks (file);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (said, content='', tokenize='ascii');
"""
_REMOVE = "INSERT INTO words (words, rowid, said) VALUES ('delete', ?, ?)"


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that was found."""

    file_id: str
    start: int
    end: int
    text: str
    score: float


class Index:
    """Opens the file for each call; calls may come from any thread, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30.0)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            connection.executescript(_SCHEMA)
            with connection:
                yield connection

    def add(self, file_id: str, chunks: Iterable[Chunk]) -> int:
        """Index a file's passages in the place of what was there of it; how many there are."""
        count = 0
        with self._open() as connection:
            self._drop(connection, file_id)
            for chunk in chunks:
                words = list(tokens(chunk.text))
                cursor = connection.execute(
                    "INSERT INTO chunks (file, start, stop, length, text) VALUES (?, ?, ?, ?, ?)",
                    (file_id, chunk.start, chunk.end, len(words), chunk.text),
                )
                connection.execute("INSERT INTO words (rowid, said) VALUES (?, ?)", (cursor.lastrowid, " ".join(words)))
                count += 1
        return count

    def remove(self, file_id: str) -> None:
        """Take a file out, and every word of it."""
        if not self.path.exists():
            return
        with self._open() as connection:
            gone = self._drop(connection, file_id)
        if gone:
            with self._open() as connection:
                # Only merging the index's segments takes the words of deleted passages out of them.
                connection.execute("INSERT INTO words (words) VALUES ('optimize')")

    def _drop(self, connection: sqlite3.Connection, file_id: str) -> int:
        rows = connection.execute("SELECT id, text FROM chunks WHERE file = ?", (file_id,)).fetchall()
        for number, text in rows:
            connection.execute(_REMOVE, (number, " ".join(tokens(text))))
        connection.execute("DELETE FROM chunks WHERE file = ?", (file_id,))
        return len(rows)

    def files(self) -> set[str]:
        """The files that are in it."""
        if not self.path.exists():
            return set()
        with self._open() as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT file FROM chunks")}

    def chunks(self, file_id: str) -> list[Chunk]:
        """A file's passages, in order."""
        if not self.path.exists():
            return []
        with self._open() as connection:
            rows = connection.execute("SELECT start, stop, text FROM chunks WHERE file = ? ORDER BY id", (file_id,))
            return [Chunk(*row) for row in rows]

    def search(self, question: str, files: Collection[str], limit: int) -> list[Passage]:
        """The best passages of these files, best first."""
        wanted = asked(question)[:WORDS]
        if not wanted or not files or not self.path.exists():
            return []
        with self._open() as connection:
            connection.execute("CREATE TEMP TABLE wanted (file TEXT PRIMARY KEY)")
            connection.executemany("INSERT INTO wanted VALUES (?)", ((file_id,) for file_id in set(files)))
            rows = connection.execute(
                "SELECT file, start, stop, text, length FROM words JOIN chunks ON chunks.id = words.rowid "
                "WHERE words MATCH ? AND file IN (SELECT file FROM wanted) ORDER BY bm25(words), chunks.id LIMIT ?",
                (" OR ".join(f'"{word}"' for word in wanted), max(CANDIDATES, limit)),
            ).fetchall()
            count, usual = connection.execute("SELECT COUNT(*), COALESCE(AVG(length), 1) FROM chunks").fetchone()
            weights = {}
            for word in wanted:
                matching = connection.execute("SELECT COUNT(*) FROM words WHERE words MATCH ?", (f'"{word}"',))
                having = matching.fetchone()[0]
                weights[word] = math.log(1 + (count - having + 0.5) / (having + 0.5))
        most = sum(weights.values()) * (K1 + 1)
        found = [
            Passage(file_id, start, stop, text, _weight(text, weights, length / usual) / most)
            for file_id, start, stop, text, length in rows
        ]
        found.sort(key=lambda passage: -passage.score)
        return found[:limit]


def _weight(text: str, weights: dict[str, float], length: float) -> float:
    counts = Counter(token for token in tokens(text) if token in weights)
    return sum(weights[word] * count * (K1 + 1) / (count + K1 * (1 - B + B * length)) for word, count in counts.items())
