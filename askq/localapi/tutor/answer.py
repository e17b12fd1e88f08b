"""From a question to an answer: recognise, write a program, run it, say what it printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from askq.localapi.tutor.expressions import TooLarge
from askq.localapi.tutor.recognise import recognise
from askq.localapi.tutor.sandbox import Ended, Run, close_shared, shared

QUESTION_LIMIT = 2000
"""Characters; what is longer is no school exercise."""

REAL_MODEL = (
    "For anything else use a real model: set OPENAI_API_KEY for OpenAI's, or answer with a local one such as Ollama's "
    "by `askq local-api --engine chat --chat-url http://127.0.0.1:11434/v1`."
)

_BEYOND = (
    "I cannot answer this. I am askq's offline tutor, not a language model: I compute school mathematics such as "
    "equations, derivatives, integrals, percentages, primes, statistics of a list and geometry."
)

_ENDS: dict[Ended, str] = {
    "error": "it ended with an error ({last})",
    "time": "it took too long and was stopped",
    "memory": "it needed more memory than it may have",
    "output": "it printed more than it may",
    "refused": "the sandbox refused what it tried ({last})",
    "crashed": "it crashed",
    "unavailable": (
        "no confined process could be started on this machine (does `python -c 'import sympy'` work with the Python "
        "that runs askq?)"
    ),
}


_sandbox = shared()


@dataclass(frozen=True, slots=True)
class Solution:
    """An answer, the program it comes from and what that printed.

    Without a program (`code` and `logs` are None) the question is beyond the tutor and the text says so. `failed`:
    there was a program, but it came to no result; the text says why.
    """

    text: str
    code: str | None
    logs: str | None
    failed: bool


async def solve(question: str, history: Sequence[str] = (), replies: Sequence[str] = ()) -> Solution:
    """Answer a question by computing, or say that it cannot be. `history`: earlier messages, oldest first; `replies`:
    those of them that were its own."""
    try:
        found = recognise(question, history, replies) if len(question) <= QUESTION_LIMIT else None
    except TooLarge as exc:
        return Solution(f"This is too large for me to compute: {exc}. {REAL_MODEL}", None, None, failed=False)
    if found is None:
        return Solution(f"{_BEYOND} {REAL_MODEL}", None, None, failed=False)
    _, program = found
    run = await _sandbox.run(program.code)
    lines = [line.strip() for line in run.output.splitlines() if line.strip()]
    if run.ended == "ok" and lines:
        return Solution(program.say(lines), program.code, run.output, failed=False)
    return Solution(_excuse(run, lines), program.code, run.output, failed=True)


def close() -> None:
    """End the sandbox's process. It starts again at need; without this call it ends with the interpreter."""
    close_shared()


def _excuse(run: Run, lines: Sequence[str]) -> str:
    reason = _ENDS.get(run.ended, "it printed nothing").format(last=lines[-1][:200] if lines else "no message")
    return f"I wrote a program for this, but {reason}. {REAL_MODEL}"
