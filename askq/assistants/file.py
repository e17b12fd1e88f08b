"""Assistant files: finding them, and making an assistant of one that has nothing wrong."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from askq.assistants import choice, functions
from askq.assistants.local_files import LEVELS, level, remote_ids, resources
from askq.assistants.model import Assistant, ProtocolName
from askq.assistants.notation import completion_window, flat_tool, schema, seconds, table, text_of
from askq.errors import AssistantError, Problem
from askq.files.folder import Folder
from askq.files.kinds import SEARCH

__all__ = ["check", "describe", "find", "load", "names", "schema"]

_TIMEOUT_S = {"assistants": 900.0, "responses": 3600.0}
_WINDOW_S = {"2h": 3 * 3600.0, "8h": 9 * 3600.0}
"""Deadlines where the file sets none: the service's own bound, or the window, with some grace (protocols F.4)."""


def names(folder: Path) -> list[str]:
    """Names of the assistants that can be asked: the folder's, then those that came with askq."""
    own = {path.stem for path in folder.glob("*.toml")} if folder.is_dir() else set()
    return sorted(own | {path.stem for path in _shipped().glob("*.toml")})


def load(
    name: str | Path,
    *,
    folder: Path,
    default_model: str,
    default_protocol: ProtocolName,
    files: Folder | None = None,
) -> Assistant:
    """The assistant of this name, or of the file at this path. Local files that it names are copied into `files`.

    Raises AssistantError with every problem of the file, or with the names that exist.
    """
    path = find(name, folder=folder)
    values, problems = _read(path)
    if problems:
        raise AssistantError(problems, remedy=f"`askq assistants validate {path}` checks it again.")
    return _build(path, values, default_model, default_protocol, files)


def check(path: Path) -> list[Problem]:
    """Everything wrong with one file; an empty list when it can be used."""
    return _read(path)[1]


def find(name: str | Path, *, folder: Path) -> Path:
    """The file of an assistant. Raises AssistantError when there is none."""
    text = str(name)
    known = names(folder)
    if text.endswith(".toml") or "/" in text:
        # A bare `support.toml` is taken for the folder's, unless there is one here.
        for path in (Path(text), folder / text):
            if path.is_file():
                return path
        remedy = f"Check the path, or choose one by its name: {', '.join(known)}."
        raise AssistantError(f"there is no assistant file {text}", remedy=remedy)
    # A Mac writes the letters of a file's name in pieces, and a keyboard does not.
    spelt = [
        text,
        *(name for name in known if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", text)),
    ]
    for spelling in spelt:
        for place in (folder, _shipped()):
            if (place / f"{spelling}.toml").is_file():
                return place / f"{spelling}.toml"
    near = difflib.get_close_matches(text, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise AssistantError(
        f"there is no assistant called {text!r} in {folder}; known: {', '.join(known) or 'none'}.{hint}",
        remedy=f"Write {folder / text}.toml, or choose one with --assistant.",
    )


def describe(assistant: Assistant) -> dict[str, Any]:
    """What `askq assistants show --json` prints."""
    values = dataclasses.asdict(assistant)
    del values["_digest"]
    return {**values, "digest": assistant.digest}


def _shipped() -> Path:
    """The assistants that came with askq: the wheel carries the repository's `assistants/` here."""
    inside = Path(str(importlib.resources.files("askq.assistants"))) / "shipped"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "assistants"


def _read(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    # Here, because the validator costs more than a whole `askq status`, which reads no assistant.
    from askq.assistants.checks import read

    return read(path)


def _build(
    path: Path,
    values: Mapping[str, Any],
    default_model: str,
    default_protocol: ProtocolName,
    files: Folder | None,
) -> Assistant:
    protocol: ProtocolName = values.get("protocol") or values.get("api") or default_protocol
    instructions = values.get("instructions")
    if "instructions_file" in values:
        instructions = text_of(path.parent / values["instructions_file"]).strip()
    # Only Responses has windows; the deadline must not wait for one that is not asked for.
    own = level(values, LEVELS["assistant"])
    window = completion_window(values) if protocol == "responses" else None
    run = table(values, "run")
    timeout_s = seconds(run["timeout"]) if "timeout" in run else None
    wanted = dict(table(table(values, "text"), "format") or table(values, "response_format"))
    if "schema_file" in wanted:
        wanted["schema"] = json.loads(text_of(path.parent / wanted.pop("schema_file")))
    return Assistant(
        name=path.stem,
        protocol=protocol,
        model=values.get("model", default_model),
        assistant_id=values.get("assistant_id") if protocol == "assistants" else None,
        description=values.get("description"),
        instructions=instructions,
        temperature=values.get("temperature"),
        top_p=values.get("top_p"),
        tools=tuple(flat_tool(tool) for tool in values.get("tools", [])),
        tool_choice=choice.flat(values.get("tool_choice")),
        parallel_tool_calls=values.get("parallel_tool_calls"),
        tool_resources=remote_ids(own),
        resources=resources(path, own, folder=files, ids=False),
        thread_resources=resources(path, level(values, LEVELS["thread"]), folder=files, ids=True),
        on_failed_file=table(own, SEARCH).get("on_failed_file", "stop"),
        reasoning_effort=values.get("reasoning_effort") or table(values, "reasoning").get("effort"),
        text_format=wanted or None,
        on_invalid=table(values, "text").get("on_invalid", "fail"),
        max_output_tokens=values.get("max_output_tokens") or values.get("max_completion_tokens"),
        max_prompt_tokens=values.get("max_prompt_tokens"),
        truncation=values.get("truncation"),
        service_tier=values.get("service_tier"),
        completion_window=window,
        timeout_s=timeout_s or _WINDOW_S.get(window or "", _TIMEOUT_S[protocol]),
        on_uncertain=run.get("on_uncertain", "fail"),
        on_failure=table(values, "thread").get("on_failure", "stop"),
        price=values.get("price"),
        limits=values.get("limits") or None,
        keep=values.get("keep") or None,
        metadata=values.get("metadata", {}),
        functions=values.get(functions.DESCRIBED) or None,
        max_rounds=run.get("max_rounds"),
    )
