"""Readers of question lists: text, CSV, TSV, JSON, JSON Lines, OpenAI Batch files, standard input, Python values.

with open_list("questions.csv") as questions:
    summary = questions.check()  # raises InputError with every problem and its line
    for question in questions:  # reads the file again; as often as wanted
        ...
"""

from __future__ import annotations

from producer.questions.formats import FORMATS, SUFFIXES
from producer.questions.question_list import (
    MAX_QUESTION_BYTES,
    MAX_ROWS,
    QuestionList,
    Summary,
    from_items,
    open_items,
    open_list,
)

__all__ = [
    "FORMATS",
    "MAX_QUESTION_BYTES",
    "MAX_ROWS",
    "SUFFIXES",
    "QuestionList",
    "Summary",
    "from_items",
    "open_items",
    "open_list",
]
