"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from config.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
MILLIONTH, MOST_DOLLARS = 0.000001, 1_000_000_000.0
"""What a budget may be: it is kept in millionths of a dollar."""


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
            "file_column": options.pop("file_column"),
            "image_column": options.pop("image_column"),
            "attach": not options.pop("no_files"),
            "thread_column": options.pop("thread_column"),
            "format": options.pop("input_format"),
            "template": options.pop("template"),
            "split": options.pop("split"),
            "encoding": options.pop("encoding"),
        }
        return command(*args, reading=reading, **options)

    for option in (
        click.option("--column", metavar="NAME", help="The column with the questions."),
        click.option("--id-column", metavar="NAME", help="The column with the ids."),
        click.option("--file-column", metavar="NAME", help="The column with paths of files that go along."),
        click.option("--image-column", metavar="NAME", help="The column with images: paths or addresses."),
        click.option("--no-files", is_flag=True, help="Columns called file or image are only text."),
        click.option(
            "--thread-column", metavar="NAME", help="The column that says which conversation a question belongs to."
        ),
        click.option("--template", metavar="TEXT", help="Build questions from columns: 'Translate to {lang}: {text}'."),
        click.option("--encoding", metavar="NAME", help="How the file is encoded, e.g. cp949; else found out."),
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


class Dollars(click.FloatRange):
    """An amount of US dollars that something may cost: neither nothing nor everything."""

    def __init__(self) -> None:
        super().__init__(min=MILLIONTH, max=MOST_DOLLARS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        amount = super().convert(value, param, ctx)
        if math.isnan(amount):
            # No comparison says that it is out of the range.
            self.fail(f"{value!r} is no amount of dollars.", param, ctx)
        return amount

    def _describe_range(self) -> str:
        return "x>0"


class Seconds(click.FloatRange):
    """A time to wait: a number, so neither `nan`, which no clock ever reaches, nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


budget_option = click.option(
    "--max-cost",
    type=Dollars(),
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
