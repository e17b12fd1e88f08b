"""What can come of a function call other than its result: one table that the worker, the documents and the tests read.

Each is an output that the model can answer: `{"error": {"code": …, "message": …}}`. Only `unavailable` ends the job,
because the fault is in the deployment, and every answer would be made without the function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

MOST_ARGUMENTS_BYTES = 64 * 1024
"""The longest JSON text of arguments that is parsed."""
MOST_LEVELS = 20
"""How deep arguments may be nested."""
MOST_OUTPUT_BYTES = 64 * 1024
"""The longest output that goes to the model."""
MOST_PRINTED = 4000
"""Characters kept of what a function prints."""
MOST_CALLS = 32
"""Calls of one round that are run; the rest get an error."""
MOST_CRASHES = 3
"""Times a call may kill the process that runs it."""
MOST_CLAIMS = 8
"""Times a call may be taken up without coming to its end: each time but the last, a worker died."""

OUTCOMES: Mapping[str, str] = MappingProxyType(
    {
        "unknown_function": "The model called a function that the assistant's file does not name; nothing was run.",
        "bad_arguments": "The arguments are no JSON, too long, or do not fit the function's schema; nothing was run.",
        "too_many_calls": "The call was beyond the 32nd of its round; nothing was run.",
        "exception": "The function raised an exception, or ended the interpreter with `sys.exit`.",
        "timeout": "The function ran longer than its time limit; its process was killed.",
        "memory": "The function ran out of its memory limit.",
        "unserializable": "What the function returned cannot be written as JSON.",
        "too_large": "What the function returned is longer than 64 KiB.",
        "crashed": "The process that ran the function died of it three times (`os._exit`, a segmentation fault).",
        "given_up": "Eight times somebody began with the call and died; perhaps of it.",
        "unknown_outcome": "A function marked `once` was begun, its process died, and nobody knows what it has done.",
        "unavailable": "The worker could not load the function's module. The job ends `function_unavailable`.",
    }
)


def error_output(code: str, message: str) -> str:
    """The output that tells the model of an error."""
    assert code in OUTCOMES
    return json.dumps({"error": {"code": code, "message": message[:2000]}}, ensure_ascii=False)
