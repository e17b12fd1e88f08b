"""What a reply has cost by the price in the assistant's own file."""

from __future__ import annotations

import pytest

from askq.assistants.model import Assistant
from askq.jobs.model import Answer, Usage
from worker.priced import priced_answer, priced_status
from worker.protocols.base import RunState, Status

PRICED = Assistant(name="a", protocol="responses", model="house", price={"input": 1.0, "output": 10.0})
PLAIN = Assistant(name="a", protocol="responses", model="house")
USAGE = Usage(input_tokens=1000, output_tokens=100, total_tokens=1100)


def status(usage: Usage | None, answer: Answer | None = None) -> Status:
    return Status(state=RunState.DONE, raw="completed", run_id="r", usage=usage, answer=answer)


def test_a_status_and_the_answer_it_carries_get_their_cost() -> None:
    found = priced_status(status(USAGE, Answer(text="x", usage=USAGE)), PRICED)
    assert found.usage is not None
    assert found.usage.cost_usd == pytest.approx(0.002)
    assert found.answer is not None
    assert found.answer.usage == found.usage
    assert priced_status(status(USAGE), PRICED).answer is None


@pytest.mark.parametrize(("usage", "assistant"), [(None, PRICED), (USAGE, PLAIN), (None, PLAIN)])
def test_what_has_no_price_or_used_nothing_known_stays_as_it_is(usage: Usage | None, assistant: Assistant) -> None:
    seen, answer = status(usage), Answer(text="x", usage=usage)
    assert priced_status(seen, assistant) is seen
    assert priced_answer(answer, assistant) is answer


def test_a_price_the_service_is_known_for_is_kept() -> None:
    known = Answer(text="x", usage=Usage(input_tokens=1000, total_tokens=1000, cost_usd=5.0))
    assert priced_answer(known, PRICED) == known
