"""Vector stores: which files are in them, how far each is indexed, and searching.

A file is indexed in the background; what is unfinished at a restart is begun again. A script may have it take longer,
or fail (`Fate`): then its state follows from the clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from askq.localapi.engines.base import Hit
from askq.localapi.errors import ApiError, not_found
from askq.localapi.files.chunks import cut
from askq.localapi.files.extract import Unreadable, text_of
from askq.localapi.files.filing import Files
from askq.localapi.files.filters import passes
from askq.localapi.files.index import Index
from askq.localapi.storage import Storage
from askq.localapi.store import Store
from askq.localapi.wire import JsonObject, new_id

_log = logging.getLogger(__name__)

AT_ONCE = 2
"""Files that are indexed at the same time."""
DAY_S = 86_400
STATUSES = ("in_progress", "completed", "failed", "cancelled")
CHUNKING = {"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}


@dataclass(frozen=True, slots=True)
class Fate:
    """What a script prescribes for a file: seconds that indexing takes, and an error to end with."""

    seconds: float = 0.0
    error: JsonObject | None = None


class Fates(Protocol):
    """Who says what becomes of files."""

    def __call__(self, filename: str) -> Fate: ...


class Stores:
    """The vector stores of one data folder."""

    def __init__(
        self, storage: Storage, store: Store, files: Files, folders: tuple[Path, Path], clock: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._store = store
        self._files = files
        self._folder, self._work = folders
        self._clock = clock
        self.fates: Fates = lambda filename: Fate()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._leaving: set[asyncio.Task[None]] = set()
        files.on_remove.append(self._forget_file)

    # The stores themselves

    def add(self, **settings: object) -> JsonObject:
        """A new store without files."""
        now = int(self._clock())
        body: JsonObject = {
            "id": new_id("vs"),
            "object": "vector_store",
            "created_at": now,
            "name": "",
            "description": None,
            "metadata": {},
            "expires_after": None,
            "last_active_at": now,
            "status": "completed",
            **settings,
        }
        self._store.add("vector_store", body)
        return body

    def look(self, store_id: str) -> JsonObject | None:
        """The store as of now: it may have expired."""
        body = self._store.get("vector_store", store_id)
        if body is not None and body["status"] != "expired":
            ends = expires_at(body)
            if ends is not None and ends <= self._clock():
                self.expire(store_id)
        return body

    def find(self, store_id: str) -> JsonObject:
        """The store; raises ApiError."""
        body = self.look(store_id)
        if body is None:
            raise no_such_store(store_id)
        return body

    def expire(self, store_id: str) -> None:
        """Let a store expire: its list of files stays, but nothing can be found in it."""
        self._store.change(store_id, status="expired")
        self._drop_index(store_id)

    def use(self, store_id: str) -> None:
        """Its time begins anew."""
        self._store.change(store_id, last_active_at=int(self._clock()))

    def all(self) -> list[JsonObject]:
        """Every store, oldest first."""
        return [body for body in self._store.below("vector_store") if self.look(body["id"])]

    def remove(self, store_id: str) -> None:
        """Delete a store that exists, with what it knows of its files. The files stay."""
        for body in self.files(store_id):
            self._stop(body["id"])
            self._store.remove(body["id"])
        for batch in self._store.below("file_batch", store_id):
            self._store.remove(batch["id"])
        self._store.remove(store_id)
        self._drop_index(store_id)

    def _drop_index(self, store_id: str) -> None:
        path = self._index(store_id).path
        self._storage.after_commit(lambda: path.unlink(missing_ok=True))

    def _index(self, store_id: str) -> Index:
        return Index(self._folder / f"{store_id}.sqlite3")

    # Their files

    def add_file(
        self,
        store_id: str,
        file: JsonObject,
        *,
        attributes: JsonObject | None = None,
        chunking: JsonObject | None = None,
    ) -> JsonObject:
        """Put a file into a store and begin to index it."""
        now = self._clock()
        key = f"{store_id}/{file['id']}"
        self._stop(key)
        fate = self.fates(file["filename"])
        body: JsonObject = {
            "id": key,
            "file_id": file["id"],
            "created_at": int(now),
            "status": "in_progress",
            "last_error": None,
            "usage_bytes": 0,
            "attributes": attributes or {},
            "chunking_strategy": chunking or CHUNKING,
            "ready_at": now + fate.seconds if fate.seconds else None,
            "fate": fate.error,
        }
        self._store.add("vector_store_file", body, parent=store_id)
        self.use(store_id)
        self._begin(store_id, body)
        return body

    def file(self, store_id: str, file_id: str) -> JsonObject | None:
        """A file of a store, as stored (`store_file_wire` is how it is given out)."""
        return self._store.get("vector_store_file", f"{store_id}/{file_id}", parent=store_id)

    def files(self, store_id: str) -> list[JsonObject]:
        """The files of a store, oldest first."""
        return self._store.below("vector_store_file", store_id)

    def status(self, body: JsonObject) -> str:
        """How far a file is by now."""
        if body["ready_at"] is not None and body["ready_at"] > self._clock() and body["status"] != "cancelled":
            return "in_progress"
        status: str = body["status"]
        return status

    def change_file(self, body: JsonObject, **changes: object) -> JsonObject:
        """Change a file's record."""
        return self._store.change(body["id"], **changes)

    async def remove_file(self, store_id: str, file_id: str) -> None:
        """Take a file out of a store, with every word of it. The file itself stays."""
        key = f"{store_id}/{file_id}"
        self._stop(key)
        if self._store.get("vector_store_file", key) is not None:
            self._store.remove(key)
        await self._storage.commit()
        await self._unindex(store_id, file_id)

    async def _unindex(self, store_id: str, file_id: str) -> None:
        async with self._lock(store_id):
            await asyncio.to_thread(self._index(store_id).remove, file_id)

    def _forget_file(self, file_id: str) -> None:
        """A file was deleted: the stores lose it too."""
        for body in self._store.below("vector_store"):
            if self.file(body["id"], file_id) is not None:
                self._stop(f"{body['id']}/{file_id}")
                self._store.remove(f"{body['id']}/{file_id}")
                task = asyncio.get_running_loop().create_task(self._unindex(body["id"], file_id))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def settled(self) -> None:
        """Return when what was deleted has left the indexes."""
        while self._leaving:
            await asyncio.gather(*self._leaving, return_exceptions=True)

    def _lock(self, store_id: str) -> asyncio.Lock:
        return self._locks.setdefault(store_id, asyncio.Lock())

    # Indexing

    async def resume(self) -> None:
        """After loading: go on with what is unfinished, and clear away what a crash has left."""
        known = {body["id"]: body for body in self._store.below("vector_store")}
        for path in self._folder.iterdir():
            if path.name.partition(".")[0] not in known:
                path.unlink(missing_ok=True)
        for store_id, store in known.items():
            wanted = {body["file_id"] for body in self.files(store_id) if store["status"] != "expired"}
            for file_id in await asyncio.to_thread(self._index(store_id).files) - wanted:
                await self._unindex(store_id, file_id)
            for body in self.files(store_id):
                if body["status"] == "in_progress":
                    self._begin(store_id, body)

    def _begin(self, store_id: str, body: JsonObject) -> None:
        key = body["id"]
        task = asyncio.get_running_loop().create_task(self._indexed(store_id, key), name=f"index-{key}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._tasks.pop(key, None) if self._tasks.get(key) is done else None)

    def _stop(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def _indexed(self, store_id: str, key: str) -> None:
        file_id = key.partition("/")[2]
        async with self._slots:
            body = self._store.get("vector_store_file", key)
            file = self._files.get(file_id)
            if body is None or file is None:
                return
            changes: JsonObject = {"status": "completed"}
            try:
                if body["fate"] is not None:
                    raise Unreadable(body["fate"]["code"], body["fate"]["message"])
                text = await text_of(self._files.blobs.path(file["blob"]), file["filename"], self._work)
                async with self._lock(store_id):
                    writing = asyncio.to_thread(self._write, store_id, file_id, text, body["chunking_strategy"])
                    await asyncio.shield(writing)
                changes["usage_bytes"] = len(text.encode("utf-8", "replace"))
            except Unreadable as exc:
                changes = {"status": "failed", "last_error": {"code": exc.code, "message": exc.message}}
            except Exception as exc:  # whatever it is, it is this file's failure, not the server's
                _log.exception("%s cannot be indexed", file_id)
                error = {"code": "server_error", "message": f"{type(exc).__name__} while the file was indexed."}
                changes = {"status": "failed", "last_error": error}
            finally:
                if self._store.get("vector_store", store_id) is None:
                    self._index(store_id).path.unlink(missing_ok=True)
            if self._store.get("vector_store_file", key) is body:
                self._store.change(key, **changes)
                await self._storage.commit()

    def _write(self, store_id: str, file_id: str, text: str, chunking: JsonObject) -> None:
        static = chunking["static"]
        chunks = cut(text, size=static["max_chunk_size_tokens"], overlap=static["chunk_overlap_tokens"])
        self._index(store_id).add(file_id, chunks)

    # Batches

    def add_batch(self, store_id: str, file_ids: Sequence[str]) -> JsonObject:
        """A batch of files that were added together."""
        body: JsonObject = {
            "id": new_id("vsfb"),
            "object": "vector_store.files_batch",
            "created_at": int(self._clock()),
            "vector_store_id": store_id,
            "file_ids": list(file_ids),
            "cancelled": False,
        }
        self._store.add("file_batch", body, parent=store_id)
        return body

    def batch(self, store_id: str, batch_id: str) -> JsonObject:
        """The batch; raises ApiError."""
        body = self._store.get("file_batch", batch_id, parent=store_id)
        if body is None:
            raise not_found(f"No file batch found with id '{batch_id}' in vector store '{store_id}'.")
        return body

    def batch_files(self, batch: JsonObject) -> list[JsonObject]:
        """The files of a batch that are still in the store."""
        found = (self.file(batch["vector_store_id"], file_id) for file_id in batch["file_ids"])
        return [body for body in found if body is not None]

    def cancel_batch(self, batch: JsonObject) -> None:
        """Stop what is unfinished of a batch."""
        self._store.change(batch["id"], cancelled=True)
        for body in self.batch_files(batch):
            if self.status(body) == "in_progress":
                self._stop(body["id"])
                self._store.change(body["id"], status="cancelled")

    def counts(self, bodies: Collection[JsonObject]) -> dict[str, int]:
        """`file_counts` of a store or a batch."""
        counts = dict.fromkeys(STATUSES, 0)
        for body in bodies:
            counts[self.status(body)] += 1
        return {**counts, "total": len(bodies)}

    # Searching

    async def search(
        self,
        store_ids: Sequence[str],
        questions: Sequence[str],
        *,
        limit: int,
        threshold: float = 0.0,
        chosen: JsonObject | None = None,
    ) -> list[Hit]:
        """The best passages for any of the questions in all these stores, best first."""
        best: dict[tuple[str, int], Hit] = {}
        for store_id in dict.fromkeys(store_ids):
            ready = {
                body["file_id"]: body
                for body in self.files(store_id)
                if self.status(body) == "completed" and passes(body["attributes"], chosen)
            }
            for question in questions:
                async with self._lock(store_id):
                    found = await asyncio.to_thread(self._index(store_id).search, question, list(ready), limit)
                for passage in found:
                    file = self._files.get(passage.file_id)
                    key = (passage.file_id, passage.start)
                    if file is None or passage.score < threshold:
                        continue
                    if key not in best or best[key].score < passage.score:
                        best[key] = Hit(
                            file_id=passage.file_id,
                            filename=file["filename"],
                            score=round(passage.score, 4),
                            text=passage.text,
                            attributes=ready[passage.file_id]["attributes"],
                        )
        return sorted(best.values(), key=lambda hit: -hit.score)[:limit]

    async def content(self, store_id: str, file_id: str) -> list[str]:
        """The passages of a file as they were indexed."""
        async with self._lock(store_id):
            return [chunk.text for chunk in await asyncio.to_thread(self._index(store_id).chunks, file_id)]

    async def close(self) -> None:
        """Stop indexing; the next start goes on."""
        tasks = [*self._tasks.values(), *self._leaving]
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def expires_at(body: JsonObject) -> int | None:
    """When a store expires, if it does."""
    if body["expires_after"] is None:
        return None
    ends: int = body["last_active_at"] + body["expires_after"]["days"] * DAY_S
    return ends


def no_such_store(store_id: str) -> ApiError:
    """404."""
    return not_found(f"Vector store with id '{store_id}' not found.")
