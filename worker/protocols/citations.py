"""What an answer cites: the file's name, the passage it stands on, and where in the answer it is cited.

A service names a file and gives the passages its search has found beside the answer, not the one that was used. So the
quote is the found passage of that file which has most words in common with the sentence before the citation; it is
always a part of the file, word for word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.protocols.fields import JsonObject, a_text, an_object, objects

LONGEST_QUOTE = 1_000
"""Characters of a quoted passage."""
_AROUND = 400
"""Characters of the answer before a citation that say what it is about."""
_WORD = re.compile(r"\w{2,}")
_PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that a search has found."""

    file_id: str
    filename: str | None
    text: str
    score: float | None


def passages(results: object) -> list[Passage]:
    """The passages in the results of a search, in the shape of either protocol."""
    found = []
    for result in objects(results):
        text = a_text(result.get("text"))
        if not text:
            # Assistants gives a list of parts.
            text = "\n".join(a_text(part.get("text")) for part in objects(result.get("content")))
        score = result.get("score")
        found.append(
            Passage(
                file_id=a_text(result.get("file_id")),
                filename=a_text(result.get("filename")) or a_text(result.get("file_name")) or None,
                text=text,
                score=float(score) if isinstance(score, (int, float)) else None,
            )
        )
    return found


def resolved(
    citations: Sequence[Mapping[str, Any]], text: str, found: Sequence[Passage]
) -> tuple[Mapping[str, Any], ...]:
    """The citations of a text with names and quotes. Others than those of files are left as they are."""
    return tuple(_resolved(citation, text, found) for citation in citations)


def _resolved(citation: Mapping[str, Any], text: str, found: Sequence[Passage]) -> Mapping[str, Any]:
    if citation.get("type") != "file_citation":
        return citation
    mine = [passage for passage in found if passage.file_id == citation.get("file_id")]
    index = citation.get("index")
    at = index if isinstance(index, int) and 0 < index <= len(text) else len(text)
    best = max(mine, key=lambda passage: _rank(passage, text[max(0, at - _AROUND) : at]), default=None)
    filename = citation.get("filename") or next((passage.filename for passage in mine if passage.filename), None)
    quote = citation.get("quote") or (None if best is None else _quoted(best.text, text[max(0, at - _AROUND) : at]))
    told = {**citation, "filename": filename, "quote": quote}
    if best is not None and best.score is not None:
        told["score"] = best.score
    return {name: value for name, value in told.items() if value is not None}


def _rank(passage: Passage, around: str) -> tuple[float, float]:
    return _shared(passage.text, around), passage.score or 0.0


def _shared(text: str, around: str) -> float:
    wanted = set(_WORD.findall(around.casefold()))
    return len(wanted & set(_WORD.findall(text.casefold()))) / (len(wanted) or 1)


def _quoted(text: str, around: str) -> str | None:
    """The part of a passage that is quoted: all of a short one, else its best paragraph."""
    whole = text.strip()
    if len(whole) > LONGEST_QUOTE:
        parts = [part.strip() for part in _PARAGRAPH.split(whole) if part.strip()]
        whole = max(parts, key=lambda part: _shared(part, around))
    return (whole if len(whole) <= LONGEST_QUOTE else f"{whole[: LONGEST_QUOTE - 1]}…") or None


def found_by(step: JsonObject) -> list[Passage]:
    """The passages found in one tool call of a run's step (Assistants)."""
    return passages(an_object(step.get("file_search")).get("results"))
