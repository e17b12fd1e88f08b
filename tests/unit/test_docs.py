"""Documents tell the truth: generated pages are fresh, links lead somewhere, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from askq.jobs.model import ASKED_AGAIN, MOVES, PENDING, State
from askq.pauses import PAUSES
from docs.build import PAGES
from producer.cli import cli

ROOT = Path(__file__).parents[2]
WRITTEN = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
    if ".venv" not in path.parts
)


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf-8") == PAGES[name](), "run `make docs`"


def test_the_diagram_and_the_table_have_every_move_and_no_other() -> None:
    page = PAGES["lookup/states.md"]()
    arrows = set(re.findall(r"^ +(\w+) --> (\w+): (\w+)$", page, re.MULTILINE))
    wanted = {
        (source, rule.target, rule.name)
        for rule in MOVES.values()
        if rule.target is not None
        for source in (["pending"] if rule.sources == PENDING else rule.sources)
    }
    assert arrows == wanted | {(end, State.QUEUED, "retry") for end in ASKED_AGAIN}
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {*MOVES, "retry"}
    for command in ("askq retry", "askq cancel"):
        assert command in page


def test_every_pause_has_its_line_with_what_to_do() -> None:
    page = PAGES["lookup/pauses.md"]()
    for code, pause in PAUSES.items():
        (line,) = re.findall(rf"^\| `{code}` \| (.*) \|$", page, re.MULTILINE)
        assert line == f"{'everything' if pause.stops_polls else 'new runs'} | {pause.meaning} | {pause.remedy}"
        assert re.fullmatch(r"[A-Z].{10,140}\.", pause.remedy), "one sentence, one line"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found.read_text("utf-8")), f"{page.name} links to {target}#{anchor}"


def anchors(page: str) -> set[str]:
    """What headings can be linked to by, as GitHub makes it."""
    heads = (head.lower().replace("`", "") for head in re.findall(r"^#+ (.*)$", page, re.MULTILINE))
    return {re.sub(r"[^\w -]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(page: Path) -> None:
    for command in re.findall(r"(?:^|`|\s)askq ([a-z][a-z-]+)\b", page.read_text("utf-8"), re.MULTILINE):
        if command not in _PROSE:
            assert command in cli.list_commands(None), f"{page.name} speaks of `askq {command}`"


# Words that follow the product's name in sentences.
_PROSE = {
    "and", "answers", "asks", "begins", "brings", "cannot", "can", "command", "does", "drives", "ends", "gives", "has",
    "is", "keeps", "knows", "looks", "makes", "never", "puts", "says", "sends", "starts", "waits", "with", "works",
    "writes", "does-not",
}  # fmt: skip
