"""From a draft to a question, or to everything that is wrong with it."""

from __future__ import annotations

import json
import re

from askq.ids import ROW_ID_LIMIT
from askq.jobs.model import Question
from producer.questions.attachments import Attachments
from producer.questions.reading import Draft, Fault, quoted

THREAD_LIMIT = 256
"""Characters the name of a conversation may have."""
_PLAIN_ID = re.compile(rf"[A-Za-z0-9_.:#@+=-]{{1,{ROW_ID_LIMIT}}}")


class RowChecks:
    """The bounds of one list. `max_question_bytes` (UTF-8) holds for the question, for the instructions, and for all
    other columns of a row together. `attachments` looks at what rows name besides their question."""

    def __init__(self, *, max_question_bytes: int, attachments: Attachments) -> None:
        self._most = max_question_bytes
        self._attachments = attachments

    def question(self, draft: Draft, index: int) -> Question | list[Fault]:
        """The question with this position in the list, or what is wrong with the row."""
        faults: list[Fault] = []
        row_id = self._row_id(draft, index, faults)
        text = draft.text
        if text is None or text == "":
            faults.append(Fault(draft.line, "the question is empty", draft.text_column))
        elif not isinstance(text, str):
            faults.append(Fault(draft.line, f"the question must be text, not {_kind(text)}", draft.text_column))
        else:
            self._text(text, draft, faults)
        thread = self._thread(draft, faults)
        assistant = self._aside(draft.assistant, "assistant", draft, faults)
        model = self._aside(draft.model, "model", draft, faults)
        instructions = self._aside(draft.instructions, "instructions", draft, faults)
        files = self._attachments.of(draft, assistant, faults)
        if draft.size * 4 > self._most:
            self._sizes(draft, instructions, faults)
        if faults:
            return faults
        assert isinstance(text, str)
        return Question(
            row_id=row_id,
            index=index,
            text=text,
            assistant=assistant,
            model=model,
            instructions=instructions,
            files=files,
            thread=thread,
            input=draft.input,
        )

    def _text(self, text: str, draft: Draft, faults: list[Fault]) -> None:
        if text.isspace():
            faults.append(Fault(draft.line, "the question is empty", draft.text_column))
        elif "\0" in text:
            faults.append(Fault(draft.line, "there is a NUL character in the question", draft.text_column))
        elif len(text) * 4 > self._most and (size := len(text.encode())) > self._most:
            faults.append(
                Fault(
                    draft.line,
                    f"the question has {size:,} bytes; at most {self._most:,} are allowed (ASKQ_MAX_QUESTION_BYTES)",
                    draft.text_column,
                )
            )

    def _row_id(self, draft: Draft, index: int, faults: list[Fault]) -> str:
        # Numbered by position alone, not by how many rows there are: a stream has no total.
        given = draft.row_id
        if isinstance(given, int) and not isinstance(given, bool):
            given = str(given)
        if given is None:
            return f"q{index + 1:04d}"
        if not isinstance(given, str):
            faults.append(
                Fault(draft.line, f"the id must be text or a whole number, not {_kind(given)}", draft.id_column)
            )
            return ""
        row_id = given.strip()
        if not row_id:
            return f"q{index + 1:04d}"
        if _PLAIN_ID.fullmatch(row_id) is None or row_id in (".", ".."):
            if len(row_id) > ROW_ID_LIMIT:
                wrong = f"has {len(row_id):,} characters; at most {ROW_ID_LIMIT} are allowed"
            elif row_id in (".", ".."):
                wrong = "would be a folder's name"
            elif bad := next((char for char in row_id if char in "/ " or not char.isprintable()), None):
                wrong = f"may not contain {_character(bad)}"
            else:
                return row_id
            faults.append(Fault(draft.line, f"the id {quoted(row_id)} {wrong}", draft.id_column))
        return row_id

    @staticmethod
    def _thread(draft: Draft, faults: list[Fault]) -> str | None:
        """The conversation the row belongs to; an empty cell means that it stands alone."""
        value = draft.thread
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None:
            return None
        if not isinstance(value, str):
            wrong = f"the conversation must be text or a whole number, not {_kind(value)}"
            faults.append(Fault(draft.line, wrong, draft.thread_column))
            return None
        thread = value.strip()
        if "\0" in thread:
            faults.append(Fault(draft.line, "there is a NUL character in the conversation's name", draft.thread_column))
        elif len(thread) > THREAD_LIMIT:
            wrong = f"the conversation's name has {len(thread):,} characters; at most {THREAD_LIMIT} are allowed"
            faults.append(Fault(draft.line, wrong, draft.thread_column))
        return thread or None

    @staticmethod
    def _aside(value: object, name: str, draft: Draft, faults: list[Fault]) -> str | None:
        """The row's own assistant, model or instructions; an empty cell means that it has none."""
        if value is None:
            return None
        if not isinstance(value, str):
            faults.append(Fault(draft.line, f"{name} must be text, not {_kind(value)}"))
            return None
        if "\0" in value:
            faults.append(Fault(draft.line, f"there is a NUL character in {name}"))
        return value.strip() or None

    def _sizes(self, draft: Draft, instructions: str | None, faults: list[Fault]) -> None:
        sizes = {
            "the instructions have": len(instructions.encode()) if instructions else 0,
            "the other columns have": len(json.dumps(dict(draft.input), ensure_ascii=False).encode()),
        }
        for what, size in sizes.items():
            if size > self._most:
                faults.append(
                    Fault(
                        draft.line,
                        f"{what} {size:,} bytes; at most {self._most:,} are allowed (ASKQ_MAX_QUESTION_BYTES)",
                    )
                )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a number"


def _character(char: str) -> str:
    if char == "/":
        return "a slash"
    return "blanks" if char.isspace() else f"the invisible character U+{ord(char):04X}"
