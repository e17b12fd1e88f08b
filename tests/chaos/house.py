"""The function that the tools part has called, and its diary: what was begun and ended, written by itself.

Its output follows from its arguments alone; what it prints, which askq keeps with the call, tells one execution from
another.
"""

from __future__ import annotations

import os
import time
import uuid

from askq.tools import tool

DIARY = "CHAOS_DIARY"
"""The variable that names the file."""
LONGEST_S = 0.3


def output(question: str, part: int) -> str:
    """What it returns."""
    return f"part {part} of <{question}>"


@tool(timeout_s=30)
def work(question: str, part: int) -> str:
    """Do a part of what a question needs.

    Args:
        question: The question.
        part: Which part.
    """
    execution = uuid.uuid4().hex
    _note("begin", question, part, execution)
    # Equal calls take equally long, as runs do.
    time.sleep(LONGEST_S * (hash_of(f"{question}/{part}") % 100) / 100)
    os.write(1, execution.encode())
    _note("end", question, part, execution)
    return output(question, part)


def hash_of(text: str) -> int:
    """The same in every process."""
    return sum(text.encode())


def _note(what: str, question: str, part: int, execution: str) -> None:
    line = f"{time.time():.6f}\t{what}\t{part}\t{question}\t{execution}\t{os.getpid()}\n"
    diary = os.open(os.environ[DIARY], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(diary, line.encode())
    os.close(diary)
