"""Files and images in a list: found, checked with their line and column, kept before anything is queued."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pytest

from askq.errors import InputError
from askq.files import kinds
from askq.files.folder import Folder
from askq.jobs.codec import digest, dump_question, load_question
from askq.jobs.model import NewJob, Question
from producer.questions import Summary, open_items, open_list

BOTH = frozenset({"code_interpreter", "file_search"})


def read(
    folder: Path,
    text: str,
    *,
    tools: Collection[str] | None = BOTH,
    name: str = "q.csv",
    keep: bool = True,
    **options: str,
) -> tuple[Summary, list[Question]]:
    (folder / name).write_text(text, "utf-8")
    with open_list(folder / name, **options) as questions:  # type: ignore[arg-type]
        questions.attach(folder=Folder(folder / "kept") if keep else None, tools_of=lambda _: tools)
        return questions.check(), list(questions)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("a\n1\n")
    (tmp_path / "요금.pdf").write_bytes(b"%PDF-")
    (tmp_path / "a;b.csv").write_text("odd")
    (tmp_path / "cat.png").write_bytes(b"png")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path


def names(question: Question) -> list[tuple[str, str | None]]:
    return [(one.tool, one.url if one.file is None else one.file.name) for one in question.files]


def test_a_row_takes_its_files_along_each_for_its_tool(place: Path) -> None:
    summary, [one, two, three] = read(
        place, "question,file,image\nWhy?,data.csv;요금.pdf,cat.png\nHow?,a;b.csv,https://x.test/y.png\nSo?,,\n"
    )
    assert names(one) == [("code_interpreter", "data.csv"), ("file_search", "요금.pdf"), ("image", "cat.png")]
    assert names(two) == [("code_interpreter", "a;b.csv"), ("image", "https://x.test/y.png")]
    assert names(three) == []
    assert (summary.files, summary.file_bytes) == (4, 4 + 5 + 3 + 3)
    kept = Folder(place / "kept")
    assert all(kept.has(one.file.sha256) for one in (*one.files, *two.files) if one.file is not None)
    assert dict(one.input) == {"file": "data.csv;요금.pdf", "image": "cat.png"}, "the columns come back as they were"


def test_json_may_list_its_files(place: Path) -> None:
    _, [question] = read(place, '{"question": "Why?", "files": ["a;b.csv", "data.csv"]}\n', name="q.jsonl")
    assert names(question) == [("code_interpreter", "a;b.csv"), ("code_interpreter", "data.csv")]


def test_columns_can_be_named_and_switched_off(place: Path) -> None:
    _, [question] = read(
        place, "question,Beleg,foto\nWhy?,data.csv,cat.png\n", file_column="beleg", image_column="Foto"
    )
    assert names(question) == [("code_interpreter", "data.csv"), ("image", "cat.png")]
    with open_list(place / "q.csv", attach=False) as plain:
        assert next(iter(plain)).files == ()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("nope.csv", '"nope.csv": there is no such file'),
        ("data.cvs", "Did you mean"),
        ("empty.csv", '"empty.csv": the file is empty'),
        ("folder", "this is a folder"),
        ("/dev/zero", "this is no ordinary file"),
        ("zero.csv", "this is no ordinary file"),
        ("pipe.csv", "this is no ordinary file"),
        ("a\x1b[31m.csv", "there is no such file"),
        ("https://x.test/a.csv", "this is an address, not a file"),
        ("a" * 5000, "cannot be read"),
        ("data.csv;gone.csv", '"gone.csv": there is no such file'),
    ],
)
def test_a_file_that_cannot_go_along_is_told_with_its_place(place: Path, cell: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(place, f'question,file\nWhy?,\nHow?,"{cell}"\n')
    assert message in str(caught.value)
    assert f"{place / 'q.csv'}:3:" in str(caught.value)
    assert '(column "file")' in str(caught.value)
    assert caught.value.remedy


def test_a_file_nobody_may_read_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def denied(path: object, *args: int) -> int:
        if str(path).endswith("data.csv"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("producer.questions.attachments.os.open", denied)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read(place, "question,file\nWhy?,data.csv\n")


def test_a_huge_file_is_refused_before_it_is_copied(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (place / "huge.csv").open("wb") as file:
        file.truncate(kinds.MOST_BYTES + 1)
    with pytest.raises(InputError, match="536,870,913 bytes"):
        read(place, "question,file\nWhy?,huge.csv\n")
    assert not (place / "kept").exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("data.csv", ".csv is no type of image"),
        ("ftp://x.test/y.png", "only addresses that begin with https"),
        ("data:image/png;base64,xx", "only addresses that begin with https"),
        ("https:///y.png", "only addresses"),
        (f"https://x.test/{'y' * 3000}.png", "too long"),
        ("dog.png", "there is no such file"),
    ],
)
def test_what_is_no_image_is_told(place: Path, cell: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(place, f'{{"question": "Why?", "image": ["{cell}"]}}\n', name="q.jsonl")
    assert message in str(caught.value)
    assert '(column "image")' in str(caught.value)


def test_an_assistant_without_a_tool_takes_images_alone(place: Path) -> None:
    _, [question] = read(place, "question,file\nWhat?,cat.png\n", tools=())
    assert names(question) == [("image", "cat.png")]
    with pytest.raises(InputError, match="no tool that reads files"):
        read(place, "question,file\nWhat?,data.csv\n", tools=())
    with pytest.raises(InputError, match="file search cannot read"):
        read(place, "question,file\nWhat?,data.csv\n", tools={"file_search"})


def test_too_many_files_of_a_row_are_told(place: Path) -> None:
    for number in range(21):
        (place / f"f{number}.csv").write_text(str(number))
    with pytest.raises(InputError, match="attaches 21 files; at most 20"):
        read(place, f"question,file\nWhy?,{';'.join(f'f{n}.csv' for n in range(21))}\n")


def test_a_number_is_no_path(place: Path) -> None:
    with pytest.raises(InputError, match="a path, or a list of paths, is expected"):
        read(place, '{"question": "Why?", "file": 7}\n', name="q.jsonl")


def test_the_digest_tells_whether_a_file_is_another(place: Path) -> None:
    text = "question,file\nWhy?,data.csv\n"
    before, [one] = read(place, text)
    same, [again] = read(place, text, keep=False)
    assert before.files_digest == same.files_digest
    assert one == again
    (place / "data.csv").write_text("a\n2\n")
    after, [other] = read(place, text)
    assert after.files_digest != before.files_digest
    job = [NewJob(question=q, assistant="a", assistant_digest="d", protocol="responses") for q in (one, other)]
    assert digest(job[0]) != digest(job[1])


def test_a_file_that_vanishes_between_check_and_copy_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Folder, source: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(source))

    monkeypatch.setattr(Folder, "keep", gone)
    with pytest.raises(InputError, match=r'"data\.csv" cannot be copied') as caught:
        read(place, "question,file\nWhy?,data.csv\n")
    assert ":2:" in str(caught.value)


def test_questions_keep_their_files_in_the_store(place: Path) -> None:
    _, [question] = read(place, "question,file,image\nWhy?,data.csv,https://x.test/y.png\n")
    assert load_question(dump_question(question), row_id=question.row_id, index=0) == question
    assert b"a\\n1" not in dump_question(question), "names and hashes, never contents"


def test_python_values_name_files_from_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with open_items([{"question": "Why?", "file": "data.csv"}]) as questions:
        assert names(next(iter(questions))) == [("code_interpreter", "data.csv")]
