"""Progress as people see it: on a terminal of any width, and in a log."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest

from askq.jobs.model import BatchStatus, Pause, State, Usage
from producer.progress import Lines, Live, Silent, Speed, display, pace, summary


class Terminal(io.StringIO):
    """Keeps what is written, as a terminal would show it."""

    def isatty(self) -> bool:
        return True


def status(counts: Mapping[State, int], *, tokens: int = 0, paused: tuple[Pause, ...] = ()) -> BatchStatus:
    total = sum(counts.values())
    return BatchStatus(
        id="b_1",
        name=None,
        assistant="tutor",
        protocol="responses",
        idempotency_key=None,
        metadata={},
        table=None,
        created_at=0.0,
        sealed=True,
        total=total,
        counts={state: counts.get(state, 0) for state in State},
        usage=Usage(total_tokens=tokens, cost_usd=None),
        finished_at=None,
        paused=paused,
    )


HALF = status({State.RUNNING: 110, State.COMPLETED: 39, State.FAILED: 1}, tokens=58_500)


def test_the_pace_is_that_of_the_answers_and_not_of_the_start() -> None:
    speed = Speed()
    assert [speed.update(0, now) for now in (0.0, 10.0, 20.0)] == [None, None, None]
    assert speed.update(9, 21.0) is None
    assert speed.update(75, 26.0) == pytest.approx(13.2)
    assert speed.update(75, 40.0) == pytest.approx(66 / 19)
    assert [speed.update(75, now) for now in (47.0, 61.0, 62.0)][-1] is None, "nothing came for a while"


def test_the_pace_of_a_batch_that_goes_on() -> None:
    speed = Speed()
    assert speed.update(100, 0.0) is None
    assert speed.update(120, 10.0) == pytest.approx(2.0)


def test_everything_in_one_line() -> None:
    assert summary(HALF, 4.0) == (
        "40/150 done · 110 running, 39 completed, 1 failed · 4.0/s, 28 s left · 58,500 tokens"
    )
    assert pace(HALF, None) == ""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_number_is_cut_on_a_narrow_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with display(out, quiet=False, color=False) as shown:
        assert isinstance(shown, Live)
        shown.update(HALF)
    told = " ".join(out.getvalue().split())
    assert "40/150 done" in told
    assert "110 running, 39 completed, 1 failed · 58,500 tokens" in told
    assert "…" not in told


def test_a_pause_says_why_whatever_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with display(out, quiet=False, color=False) as shown:
        pause = Pause(account="a", code="rejected_key", message="Incorrect\x1b[31m key", since=0.0, probe_at=0.0)
        shown.update(status({State.QUEUED: 3}, paused=(pause,)))
    assert "PAUSED (rejected_key: Incorrect key)" in " ".join(out.getvalue().split())


def test_a_log_gets_a_line_when_something_changed_and_one_at_the_end() -> None:
    out = io.StringIO()
    with display(out, quiet=False, color=True) as shown:
        assert isinstance(shown, Lines)
        shown.update(HALF)
        shown.update(HALF)
        shown.update(status({State.COMPLETED: 150}))
    assert out.getvalue().splitlines() == [
        "40/150 done · 110 running, 39 completed, 1 failed · 58,500 tokens",
        "150/150 done · 150 completed",
    ]


def test_quiet_shows_nothing() -> None:
    out = Terminal()
    with display(out, quiet=True, color=True) as shown:
        assert isinstance(shown, Silent)
        shown.update(HALF)
        shown.note("something")
    assert out.getvalue() == ""
