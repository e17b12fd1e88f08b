"""The look at answers on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.cells import cell_len

from askq.jobs.model import Answer, Job, Question, State
from producer.answers.table import print_table


def job(number: int, text: str, *, answer: str | None, state: State = State.COMPLETED, code: str | None = None) -> Job:
    row_id = f"q{number:04d}"
    return Job(
        id=f"b_1.{row_id}",
        index=number,
        state=state,
        question=Question(row_id=row_id, index=number, text=text),
        assistant="tutor",
        assistant_digest="d",
        protocol="responses",
        error_code=code,
        error_message="as the service said" if code else None,
        answer=None if answer is None else Answer(text=answer),
    )


def shown(jobs: list[Job], *, width: int = 80, limit: int | None = 20, total: int | None = None) -> str:
    file = io.StringIO()
    print_table(jobs, file=file, width=width, limit=limit, total=total, color=False)
    return file.getvalue()


def test_a_table() -> None:
    jobs = [
        job(1, "What is\n2+2?", answer="[bold]4[/bold]  :smile:"),
        job(2, "Why?", answer=None, state=State.FAILED, code="server_error"),
        job(3, "Half?", answer="partial", state=State.INCOMPLETE, code="max_output_tokens"),
        job(4, "Now?", answer=None, state=State.RUNNING),
    ]
    assert [line.rstrip() for line in shown(jobs, width=100).splitlines()] == [
        "ID     STATUS      QUESTION      ANSWER",
        "q0001  completed   What is 2+2?  [bold]4[/bold] :smile:",
        "q0002  failed      Why?          server_error: as the service said",
        "q0003  incomplete  Half?         max_output_tokens: as the service said partial",
        "q0004  running     Now?",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_wide_characters_keep_the_columns_straight(width: int) -> None:
    jobs = [
        job(1, "光の速さは何ですか？" * 10, answer="約30万キロメートル毎秒です。" * 10),
        job(2, "short", answer="short"),
        job(3, "👩‍🚀🦊" * 40, answer="e\u0301" * 200),
    ]
    lines = shown(jobs, width=width).splitlines()
    assert len(lines) == 4
    assert all(cell_len(line) <= width for line in lines)
    assert cell_len(lines[1].partition("光")[0]) == cell_len(lines[2].partition("short")[0])


def test_a_long_question_does_not_push_the_rest_away() -> None:
    jobs = [job(1, "long question " * 20, answer="a short answer"), job(2, "q", answer="b")]
    first = shown(jobs, width=60).splitlines()[1]
    assert first.startswith("q0001  completed  long question long qu")
    assert first.rstrip().endswith("…  a short answer")
    jobs = [job(1, "a short question", answer="long answer " * 20)]
    assert "  a short question  long answer" in shown(jobs, width=60)
    jobs = [job(1, "long question " * 20, answer="long answer " * 20)]
    assert shown(jobs, width=60).splitlines()[1] == "q0001  completed  long question l…  long answer long answer…"


def test_nothing_a_terminal_obeys_gets_through() -> None:
    out = shown([job(1, "a\x1b[2Jb\x07", answer="\x1b]0;title\x07x\ry\u202e")])
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert "ab" in out
    assert "x y" in out


def test_the_first_of_many() -> None:
    jobs = [job(number, "q", answer="a") for number in range(30)]
    out = shown(jobs, limit=5, total=1_030)
    assert len(out.splitlines()) == 7
    assert out.endswith("… and 1,025 more\n")
    assert len(shown(jobs, limit=None, total=30).splitlines()) == 31


def test_colours_only_where_wanted() -> None:
    file = io.StringIO()
    assert print_table([job(1, "q", answer="a")], file=file, width=80, color=True) == 1
    assert "\x1b[32mcompleted" in file.getvalue()
    assert "\x1b" not in shown([job(1, "q", answer="a")])


def test_rich_is_imported_only_to_draw() -> None:
    program = "import sys, producer.answers, producer.questions; print('rich' in sys.modules, 'openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False False\n"
