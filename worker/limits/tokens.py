"""How many tokens a run will count for, before anybody has counted.

Services reserve what the request asks for: its text, and the longest answer it may get. What this estimate misses
(files, tools, a language whose words are many tokens) is made up for by what runs have really used: the limit's record
keeps that ratio.
"""

from __future__ import annotations

import math

from worker.protocols.base import Ask

BYTES_PER_TOKEN = 4
UNBOUNDED_ANSWER = 256
"""Tokens of an answer nobody has bounded."""


def estimated(ask: Ask) -> float:
    """Tokens a run is expected to count for."""
    text = ask.text + (ask.instructions or ask.assistant.instructions or "")
    read = math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)
    answer = ask.assistant.max_output_tokens
    return float(ask.history + read + (UNBOUNDED_ANSWER if answer is None else answer))
