"""What the replies of both protocols hold alike: the tokens that were used, and what code has printed and made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from askq.jobs.model import Usage
from worker.protocols.fields import a_count, a_text, an_object, objects

Files = dict[str, Mapping[str, Any]]
"""Files of an answer, by id or address, in the order they were made."""

_LONGEST_OUTPUT = 256 << 10
"""Characters of one code-interpreter call's output that are kept."""


def read_usage(used: object, *, read: str, written: str) -> Usage | None:
    """The tokens of a run, None where nothing is told of them. `read` and `written` are what the protocol calls those
    that went in and those that came out."""
    told = an_object(used)
    if not told:
        return None
    return Usage(
        input_tokens=a_count(told.get(f"{read}_tokens")),
        cached_tokens=a_count(an_object(told.get(f"{read}_tokens_details")).get("cached_tokens")),
        output_tokens=a_count(told.get(f"{written}_tokens")),
        total_tokens=a_count(told.get("total_tokens")),
    )


def read_outputs(outputs: object, files: Files) -> str:
    """What a call of code interpreter has printed. Images that it made go to `files`: Assistants names a file,
    Responses an address."""
    logs = []
    for output in objects(outputs):
        if output.get("type") == "logs":
            logs.append(a_text(output.get("logs")))
        elif output.get("type") == "image":
            file_id, url = a_text(an_object(output.get("image")).get("file_id")), a_text(output.get("url"))
            files.setdefault(file_id or url, {"kind": "image", **({"file_id": file_id} if file_id else {"url": url})})
    return _shortened("\n".join(logs))


def _shortened(output: str) -> str:
    """What code has printed, or its end and beginning: megabytes of it would be kept with the answer."""
    if len(output) <= _LONGEST_OUTPUT:
        return output
    half = _LONGEST_OUTPUT // 2
    left_out = len(output) - 2 * half
    return f"{output[:half]}\n[… {left_out:,} characters are left out here …]\n{output[-half:]}"
