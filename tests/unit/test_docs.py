"""Documents tell the truth: generated pages are fresh, links lead somewhere, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.build import PAGES
from producer.cli import cli

ROOT = Path(__file__).parents[2]
WRITTEN = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    if ".venv" not in path.parts
)


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(page: Path) -> None:
    for command in re.findall(r"(?:^|`|\s)askq ([a-z][a-z-]+)\b", page.read_text("utf-8"), re.MULTILINE):
        if command not in _PROSE:
            assert command in cli.list_commands(None), f"{page.name} speaks of `askq {command}`"


# Words that follow the product's name in sentences.
_PROSE = {
    "and", "answers", "asks", "brings", "cannot", "can", "command", "does", "drives", "ends", "gives", "has", "is",
    "keeps", "knows", "looks", "makes", "never", "puts", "says", "sends", "starts", "waits", "with", "works", "writes",
    "does-not",
}  # fmt: skip
