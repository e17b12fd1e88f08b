"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from config.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def bounds(settings: Settings) -> dict[str, Any]:
    """How long a list and a question may be, as the readers take it."""
    return {"max_rows": settings.max_rows, "max_question_bytes": settings.max_question_bytes}


def input_options(command: F) -> F:
    """How a list is to be read; arrives as the mapping `reading`."""

    @wraps(command)
    def gathered(*args: Any, **options: Any) -> Any:
        reading = {
            "column": options.pop("column"),
            "id_column": options.pop("id_column"),
            "format": options.pop("input_format"),
            "template": options.pop("template"),
            "split": options.pop("split"),
        }
        return command(*args, reading=reading, **options)

    for option in (
        click.option("--column", metavar="NAME", help="The column with the questions."),
        click.option("--id-column", metavar="NAME", help="The column with the ids."),
        click.option("--template", metavar="TEXT", help="Build questions from columns: 'Translate to {lang}: {text}'."),
        click.option("--split", type=click.Choice(["line", "blank-line"]), help="What separates questions in a text."),
        click.option(
            "--format",
            "input_format",
            metavar="NAME",
            help="txt, csv, tsv, json, jsonl or openai; else found out.",
        ),
    ):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]  # a decorated command takes the place of the function


budget_option = click.option(
    "--max-cost",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="Ask no question that could take the batch above this; needs max_output_tokens in the assistant's file.",
)


def assistant_options(command: F) -> F:
    """Who is to answer, and how runs are spoken."""
    for option in (
        click.option("-a", "--assistant", metavar="NAME", help="Who answers: a file of assistants/, or a path."),
        click.option(
            "--protocol",
            type=click.Choice(["responses", "assistants"]),
            help="How runs are spoken; stronger than the assistant's file.",
        ),
    ):
        command = option(command)
    return command
