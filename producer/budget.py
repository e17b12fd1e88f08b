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
    host = urlsplit(address).hostname or ""
    asked: dict[tuple[str, str | None], Assistant] = {
        (assistant.name, None): assistant for assistant in (submission.assistant, *submission.others.values())
    }
    seen: set[str] = set()
    for question in submission.rows_asked():
        if any(file.is_image for file in question.files):
            seen.add(
                (submission.assistant if question.assistant is None else submission.others[question.assistant]).name
            )
        if question.model is not None:
            named = submission.assistant if question.assistant is None else submission.others[question.assistant]
            asked.setdefault((named.name, question.model), dataclasses.replace(named, model=question.model))
    for assistant in asked.values():
        _require_bound(assistant, host, images=assistant.name in seen)
    return dataclasses.replace(submission, max_cost_usd=max_cost_usd)


def _require_bound(assistant: Assistant, host: str, *, images: bool) -> None:
    # Here, because the price list costs more than most commands, and few lists have a budget.
    from askq.prices import at_worst

    if assistant.max_output_tokens is None:
        raise InputError(
            f"nothing bounds what assistant {assistant.name} may cost: its file sets no max_output_tokens",
            remedy="Set max_output_tokens, or leave out --max-cost.",
        )
    if assistant.tools and assistant.max_prompt_tokens is None:
        raise InputError(
            f"nothing bounds what the tools of assistant {assistant.name} may read: its file sets no max_prompt_tokens",
            remedy="Set max_prompt_tokens, or leave out --max-cost.",
        )
    if images and assistant.max_prompt_tokens is None:
        raise InputError(
            f"nothing bounds what the images for assistant {assistant.name} may cost: its file sets no "
            "max_prompt_tokens",
            remedy="Set max_prompt_tokens, or leave out --max-cost.",
        )
    if at_worst(assistant, assistant.model, host, ()) is None:
        raise InputError(
            f"the price of model {assistant.model} at {host} is not known",
            remedy=f"Put it into the file of assistant {assistant.name}, in US dollars per million tokens: "
            "price = { input = 0.75, output = 4.5 }",
        )
