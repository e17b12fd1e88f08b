"""What is asked, and what must come of it: the answer and the end are functions of the question's kind and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from askq.assistants.model import ProtocolName
from askq.jobs.model import State

PLAIN = "plain"
TALK = "talk"
"""A question of a conversation: its answer quotes all that the user has said before in it."""

FILES = 6
"""Different files that are attached; what the code of a run makes depends on which."""

_SCRIPTED: Mapping[str, Mapping[str, Any]] = {
    "unknown": {"statuses": ["queued", "warming_up", "in_progress"]},
    "expired": {"status": "expired"},
    "incomplete": {"status": "incomplete", "partial": "Half of: {question}"},
    "cancelled": {"status": "cancelled"},
    "failed": {"status": "failed", "error": {"code": "rate_limit_exceeded"}},
    "stuck": {"status": "stuck"},
    "slow": {"duration": [12, 15]},
}
"""Kinds of questions whose runs the script ends otherwise; the kind stands in the question in brackets."""

ODD = tuple(kind for kind in _SCRIPTED if kind != "slow")

_ENDS: Mapping[str, State] = {
    PLAIN: State.COMPLETED,
    "unknown": State.COMPLETED,
    "expired": State.EXPIRED,
    "incomplete": State.INCOMPLETE,
    "cancelled": State.CANCELLED,
    "failed": State.FAILED,
    "stuck": State.EXPIRED,
    "slow": State.COMPLETED,
    TALK: State.COMPLETED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One row the producer was told to ask: a line of its file, which is written before anything is submitted."""

    key: str
    """Idempotency key of the list the row belongs to."""
    row: str
    text: str
    kind: str
    protocol: ProtocolName
    thread: str | None = None
    before: tuple[str, ...] = ()
    """What was asked before in the conversation."""
    file: str | None = None
    """Path of the file that goes along."""
    tool: str | None = None
    """What the file is for."""

    @classmethod
    def of(cls, key: str, number: int, protocol: ProtocolName, kind: str = PLAIN) -> Self:
        """The n-th question of a list. Its row id begins with its kind, so that faults can be aimed by metadata."""
        text = f"[{kind}] What is {number} squared, as {key} asks?"
        return cls(key=key, row=f"{kind}-{number:05d}", text=text, kind=kind, protocol=protocol)

    @classmethod
    def with_file(cls, key: str, number: int, protocol: ProtocolName, folder: Path, tool: str) -> Self:
        """The n-th question of a list, about one of a few files."""
        which = number % FILES
        name = f"표 {which}.csv" if tool == "code_interpreter" else f"글 {which}.md"
        text = f"[{tool}{which}] What does row {number} of {key} say?"
        # Faults are aimed at row ids that begin so.
        row = f"{PLAIN}-{tool}-{number:05d}"
        return cls(key=key, row=row, text=text, kind=PLAIN, protocol=protocol, file=str(folder / name), tool=tool)

    @classmethod
    def talk(cls, key: str, number: int, turns: int, protocol: ProtocolName) -> list[Self]:
        """The n-th conversation of a list. Every second one asks the same words over and over."""
        said: list[str] = []
        rows = []
        for turn in range(turns):
            what = f"turn {turn}" if number % 2 == 0 else "and again"
            text = f"[{TALK}] {key} {number}: {what}, 그다음은?"
            row = f"{TALK}-{number:04d}-{turn}"
            rows.append(
                cls(
                    key=key,
                    row=row,
                    text=text,
                    kind=TALK,
                    protocol=protocol,
                    thread=f"대화 {number}",
                    before=tuple(said),
                )
            )
            said.append(text)
        return rows

    def item(self) -> dict[str, str]:
        """The row as it is submitted."""
        more = {"thread": self.thread, "file": self.file}
        return {"id": self.row, "question": self.text} | {name: value for name, value in more.items() if value}

    def end(self) -> State:
        """How the job ends when every call comes through."""
        if self.kind == "expired" and self.protocol == "responses":
            return State.FAILED  # Responses know no expiry
        return _ENDS[self.kind]

    def ends(self) -> set[State]:
        """How the job may end. Once its deadline has passed, nobody can tell whose cancel it was that a run obeyed."""
        return {self.end(), State.EXPIRED} if self.kind == "cancelled" else {self.end()}

    def answer(self) -> str | None:
        """The text that is right, and no other."""
        if self.kind == TALK:
            return f"{len(self.before)} before: {' | '.join(self.before)}; now: {self.text}"
        if self.file is not None:
            return f"Answer to: {self.text} from {Path(self.file).name}"
        match self.end():
            case State.COMPLETED:
                return f"Answer to: {self.text}"
            case State.INCOMPLETE:
                return f"Half of: {self.text}"
        return None


def made_of(which: int) -> str:
    """What code makes of one of the files."""
    return f"made of file {which}\n" * 100


def write(path: Path, rows: list[Asked]) -> None:
    """Add rows to the producer's file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def read(path: Path) -> list[Asked]:
    """The producer's file."""
    with path.open(encoding="utf-8") as file:
        return [Asked(**{**(row := json.loads(line)), "before": tuple(row["before"])}) for line in file]


def script(duration: tuple[float, float]) -> dict[str, Any]:
    """The script of the local API."""
    about_files: list[dict[str, Any]] = []
    for which in range(FILES):
        answer = {"answer": "Answer to: {question} from {attached}", "duration": list(duration)}
        code = {"input": f"count({which})", "logs": f"log {which}", "images": [f"../chart {which}.png"]}
        code["files"] = [{"name": f"made {which}.csv", "text": made_of(which)}]
        about_files.append({"contains": f"[code_interpreter{which}]", "code": [code], **answer})
        found = {"file": f"글 {which}.md", "text": f"text {which}", "score": 0.9}
        search = {"search": [{"results": [found]}], "citations": [f"글 {which}.md"]}
        about_files.append({"contains": f"[file_search{which}]", **search, **answer})
    talk = {"contains": f"[{TALK}]", "answer": "{earlier_count} before: {earlier}; now: {question}"}
    return {
        "default": {"answer": "Answer to: {question}", "duration": list(duration)},
        "rule": [{"contains": f"[{kind}]", **effects} for kind, effects in _SCRIPTED.items()]
        + [talk | {"duration": list(duration)}]
        + about_files,
    }
