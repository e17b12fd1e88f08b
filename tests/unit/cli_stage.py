"""The command line on a stage: what a command says, and workers that end jobs as told."""

from __future__ import annotations

from collections.abc import Callable

from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import FINISHING, Answer, Lane, Move, State, Usage

Asked = Callable[..., tuple[int, str, str]]
"""Runs a command; exit code, standard output, standard error."""


def end_all(store: MemoryStore, states: dict[str, State] | None = None) -> None:
    """End every job, as a worker would: completed, or as told by row id."""
    for claim in store.claim(Lane.START, range(16), limit=1000, lease_s=60):
        row = claim.id.partition(".")[2]
        state = (states or {}).get(row, State.COMPLETED)
        store.commit([Move(job=claim.id, fence=claim.fence, name="intend", fields={"attempts": 1})])
        answer = Answer(text=f"answer {row}", code=({"input": "print(2)", "output": "2"},), usage=Usage(total_tokens=7))
        fields = {} if state is State.COMPLETED else {"error_code": "server_error", "error_message": "oops"}
        move = Move(job=claim.id, fence=claim.fence, name=FINISHING[state], fields=fields, answer=answer)
        (outcome,) = store.commit([move])
        assert outcome == "moved"
