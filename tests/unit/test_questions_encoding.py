"""Bytes to text: what is understood, what is noted, what is refused with its line."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from askq.errors import InputError
from producer.questions import Summary, open_list
from producer.questions.encoding import inspect
from producer.questions.source import open_path

TEXTS = ["Was kostet 5 € – größer?", "光の速さは？", "Сколько будет два плюс два?", "🦊 + 🐇 = ?", "e\u0301", "שלום?"]


def read(tmp_path: Path, data: bytes, *, name: str = "q.txt") -> tuple[Summary, list[str]]:
    path = tmp_path / name
    path.write_bytes(data)
    questions = open_list(path)
    return questions.check(), [question.text for question in questions]


def refused(tmp_path: Path, data: bytes, *, name: str = "q.txt") -> tuple[list[tuple[int | None, str]], str | None]:
    with pytest.raises(InputError) as caught:
        read(tmp_path, data, name=name)
    return [(problem.line, problem.message) for problem in caught.value.problems], caught.value.remedy


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_unicode_of_all_kinds(tmp_path: Path, encoding: str, end: str) -> None:
    summary, texts = read(tmp_path, end.join(TEXTS).encode(encoding))
    assert texts == TEXTS
    assert summary.notes == ()


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.txt", "q.jsonl"])
def test_utf_16_by_its_mark(tmp_path: Path, order: str, name: str) -> None:
    mark = codecs.BOM_UTF16_LE if order == "utf-16-le" else codecs.BOM_UTF16_BE
    text = '{"question": "größer 🦊?"}' if name == "q.jsonl" else "question\ngrößer 🦊?"
    _, texts = read(tmp_path, mark + text.encode(order), name=name)
    assert texts[-1] == "größer 🦊?"


def test_windows_1252_is_read_with_a_note(tmp_path: Path) -> None:
    text = "Was heißt „größer“?\nÇa coûte 5 € – à peu près ?\nEl niño español"
    summary, texts = read(tmp_path, text.encode("cp1252"))
    assert texts == text.split("\n")
    assert summary.notes == (
        (
            f"{tmp_path / 'q.txt'} is not UTF-8; it was read as Windows-1252. If letters look wrong, save it as "
            "UTF-8 and submit it again."
        ),
    )


def test_damaged_utf_8_is_not_taken_for_something_else(tmp_path: Path) -> None:
    data = "größer, schöner\n".encode() + b"a \xff b\n" + "süß\n".encode() + b"\xc3\nfine\n"
    problems, remedy = refused(tmp_path, data)
    assert problems == [(2, "byte 0xff is not valid UTF-8"), (4, "byte 0xc3 is not valid UTF-8")]
    assert remedy is not None
    assert remedy.startswith("Save the file as UTF-8 and try again (in a spreadsheet: export as CSV UTF-8)")


def test_a_cut_off_end_of_utf_8(tmp_path: Path) -> None:
    problems, _ = refused(tmp_path, "größer ist süßer\nschön €".encode()[:-1])
    assert problems == [(None, "the last character is cut off (not valid UTF-8)")]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    problems, _ = refused(tmp_path, b"fine\ngr\xf6\xdfer \x81\nfine\n\x8d\n")
    assert problems == [
        (2, "byte 0x81 is neither UTF-8 nor Windows-1252"),
        (4, "byte 0x8d is neither UTF-8 nor Windows-1252"),
    ]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Сколько будет дважды два?", "cp1251"),
        ("Ποια είναι η πρωτεύουσα;", "cp1253"),
        ("法国的首都是哪里", "gbk"),
    ],
)
def test_other_eight_bit_encodings_are_not_guessed(tmp_path: Path, text: str, encoding: str) -> None:
    data = text.encode(encoding)
    for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D):
        assert byte not in data, "the sample must not be refused for a simpler reason"
    problems, remedy = refused(tmp_path, b"question\n" + data + b"\n", name="q.csv")
    assert problems[0][0] is None or problems[0][0] == 2
    assert any("do not look like Windows-1252 either" in message for _, message in problems)
    assert remedy


@pytest.mark.parametrize("name", ["q.csv", "q.txt"])
def test_korean_of_spreadsheets_is_read_with_a_note(tmp_path: Path, name: str) -> None:
    text = "질문\r\n프랑스의 수도는 어디입니까?\r\n똠방각하는 무슨 뜻이에요, 그리고 15 곱하기 4는?\r\n"
    summary, texts = read(tmp_path, text.encode("cp949"), name=name)
    assert texts[-2:] == text.split("\r\n")[1:3]
    assert any("it was read as Korean (CP949)" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("法国的首都是哪里？一年有多少天？地球离太阳有多远？", "gb18030"),
        ("日本の首都はどこですか。一年は何日ありますか。", "euc-jp"),
        ("Was heißt „größer“ auf Französisch? Äpfel, Öl, Übermut: wofür stehen sie?", "cp1252"),
        ("Сколько будет дважды два? Какая столица Франции?", "cp1251"),
    ],
)
def test_nothing_else_is_taken_for_korean(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes(text.encode(encoding))
    try:
        found = inspect(open_path(path), longest_line=1 << 20).encoding
    except InputError:
        return
    assert found == "cp1252"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("フランスの首都は？", "shift_jis"),
        ("法国的首都是哪里？", "gb18030"),
        ("Сколько будет дважды два?", "koi8-r"),
        ("프랑스의 수도는?", "UTF-8"),
        ("ما هي عاصمة فرنسا؟", "utf-16-le"),
    ],
)
def test_an_encoding_that_is_named_is_used(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "질문.csv"
    path.write_bytes(f"question\n{text}\n".encode(encoding))
    with open_list(path, encoding=encoding) as questions:
        assert [question.text for question in questions] == [text]
        assert questions.check().notes == ()


def test_an_encoding_that_does_not_fit_or_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes(b"fine\nalso fine\n\xff\xff\n")
    with pytest.raises(InputError) as caught:
        open_list(path, encoding="cp949").check()
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (3, "the bytes here are not valid CP949")
    ]
    for none in ("klingon", "base64", "a\0b", ""):
        with pytest.raises(InputError, match="there is no encoding"):
            open_list(path, encoding=none)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_damaged_utf_16(tmp_path: Path, order: str) -> None:
    mark = codecs.BOM_UTF16_LE if order == "utf-16-le" else codecs.BOM_UTF16_BE
    lone = b"\x00\xd8" if order == "utf-16-le" else b"\xd8\x00"
    data = mark + "a\nb\n".encode(order) + lone + "c\n".encode(order)
    assert refused(tmp_path, data)[0] == [(3, "the bytes here are not valid UTF-16")]
    assert refused(tmp_path, mark + "a\nb".encode(order) + b"\x41")[0] == [(2, "the bytes here are not valid UTF-16")]


def test_nul_characters(tmp_path: Path) -> None:
    problems, remedy = refused(tmp_path, b"a\nb\0c\0\n\nd\0")
    assert problems == [(2, "there is a NUL character"), (4, "there is a NUL character")]
    assert remedy is not None
    assert "UTF-16 without a byte order mark" in remedy
    assert refused(tmp_path, "a\nb".encode("utf-16-le"))[0] == [
        (1, "there is a NUL character"),
        (2, "there is a NUL character"),
    ]


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"PK\x03\x04", "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0", "an old Excel"),
        (b"PAR1", "a Parquet file"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_other_kinds_of_files_under_a_wrong_name(tmp_path: Path, head: bytes, what: str) -> None:
    [(_, message)], remedy = refused(tmp_path, head + bytes(range(256)), name="q.csv")
    assert what in message
    assert remedy


def test_lines_too_long_to_hold(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes(b"short\n" + b"x" * 3_000_000 + b"\nshort\n" + b"y" * 2_500_000)
    with pytest.raises(InputError) as caught:
        inspect(open_path(path), longest_line=2 << 20)
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (2, "the line is longer than 2 MiB"),
        (4, "the line is longer than 2 MiB"),
    ]
    assert inspect(open_path(path), longest_line=3 << 20).size == path.stat().st_size


def test_characters_across_the_pieces_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes(b"x" * ((1 << 20) - 1) + "ä".encode() + b"\n" + b"y" * 10)
    assert inspect(open_path(path), longest_line=1 << 22).encoding == "utf-8-sig"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_mark_is_no_part_of_the_first_column(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "q.csv"
    for mark in ("", "\ufeff"):
        path.write_bytes(f"{mark}question,id\nWas heißt größer?,a\n".encode(encoding))
        questions = open_list(path, encoding=encoding)
        assert questions.check().columns == ("question", "id")
        assert [question.row_id for question in questions] == ["a"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_encoding_of_two_orders_without_a_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes("Why?\n".encode(f"{encoding}-le"))
    with pytest.raises(InputError, match="no byte order mark tells which of the two") as caught:
        open_list(path, encoding=encoding).check()
    assert caught.value.remedy == (
        f"Say it: --encoding {encoding}-le (Windows writes that one) or --encoding {encoding}-be."
    )
    path.write_bytes("Why?\n".encode(encoding))
    assert [question.text for question in open_list(path, encoding=encoding)] == ["Why?"]


@pytest.mark.parametrize("name", ["undefined", "idna", "punycode", "unicode_escape", "raw_unicode_escape"])
def test_encodings_of_no_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes("Was heißt größer?\n".encode())
    with pytest.raises(InputError, match="there is no encoding"):
        open_list(path, encoding=name)


def test_a_nul_in_a_list_that_is_read_in_pieces(tmp_path: Path) -> None:
    """The rest is decoded all the same: else a letter across the pieces would look like damage."""
    beginning = b"What is this\0?\n"
    filled = beginning + b"x" * ((1 << 20) - len(beginning) - 2) + b"\n" + "ß?\n".encode()
    assert len(filled) > 1 << 20
    assert filled[(1 << 20) - 1] == "ß".encode()[0]
    faults, _ = refused(tmp_path, filled)
    assert faults == [(1, "there is a NUL character")]
