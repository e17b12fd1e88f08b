"""A bound on what a batch may cost: only for assistants of whom it can be said beforehand."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit

from askq.assistants.model import Assistant
from askq.errors import InputError
from producer.submit import Submission


def bounded(submission: Submission, max_cost_usd: float | None, address: str) -> Submission:
    """The submission with a budget of so many US dollars; unchanged for None. `address` is the service's.

    Raises InputError naming what must be known of an assistant first.
    """
    if max_cost_usd is None:
        return submission
    for assistant in (submission.assistant, *submission.others.values()):
        _require_bound(assistant, urlsplit(address).hostname or "")
    return dataclasses.replace(submission, max_cost_usd=max_cost_usd)


def _require_bound(assistant: Assistant, host: str) -> None:
    # Here, because the price list costs more than most commands, and few lists have a budget.
    from askq.prices import at_worst

    if assistant.max_output_tokens is None:
        raise InputError(
            f"nothing bounds what assistant {assistant.name} may cost: its file sets no max_output_tokens",
            remedy="Set max_output_tokens, or leave out --max-cost.",
        )
    if at_worst(assistant, assistant.model, host, ()) is None:
        raise InputError(
            f"the price of model {assistant.model} at {host} is not known",
            remedy=f"Put it into the file of assistant {assistant.name}, in US dollars per million tokens: "
            "price = { input = 0.75, output = 4.5 }",
        )
