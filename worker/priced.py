"""What a reply has cost by the price in the assistant's own file, where the service's prices are not known."""

from __future__ import annotations

import dataclasses

from askq.assistants.model import Assistant
from askq.jobs.model import Answer
from askq.prices import priced
from worker.protocols.base import Status


def priced_status(status: Status, assistant: Assistant) -> Status:
    """A status with its cost filled in."""
    if assistant.price is None or status.usage is None:
        return status
    answer = None if status.answer is None else priced_answer(status.answer, assistant)
    return dataclasses.replace(status, usage=priced(status.usage, assistant), answer=answer)


def priced_answer(answer: Answer, assistant: Assistant) -> Answer:
    """An answer that brings its usage along, with its cost filled in."""
    if assistant.price is None or answer.usage is None:
        return answer
    return dataclasses.replace(answer, usage=priced(answer.usage, assistant))
