"""Where an engine that works does its work: programs run in a folder with the request's files, and searches."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from askq.localapi.engines.base import GivenFile, Hit, Product, Ran, Request
from askq.localapi.files.blobs import Blobs
from askq.localapi.files.stores import Stores

NAME_BYTES = 200
"""Of a name in the folder; most file systems take 255."""
PRODUCTS = 50
SECONDS, CPU_SECONDS = 30.0, 20
FILE_BYTES = 64 << 20
FOLDER_BYTES = 1 << 30

_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


@dataclass(frozen=True, slots=True)
class Places:
    """What desks need of the server."""

    blobs: Blobs
    stores: Stores
    work: Path


class Desk:
    """For one leg of a run. Files that one program makes are there for the next."""

    def __init__(self, places: Places, request: Request) -> None:
        self._places = places
        self._request = request
        self._made: dict[str, Product] = {}
        self.names = _names([given for given in request.files if given.use == "code"])

    async def run(self, source: str, *, readable: Sequence[str] = ()) -> Ran:
        """Run a program in a folder with the files, and keep what it leaves there."""
        from askq.localapi.tutor.sandbox import Limits, shared  # imports what only this needs

        limits = Limits(
            seconds=SECONDS,
            cpu_seconds=CPU_SECONDS,
            memory_bytes=1 << 30,
            output_bytes=64 << 10,
            file_bytes=FILE_BYTES,
            folder_bytes=FOLDER_BYTES,
            files=500,
        )
        folder = Path(tempfile.mkdtemp(dir=self._places.work))
        try:
            before = await asyncio.to_thread(self._lay_out, folder)
            ran = await shared().run(source, folder=folder, readable=readable, limits=limits)
            made = await asyncio.to_thread(_changed, folder, before)
            products = tuple(self._kept(folder, name) for name in made[:PRODUCTS])
            self._made.update({product.name: product for product in products})
            return Ran(logs=ran.output, ended=ran.ended, products=products)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _lay_out(self, folder: Path) -> dict[str, tuple[int, int]]:
        for name, given in self.names.items():
            given.copy_to(folder / name)
        for name, product in self._made.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._places.blobs.path(product.blob), target)
        return dict(_files(folder))

    def _kept(self, folder: Path, name: str) -> Product:
        blob = self._places.blobs.add(folder / name)
        return Product(name=name, blob=blob.digest, size=blob.size)

    async def search(self, questions: Sequence[str], *, limit: int = 10) -> list[Hit]:
        """Search the request's stores as its tool says."""
        tool = next((tool for tool in self._request.tools if tool.get("type") == "file_search"), {})
        settings = tool.get("file_search") or tool
        threshold = (settings.get("ranking_options") or {}).get("score_threshold") or 0.0
        for store_id in self._request.stores:
            if self._places.stores.look(store_id) is not None:
                self._places.stores.use(store_id)
        return await self._places.stores.search(
            self._request.stores,
            questions,
            limit=min(settings.get("max_num_results") or limit, 50),
            threshold=threshold,
            chosen=tool.get("filters"),
        )


def _files(folder: Path) -> list[tuple[str, tuple[int, int]]]:
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            state = path.stat()
            found.append((path.relative_to(folder).as_posix(), (state.st_size, state.st_mtime_ns)))
    return found


def _changed(folder: Path, before: dict[str, tuple[int, int]]) -> list[str]:
    return [name for name, state in _files(folder) if before.get(name) != state and state[0] > 0]


def _names(files: Sequence[GivenFile]) -> dict[str, GivenFile]:
    """The files by the names they have in the folder: safe ones, each once; a later file replaces its like."""
    names: dict[str, GivenFile] = {}
    for given in files:
        names[_safe(given.name)] = given
    return names


def _safe(name: str) -> str:
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(" .") or "file"
    stem, dot, ending = name.rpartition(".")
    if len(name.encode()) <= NAME_BYTES:
        return name
    tail = f"{dot}{ending}" if stem and len(ending.encode()) <= 20 else ""
    head = name.encode()[: NAME_BYTES - len(tail.encode())].decode("utf-8", "ignore")
    return head + tail
