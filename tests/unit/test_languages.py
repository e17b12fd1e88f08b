"""Korean and every other language, from the file to the terminal and back: nothing is lost, and columns line up."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len

from askq.assistants import file as assistants
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane
from producer.answers.plain import cells, padded
from producer.questions import open_items
from tests.unit.cli_stage import Asked, end_all

ROWS = [
    ("민수-1", "민수의 대화", "프랑스의 수도는 어디예요?", "지리"),
    ("花子-1", "花子さん", "光の速さはどのくらいですか。", "物理"),
    ("ali-1", "محادثة", "ما هي عاصمة فرنسا؟", "جغرافيا"),
    ("민수-2", "민수의 대화", "그 도시의 인구는?", "지리"),
    ("fox", "", "🦊 + 🐇 = ?", "🧮"),
]
HEADER = ("번호", "대화", "질문", "과목")


def listed(folder: Path, *, encoding: str = "utf-8-sig") -> Path:
    path = folder / "질문 목록.csv"
    rows = ROWS if encoding != "cp949" else [row for row in ROWS if row[0].startswith("민수")]
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def submitted(askq: Asked, path: Path) -> str:
    columns = ("--column", "질문", "--id-column", "번호", "--thread-column", "대화")
    code, out, err = askq("submit", path, *columns, "--name", "첫 번째 목록")
    assert code == 0, err
    return out.strip()


def answer_all(store: MemoryStore) -> None:
    """As workers would: whoever follows another waits for its turn."""
    for _ in range(3):
        end_all(store)
        store.wake([job.id for batch in store.batches() for job in store.jobs(batch.id) if not job.state.terminal])


def test_a_table_goes_out_as_it_came_in_with_the_answers_beside_it(
    store: MemoryStore, askq: Asked, tmp_path: Path
) -> None:
    batch = submitted(askq, listed(tmp_path))
    answer_all(store)
    place = tmp_path / "답변.csv"
    assert askq("results", batch, "-o", place)[0] == 0
    assert place.read_bytes().startswith(b"\xef\xbb\xbf"), "a spreadsheet must see that it is UTF-8"
    with place.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row[name] for name in HEADER) for row in rows] == ROWS
    assert [row["answer"] for row in rows] == [f"answer {row[0]}" for row in ROWS]


def test_what_a_korean_spreadsheet_writes_is_read(store: MemoryStore, askq: Asked, tmp_path: Path) -> None:
    batch = submitted(askq, listed(tmp_path, encoding="cp949"))
    code, out, _ = askq("results", batch, "--partial", "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["question"] for line in lines] == ["프랑스의 수도는 어디예요?", "그 도시의 인구는?"]
    assert {line["thread"] for line in lines} == {"민수의 대화"}
    assert "\\u" not in out, "letters are written as they are"


@pytest.mark.parametrize("width", ["48", "80", "120"])
def test_the_columns_of_a_table_stay_straight(
    store: MemoryStore, askq: Asked, tmp_path: Path, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    batch = submitted(askq, listed(tmp_path))
    answer_all(store)
    code, out, _ = askq("results", batch, "--format", "table")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert all(cell_len(line) <= int(width) for line in lines)
    at = cell_len(lines[0].partition("STATUS")[0])
    for line, row in zip(lines[1:], ROWS, strict=True):
        before, found, _ = line.partition("completed")
        assert found
        assert cell_len(before) == at, line
        assert before.strip() == row[0]


def test_what_is_shown_of_a_job_is_aligned(store: MemoryStore, askq: Asked, tmp_path: Path) -> None:
    batch = submitted(askq, listed(tmp_path))
    answer_all(store)
    code, out, _ = askq("show", f"{batch}.민수-2")
    assert code == 0
    assert "thread:     민수의 대화, after 민수-1" in out
    assert "그 도시의 인구는?" in out
    facts = {line.partition(":")[0]: line for line in out.splitlines()[:14] if ": " in line}
    assert cell_len(facts["과목"].partition("지리")[0]) == cell_len(facts["job"].partition(batch)[0])


def test_progress_and_lists_name_things_as_they_are(store: MemoryStore, askq: Asked, tmp_path: Path) -> None:
    batch = submitted(askq, listed(tmp_path))
    code, out, _ = askq("status", batch)
    assert code == 0
    assert "첫 번째 목록" in out
    assert "5 in 3 conversations" in out
    answer_all(store)
    code, out, err = askq("watch", batch)
    assert (code, "5/5 done" in err) == (0, True)
    assert "첫 번째 목록" in askq("list")[1]


def test_the_same_name_composed_in_two_ways_is_one_conversation(
    store: MemoryStore, askq: Asked, tmp_path: Path
) -> None:
    path = tmp_path / "q.jsonl"
    names = [unicodedata.normalize(form, "한국어 대화") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    path.write_text("\n".join(json.dumps({"question": "?", "thread": name}) for name in names), "utf-8")
    code, out, _ = askq("submit", path)
    assert code == 0
    first, second = store.jobs(out.strip())
    assert (first.after, second.after) == (None, "q0001")
    assert [job.question.thread for job in (first, second)] == names


def test_an_assistant_is_found_however_its_name_is_composed(tmp_path: Path) -> None:
    path = tmp_path / f"{unicodedata.normalize('NFD', '수학 선생님')}.toml"
    path.write_text('instructions = "친절하게 가르쳐 주세요."', "utf-8")
    found = assistants.load(
        unicodedata.normalize("NFC", "수학 선생님"), folder=tmp_path, default_model="m", default_protocol="responses"
    )
    assert found.instructions == "친절하게 가르쳐 주세요."


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("한글", 4), ("e\u0301", 1), ("漢字かな", 8), ("ｱ", 1), ("🦊", 2), ("שלום", 4), ("", 0)],
)
def test_how_wide_a_text_is(text: str, width: int) -> None:
    assert cells(text) == width
    assert cells(padded(text, 12)) == 12


def test_letters_in_pieces_are_as_wide_as_they_are_shown() -> None:
    assert cells(unicodedata.normalize("NFD", "한글")) == 4


def test_a_question_in_python_may_be_in_any_language() -> None:
    with open_items([{"question": row[2], "thread": row[1], "id": row[0]} for row in ROWS]) as questions:
        assert [question.text for question in questions] == [row[2] for row in ROWS]
        assert questions.check().conversations == 3


def test_workers_are_told_the_conversation_in_any_language(store: MemoryStore, askq: Asked, tmp_path: Path) -> None:
    submitted(askq, listed(tmp_path))
    claimed = store.claim(Lane.START, range(16), limit=100, lease_s=60)
    texts = {claim.question.text for claim in claimed if claim.question is not None}
    assert texts == {row[2] for row in ROWS if row[0] != "민수-2"}
