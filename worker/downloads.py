"""What a run has made, fetched as soon as it has ended: containers expire twenty minutes after their last use.

A file is written without a name, brought to the disk and only then named, so that a process that dies leaves nothing
half-written; the next claim fetches it again and finds the same content under the same name.

A job may have several runs, where outputs of functions start one of their own, and those that come later often work on
in the same container. What an earlier one has brought is on record with the job, and not fetched again; the limits are
those of all of them together.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from askq.failpoints import hit
from askq.files.folder import Folder, Incoming, Kept
from askq.files.kinds import media_type
from askq.files.names import safe_name
from askq.ids import split_job_id
from askq.jobs.codec import files_brought
from askq.jobs.model import Answer, Claim
from askq.jobs.objects import Kind, RemoteObject
from worker.protocols.base import Blocked, CallError, Gone, Refused
from worker.protocols.filing import Filing, Made, TooLarge

log = logging.getLogger(__name__)

MOST_TRIES = 7
"""Attempts to fetch the files of one answer; with the pauses between them about five minutes, well before a container
expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is fetched of one answer at most."""

    files: int
    file_bytes: int
    total_bytes: int


class NotNow(Exception):
    """A file could not be fetched, and may be later."""


class Downloads:
    """Fetches what runs have made. Belongs to one event loop."""

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._kept: dict[tuple[str, str], Kept] = {}
        """What this process has fetched of answers that are not complete yet."""

    async def fetch(self, claim: Claim, answer: Answer, filing: Filing, *, others: Collection[str] = ()) -> Answer:
        """The answer with its files in the folder: each has a path and a size, or an error that says why it has none.
        Those that the job has already (`claim.brought`) are left out, and of those of other answers (`others`, by their
        ids) all that this one does not name.

        Raises NotNow while it is worth another try, and Blocked and Limited as calls do.
        """
        last = claim.errors + 1 >= MOST_TRIES
        brought = _Brought(files_brought(claim.brought))
        try:
            made, notes = await filing.made(answer)
        except CallError as error:
            if not last or not isinstance(error, (Gone, Refused)):
                raise
            made, notes = [], [error.message]
        named = {file.get("file_id") for file in answer.files}
        found = len(made)
        made = [one for one in made if not brought.has(one) and (one.file_id not in others or one.file_id in named)]
        files: list[Mapping[str, Any]] = []
        paths = set(brought.paths)
        left = self._limits.total_bytes - brought.size
        # Pictures that are part of the reply itself come last: as a rule they are files of the container once more.
        made.sort(key=lambda one: one.file_id is None)
        for one in made:
            if len(files) + len(brought.paths) >= self._limits.files:
                files.append(_entry(one, error=("too_many", f"only {self._limits.files} files of an answer are kept")))
                continue
            known = brought.contents | {str(entry.get("sha256")) for entry in files}
            most = max(0, min(left, self._limits.file_bytes))
            entry = await self._one(claim, one, filing, most, known, last=last)
            if entry is None or entry.get("path") in paths:
                continue  # nothing new: code has written the same once more
            if "path" in entry:
                paths.add(str(entry["path"]))
                left -= int(entry["size"])
            files.append(entry)
        if notes and not found:
            files.append({"kind": "file", "name": "?", "error": {"code": "gone", "message": notes[0][:300]}})
        self._forget(claim)
        return dataclasses.replace(answer, files=tuple(files))

    def _forget(self, claim: Claim) -> None:
        for key in [key for key in self._kept if key[0] == claim.id]:
            del self._kept[key]

    async def _one(
        self, claim: Claim, made: Made, filing: Filing, most: int, known: Collection[str], *, last: bool
    ) -> Mapping[str, Any] | None:
        try:
            made = await filing.named(made)
            kept = self._kept.get((claim.id, made.key)) or await self._content(made, filing, most)
            self._kept[claim.id, made.key] = kept
            if made.file_id is None and kept.sha256 in known:
                return None
            hit("file.keep.before")
            batch, row = split_job_id(claim.id)
            path = await asyncio.to_thread(self._folder.name, kept, _wanted(made), batch=batch, row=row)
            hit("file.keep.after")
        except TooLarge:
            size = "" if made.size is None else f": it has {made.size:,} bytes"
            return _entry(made, error=("too_large", f"larger than the {most:,} bytes that are left for it{size}"))
        except (Gone, Refused) as error:
            return _entry(made, error=("gone" if isinstance(error, Gone) else "refused", error.message))
        except Blocked as error:
            if error.code != "endpoint_gone":
                raise
            # It speaks of runs, and gives out no files: no reason to stop speaking to it.
            return _entry(made, error=("refused", error.message))
        except OSError as error:
            why = f"the folder of files cannot be written: {error.strerror or error}"
            if last:
                return _entry(made, error=("not_written", why))
            raise NotNow(why) from error
        except CallError as error:
            if last:
                return _entry(made, error=("unreachable", error.message))
            raise
        return _entry(made, path=path, kept=kept)

    async def _content(self, made: Made, filing: Filing, most: int) -> Kept:
        with self._folder.incoming() as file:
            await filing.download(made, file.write, most=most)
            return await asyncio.to_thread(Incoming.keep, file)


class _Brought:
    """The files that earlier runs of the job have brought, those included that could not be had."""

    def __init__(self, files: Sequence[Mapping[str, Any]]) -> None:
        kept = [file for file in files if "path" in file]
        self._known = {str(file["file_id"]): file for file in files if file.get("file_id")}
        self.paths = {str(file["path"]) for file in kept}
        self.contents = {str(file.get("sha256")) for file in kept}
        self.size = sum(int(file.get("size", 0)) for file in kept)

    def has(self, made: Made) -> bool:
        """Whether a file is among them. One that code has written anew has another id, or at least another size."""
        known = self._known.get(made.file_id or "")
        if known is None or not {"path", "error"} & known.keys():
            return False
        return made.size is None or "size" not in known or made.size == known["size"]


def objects_made(answer: Answer, account: str) -> list[RemoteObject]:
    """What a run has made at the service: containers, and files of their own."""
    containers = [str(part["container_id"]) for part in (*answer.code, *answer.files) if part.get("container_id")]
    found = [RemoteObject(kind=Kind.CONTAINER, id=id_, account=account) for id_ in dict.fromkeys(containers)]
    files = [str(part["file_id"]) for part in answer.files if part.get("file_id") and not part.get("container_id")]
    return found + [RemoteObject(kind=Kind.FILE, id=id_, account=account) for id_ in dict.fromkeys(files)]


def _wanted(made: Made) -> str:
    if made.name:
        return made.name
    return f"{made.file_id or 'image'}.png" if made.kind == "image" else made.file_id or "file"


def _entry(
    made: Made, *, path: str | None = None, kept: Kept | None = None, error: tuple[str, str] | None = None
) -> Mapping[str, Any]:
    name = safe_name(_wanted(made))
    entry: dict[str, Any] = {"kind": made.kind, "name": name if path is None else path.rpartition("/")[2]}
    if kept is not None:
        entry |= {"path": path, "media_type": media_type(entry["name"]), "size": kept.size, "sha256": kept.sha256}
    if error is not None:
        entry["error"] = {"code": error[0], "message": " ".join(error[1].split())[:300]}
    for name, value in (("file_id", made.file_id), ("container_id", made.container_id)):
        if value is not None:
            entry[name] = value
    return entry
