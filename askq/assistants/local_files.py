"""Files that an assistant file names: found beside it, checked, and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from askq.assistants.notation import flat_tool, table
from askq.errors import AssistantError, Problem
from askq.files import kinds
from askq.files.folder import Folder, hashed
from askq.files.kinds import CODE, SEARCH, Unfit
from askq.files.model import FileRef, Resources, StoreRef

LEVELS: Mapping[str, tuple[str, ...]] = {"assistant": ("tool_resources",), "thread": ("thread", "tool_resources")}
"""Where a file says what the assistant, and what each of its threads may read."""

Found = tuple[tuple[str | int, ...], str]
"""Where in the assistant file, and what is wrong there."""


def level(values: Mapping[str, Any], where: Sequence[str]) -> Mapping[str, Any]:
    """The `tool_resources` of one level."""
    found = values
    for name in where:
        found = table(found, name)
    return found


def wrong(path: Path, values: Mapping[str, Any]) -> Iterator[Found]:
    """Everything wrong with the files and stores an assistant file names."""
    tools = {
        flat_tool(tool).get("type") for tool in _list(values.get("tools")) if isinstance(tool, str) or _typed(tool)
    }
    for where in LEVELS.values():
        resources = level(values, where)
        for tool in (CODE, SEARCH):
            told = table(resources, tool)
            if any(key in told for key in ("files", "stores")) and tool not in tools:
                yield (*where, tool), f'{tool} has files, but the tool is missing: add "{tool}" to tools'
            if "files" in told:
                yield from _wrong_files(path, (*where, tool, "files"), told["files"], tool)
        search = table(resources, SEARCH)
        if search.get("vector_store_ids") and ("files" in search or "stores" in search):
            yield (*where, SEARCH), "vector_store_ids excludes files and stores: one store is searched on each level"
    if "assistant_id" in values and any(
        key in table(level(values, LEVELS["assistant"]), tool) for tool in (CODE, SEARCH) for key in ("files", "stores")
    ):
        yield (
            ("tool_resources",),
            "an assistant that exists already is used as it is; put the files under [thread.tool_resources]",
        )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _typed(tool: object) -> bool:
    return isinstance(tool, Mapping) and isinstance(tool.get("type"), str)


def _wrong_files(path: Path, where: tuple[str | int, ...], names: object, tool: str) -> Iterator[Found]:
    found: list[Path] = []
    for index, name in enumerate(_list(names)):
        if not isinstance(name, str):
            continue  # told by the schema of the file
        try:
            one = expand(path.parent, name, tool)
        except Unfit as unfit:
            yield (*where, index), f"{name!r}: {unfit.message}. {unfit.remedy}"
            continue
        found += one
        for file in one:
            try:
                _check(file, tool)
            except Unfit as unfit:
                # Of a folder or a pattern it has to be said which file is meant.
                meant = str(file.relative_to(path.parent)) if file.is_relative_to(path.parent) else str(file)
                yield (*where, index), f"{meant!r}: {unfit.message}. {unfit.remedy}"
    most = kinds.MOST_FILES if tool == CODE else kinds.MOST_STORE_FILES
    if len(found) > most:
        yield where, f"{len(found):,} files are named; at most {most:,} are taken"


def expand(base: Path, name: str, tool: str) -> list[Path]:
    """The files an entry stands for: a path, a folder with all that is in it, or a pattern. Raises Unfit.

    From folders and patterns comes what the tool can read; hidden files are left out.
    """
    try:
        place = base / name
        if any(sign in name for sign in "*?["):
            root, pattern = (
                (Path(place.anchor), str(place.relative_to(place.anchor)))
                if place.is_absolute()
                else (
                    Path(),
                    str(place),
                )
            )
            named = sorted(root.glob(pattern))
        elif place.is_dir():
            named = sorted(place.rglob("*"))
        else:
            return [place]
        files = [file for file in named if file.is_file() and not _hidden(file, base)]
    except (OSError, ValueError, NotImplementedError) as error:
        raise Unfit("this cannot be the name of files", "Check the path.") from error
    if tool == SEARCH:
        files = [file for file in files if file.suffix.lower() in kinds.SEARCHED]
    if not files:
        raise Unfit("there is no such file in it that the tool reads", "Check the path; it is relative to this file.")
    return files


def _hidden(file: Path, base: Path) -> bool:
    inside = file.relative_to(base) if file.is_relative_to(base) else file
    return any(part.startswith(".") and part not in (".", "..") for part in inside.parts)


def _check(file: Path, tool: str) -> None:
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise Unfit("this is no ordinary file", "Name a file.")
        os.close(os.open(file, os.O_RDONLY))
    except FileNotFoundError as error:
        raise Unfit("there is no such file", "Check the path; it is relative to this file.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unfit(f"it cannot be read: {reason}", "Give yourself permission to read it.") from error
    kinds.check_size(size, tool)
    if tool == SEARCH:
        kinds.check_searched(file.name)


def resources(path: Path, told: Mapping[str, Any], *, folder: Folder | None, ids: bool) -> Resources | None:
    """What one level of an assistant file may read, its files copied into the folder (or only hashed, without one).
    `ids`: ids of existing files and stores, too. Raises AssistantError for a file that can no longer be read."""

    def refs(tool: str, keep: Callable[[Path], FileRef]) -> tuple[FileRef, ...]:
        paths = [file for name in table(told, tool).get("files", []) for file in expand(path.parent, name, tool)]
        return tuple({ref.identity: ref for ref in map(keep, paths)}.values())

    keep = hashed if folder is None else folder.keep
    try:
        code, searched = refs(CODE, keep), refs(SEARCH, keep)
    except (OSError, Unfit) as error:
        reason = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or "a file"
        raise AssistantError(
            [Problem(file=str(path), message=f"{where} cannot be copied: {reason}")], remedy="Nothing was queued."
        ) from error
    search = table(told, SEARCH)
    names = search.get("stores", [])
    store = None
    if names or searched:
        store = StoreRef(name=names[0] if names else None, files=searched if "files" in search else None)
    found = Resources(
        code=code,
        store=store,
        file_ids=tuple(table(told, CODE).get("file_ids", ())) if ids else (),
        vector_store_ids=tuple(search.get("vector_store_ids", ())) if ids else (),
    )
    return None if found == Resources() else found


def remote_ids(told: Mapping[str, Any]) -> dict[str, Any]:
    """What `[tool_resources]` says of objects that exist already, in the service's own form."""
    known = {CODE: "file_ids", SEARCH: "vector_store_ids"}
    return {
        tool: {key: value for key, value in part.items() if key == known[tool]}
        for tool, part in told.items()
        if isinstance(part, Mapping) and (not part or known[tool] in part)
    }
