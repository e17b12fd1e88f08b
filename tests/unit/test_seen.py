"""What was seen live, and what is still to be shown: every character of an answer once."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askq.jobs.live import Kind, LiveEntry, Piece
from producer.cli.screen import Screen
from producer.seen import Seen


def entry(*pieces: Piece, run: str = "run_1") -> LiveEntry:
    return LiveEntry(id="1-0", run=run, pieces=pieces)


def text(said: str, at: int = 0, key: str = "m1") -> Piece:
    return Piece(kind=Kind.TEXT, key=key, at=at, text=said)


def test_what_is_told_twice_is_seen_once() -> None:
    seen = Seen()
    assert [piece.text for piece in seen.take(entry(text("Hel"), text("lo", 3)))] == ["Hel", "lo"]
    assert seen.take(entry(text("Hello"))) == []
    assert [piece.text for piece in seen.take(entry(text("Hello!")))] == ["!"]
    assert seen.rest("Hello! Bye.") == " Bye."
    assert seen.rest("Hello!") == ""


def test_what_follows_a_gap_waits_for_the_answer() -> None:
    seen = Seen()
    seen.take(entry(text("Hel")))
    assert seen.take(entry(text("!", 5), text("more", 6))) == []
    assert seen.rest("Hello!more") == "lo!more"


def test_messages_are_told_apart_as_in_the_answer() -> None:
    seen = Seen()
    seen.take(entry(text("One."), text("Two.", key="m2")))
    assert seen.rest("One.\n\nTwo. Three.") == " Three."


def test_another_run_begins_anew() -> None:
    seen = Seen()
    seen.take(entry(text("Wrong")))
    assert [piece.text for piece in seen.take(entry(text("Right"), run="run_2"))] == ["Right"]
    assert seen.rest("Right.") == "."


@pytest.mark.parametrize(
    ("shown", "answer", "rest"),
    [
        ("It is 2 , or 3", "It is 2, or 3", ""),
        ("It is 2 , or", "It is 2, or 3.", " 3."),
        ("It is 2. ", "It is 2.", ""),
        ("It is 3", "It is 2", None),
        ("It is 2 and more", "It is 2", None),
        ("", "All of it", "All of it"),
        ("\n\n", "All of it", "All of it"),
    ],
)
def test_blanks_may_differ_and_nothing_else(shown: str, answer: str, rest: str | None) -> None:
    seen = Seen()
    seen.take(entry(text(shown)))
    assert seen.rest(answer) == rest


def test_a_file_is_named_once_and_code_grows() -> None:
    seen = Seen()
    made = Piece(kind=Kind.FILE, key="f1", name="a.csv")
    code = Piece(kind=Kind.CODE, key="c1", text="print(")
    assert seen.take(entry(made, code)) == [made, code]
    assert seen.take(entry(made, code)) == []
    assert seen.text == "", "no part of the answer"


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12))
def test_however_it_is_told_the_answer_is_shown_exactly_once(answer: str, parts: list[tuple[int, int]]) -> None:
    seen, shown = Seen(), ""
    for start, end in parts:
        if start < len(answer):
            shown += "".join(piece.text for piece in seen.take(entry(text(answer[start : start + end], start))))
    rest = seen.rest(answer)
    assert rest is not None
    assert shown + rest == answer


# -- on the screen --------------------------------------------------------------------------------------------------


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_answer_alone_goes_to_standard_output() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(out=out, err=err)
    for piece in (
        Piece(kind=Kind.STATUS, text="in_progress"),
        Piece(kind=Kind.CODE, key="c", text="x = 1\nprint("),
        Piece(kind=Kind.CODE, key="c", at=12, text="x)"),
        Piece(kind=Kind.OUTPUT, key="c/0", text="1\n"),
        Piece(kind=Kind.CALL, key="f", name="light", text='{"on": '),
        Piece(kind=Kind.CALL, key="f", at=7, text="true}"),
        text("It is "),
        text("one.", 6),
        Piece(kind=Kind.IMAGE, key="i"),
        text("Again.", key="m2"),
    ):
        screen.show(piece)
    screen.finish()
    assert out.getvalue() == "It is one.\n\nAgain.\n"
    assert err.getvalue().splitlines() == [
        "── code",
        "  │ x = 1",
        "  │ print(x)",
        "── output",
        "  │ 1",
        "── calls light",
        '  │ {"on": true}',
        "── made an image",
    ]


def test_on_a_terminal_lines_of_both_do_not_run_into_each_other() -> None:
    both = Tty()
    screen = Screen(out=both, err=both, color=False)
    screen.show(text("It is"))
    screen.note("a note")
    screen.show(text(" one", 5))
    screen.finish()
    assert both.getvalue() == "It is\na note\n one\n"


def test_quiet_is_the_answer_and_nothing_else() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(quiet=True, out=out, err=err)
    screen.show(Piece(kind=Kind.CODE, key="c", text="x"))
    screen.show(text("One"))
    screen.note("note")
    screen.finish()
    assert (out.getvalue(), err.getvalue()) == ("One\n", "")


def test_what_a_model_writes_cannot_move_the_cursor() -> None:
    out, err = Tty(), Tty()
    screen = Screen(out=out, err=err, color=False)
    screen.show(text("a\x1b[31mb\x07\u202e"))
    screen.show(Piece(kind=Kind.CALL, key="f", name="x\x1b]0;title\x07\ny", text="\x1b[2J"))
    screen.show(Piece(kind=Kind.FILE, key="f", name="\x1b[1mf"))
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert out.getvalue() == "ab"
