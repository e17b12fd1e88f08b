"""`askq chat` and `askq ask --stream` over a pipe, with a store in memory and a worker that the test plays."""

from __future__ import annotations

import io
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from askq.jobs.live import Kind, Piece
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Claim, Lane, Move, State
from producer.cli.screen import Screen
from tests.contract.store_stage import ALL, LONG
from tests.unit.cli_stage import Asked

Play = Callable[[Claim], Answer | str]
"""What becomes of a question: an answer, or the code of its end."""


class Player:
    """Answers every question as it is told, from a thread."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.asked: list[Claim] = []
        self.play: Play = lambda claim: Answer(text=f"Answer to: {claim.question.text if claim.question else ''}")
        self.run = "r"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        while not self._over.wait(0.01):
            for claim in self.store.claim(Lane.START, ALL, limit=9, lease_s=LONG):
                self.asked.append(claim)
                for name, fields in (("intend", {"live": 1}), ("start", {"run": "r"})):
                    self.move(claim, name, fields=fields)
                made = self.play(claim)
                if isinstance(made, Answer):
                    self.move(claim, "complete", answer=made)
                else:
                    self.move(claim, "fail", fields={"error_code": made, "error_message": "why"})

    def move(self, claim: Claim, name: str, **about: object) -> None:
        self.store.commit([Move(job=claim.id, fence=claim.fence, name=name, delay=LONG, **about)])  # type: ignore[arg-type]

    def tell(self, claim: Claim, *pieces: Piece) -> None:
        self.store.tell(claim.id, "me", self.run, pieces)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)


@pytest.fixture
def player(store: MemoryStore) -> Iterator[Player]:
    made = Player(store)
    yield made
    made.stop()


class Told:
    """What a person was told meanwhile: a worker that the test plays may wait for it."""

    def __init__(self) -> None:
        self._seen: dict[str, threading.Event] = defaultdict(threading.Event)

    def note(self, text: str) -> None:
        for part, seen in self._seen.items():
            if part in text:
                seen.set()

    def wait(self, part: str) -> None:
        """Return when it was told. It gives up without a word: the test sees that it is missing."""
        self._seen[part].wait(60)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    made, note = Told(), Screen.note

    def noted(screen: Screen, text: str) -> None:
        note(screen, text)
        made.note(text)

    monkeypatch.setattr(Screen, "note", noted)
    return made


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def lines(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return lines


Says = Callable[[str], None]


def text(said: str, at: int = 0) -> Piece:
    return Piece(kind=Kind.TEXT, key="m", at=at, text=said)


def test_an_answer_is_printed_once_however_much_of_it_was_seen(player: Player, askq: Asked) -> None:
    def play(claim: Claim) -> Answer:
        assert claim.question is not None
        assert claim.question.stream
        player.tell(claim, text("It is"), text(" four", 5))
        return Answer(text="It is four.")

    player.play = play
    code, out, err = askq("ask", "What is 2 + 2?", "--stream", "--no-worker")
    assert (code, out) == (0, "It is four.\n")
    assert "It is" not in err


def test_what_came_live_and_was_not_stored_is_told(player: Player, askq: Asked) -> None:
    def play(claim: Claim) -> Answer:
        player.tell(claim, text("It is five"))
        return Answer(text="It is four.")

    player.play = play
    # Whether the log or the record is read first is a race that both must win.
    code, out, _ = askq("ask", "What is 2 + 2?", "--stream", "--no-worker")
    assert code == 0
    assert out.endswith("It is four.\n")


def test_an_error_is_told_after_what_was_seen(player: Player, askq: Asked) -> None:
    player.play = lambda claim: "run_failed"
    code, out, err = askq("ask", "Why?", "--stream", "--no-worker")
    assert (code, out) == (5, "")
    assert "run_failed: why" in err


def test_a_stream_and_json_are_two_things(store: MemoryStore, askq: Asked) -> None:
    code, out, err = askq("ask", "Why?", "--stream", "--json")
    assert (code, out) == (2, "")
    assert "--json" in err


def test_a_stream_has_a_timeout(store: MemoryStore, askq: Asked) -> None:
    code, _, err = askq("ask", "Why?", "--stream", "--no-worker", "--timeout", "0.1")
    assert code == 3
    assert "askq show" in err


def test_a_pipe_holds_a_conversation(player: Player, store: MemoryStore, askq: Asked, says: Says) -> None:
    says("안녕하세요?\n\n/help\nAnd then?\n/l\n/q\nnever\n")
    code, out, err = askq("chat", "--no-worker")
    assert (code, out) == (0, "Answer to: 안녕하세요?\nAnswer to: And then?\n")
    assert "/new" in err
    assert "ran no code" in err
    (status,) = store.batches()
    first, second = store.jobs(status.id)
    assert (first.question.thread, first.after) == ("chat", None)
    assert (second.question.thread, second.after) == ("chat", first.question.row_id)
    assert status.done
    assert f"askq chat --resume {status.id}" in err


def test_a_conversation_goes_on_with_what_was_left(player: Player, store: MemoryStore, askq: Asked, says: Says) -> None:
    says("One?\n")
    askq("chat", "--no-worker")
    says("Two?\n")
    code, out, err = askq("chat", "--resume", "@last", "--no-worker")
    assert (code, out) == (0, "Answer to: One?\nAnswer to: Two?\n")
    assert "> One?" in err
    (status,) = store.batches()
    assert [job.after for job in store.jobs(status.id)] == [None, "q0001"]


def test_new_begins_another_conversation(player: Player, store: MemoryStore, askq: Asked, says: Says) -> None:
    says("One?\n/new\nTwo?\n")
    assert askq("chat", "--no-worker")[0] == 0
    assert [status.total for status in store.batches()] == [1, 1]


def test_a_failed_answer_does_not_end_the_conversation(
    player: Player, store: MemoryStore, askq: Asked, says: Says
) -> None:
    player.play = lambda claim: "run_failed" if len(player.asked) == 1 else Answer(text="Here.")
    says("One?\nTwo?\n")
    code, out, err = askq("chat", "--no-worker")
    assert (code, out) == (5, "Here.\n")
    assert "run_failed: why" in err
    definition = store.assistant(player.asked[0].assistant_digest)
    assert definition is not None
    assert '"on_failure":"skip"' in definition


def test_the_code_of_an_answer_is_shown_on_demand(player: Player, askq: Asked, says: Says) -> None:
    player.play = lambda claim: Answer(text="2", code=({"input": "print(1 + 1)", "output": "2"},))
    says("How much?\n/l\n")
    _, out, err = askq("chat", "--no-worker")
    assert out == "2\n"
    assert "── code 1\n  │ print(1 + 1)\n── output\n  │ 2\n" in err


def test_what_a_run_made_is_named_with_its_place(player: Player, askq: Asked, says: Says) -> None:
    files = ({"kind": "image", "name": "chart.png", "path": "ab/chart.png"}, {"kind": "file", "file_id": "f1"})
    player.play = lambda claim: Answer(text="Look.", files=files)
    says("Draw!\n")
    _, _, err = askq("chat", "--no-worker")
    assert "── image chart.png: .askq/files/ab/chart.png" in err
    assert "── file f1" in err


def test_a_file_goes_along_with_the_next_question_alone(
    player: Player, askq: Asked, says: Says, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1,2\n", "utf-8")
    says("/file none.csv\n/file table.csv\n/file\nWhat is in it?\nAnd now?\n")
    code, _, err = askq("chat", "--no-worker", "-a", "tutor")
    assert code == 5, "a file was not there, and nobody is there to see that"
    assert "none.csv" in err
    first, second = [claim.question for claim in player.asked]
    assert first is not None
    assert second is not None
    assert [kept.file.name for kept in first.files if kept.file is not None] == ["table.csv"]
    assert second.files == ()


def test_a_path_is_taken_as_terminals_write_it(
    player: Player, askq: Asked, says: Says, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("표 1.csv", "it's.csv", "a\\b.csv"):
        (tmp_path / name).write_text("a\n1\n", "utf-8")
    says(
        "/file 표\\ 1.csv\nOne?\n/file '표 1.csv'\nTwo?\n/file ~/표 1.csv\nThree?\n"
        "/file it's.csv\nFour?\n/file a\\b.csv\nFive?\n"
    )
    code, _, err = askq("chat", "--no-worker", "-a", "tutor")
    assert code == 0, err
    names = [kept.file.name for claim in player.asked if claim.question for kept in claim.question.files if kept.file]
    assert names == ["표 1.csv", "표 1.csv", "표 1.csv", "it's.csv", "a\\b.csv"]


def test_a_command_that_is_none_is_not_asked(player: Player, askq: Asked, says: Says) -> None:
    says("/fiel table.csv\n/quit\n/etc/passwd: what is in it?\n /help me\n/q now\nnever\n")
    code, out, err = askq("chat", "--no-worker")
    assert code == 5, "nobody is there to see that they were not understood"
    assert out == "Answer to: /etc/passwd: what is in it?\nAnswer to: /help me\n"
    assert "there is no command /fiel; did you mean /file?" in err
    assert "there is no command /quit; did you mean /q?" in err


def test_what_was_seen_before_it_was_asked_anew_is_not_shown_again(
    player: Player, store: MemoryStore, askq: Asked, says: Says
) -> None:
    def play(claim: Claim) -> Answer | str:
        player.run = f"r{len(player.asked)}"
        player.move(claim, "poll", fields={"run": player.run})
        player.tell(claim, text("It is five") if len(player.asked) == 1 else text("It is"))
        return "run_failed" if len(player.asked) == 1 else Answer(text="It is four.")

    player.play = play
    says("How much?\n")
    assert askq("chat", "--no-worker")[:2] == (5, "It is five\n")
    (status,) = store.batches()
    store.retry([f"{status.id}.q0001"], [State.FAILED])
    says("")
    code, out, _ = askq("chat", "--resume", status.id, "--no-worker")
    assert (code, out) == (0, "It is four.\n")


def test_another_batch_is_no_conversation(player: Player, store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    code, _, err = askq("chat", "--resume", "@last", "--no-worker")
    assert code == 2
    assert "no conversation" in err
    assert askq("chat", "--resume", "@last", "-a", "tutor")[0] == 2


def test_a_killed_question_is_there_once(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, askq: Asked, says: Says
) -> None:
    """Given a program that was killed between adding a question and sealing, when it goes on, then it follows that."""

    def killed(batch: str, total: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "seal", killed)
        says("One?\n")
        assert askq("chat", "--no-worker")[0] == 130
    (status,) = store.batches()
    assert not status.sealed
    player = Player(store)
    try:
        says("Two?\n")
        code, out, _ = askq("chat", "--resume", status.id, "--no-worker")
    finally:
        player.stop()
    assert (code, out) == (0, "Answer to: One?\nAnswer to: Two?\n")
    assert [job.state for job in store.jobs(status.id)] == [State.COMPLETED] * 2


def test_a_paused_account_is_told(
    player: Player, store: MemoryStore, askq: Asked, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.cli.follow._TELL_WHY_AFTER_S", 0.0)
    monkeypatch.setattr("producer.cli.follow._LOOK_EVERY_S", 0.0)

    def play(claim: Claim) -> Answer:
        told.wait("Incorrect API key")
        return Answer(text="Here.")

    player.play = play
    store.pause("acc", "rejected_key", "Incorrect API key provided", probe_after_s=60)
    _, out, err = askq("ask", "Why?", "--stream", "--no-worker")
    assert out == "Here.\n"
    assert "Incorrect API key" in err


def test_that_the_last_worker_is_gone_is_told(
    player: Player, askq: Asked, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.cli.follow._TELL_WHY_AFTER_S", 0.0)
    monkeypatch.setattr("producer.cli.follow._LOOK_EVERY_S", 0.0)

    def play(claim: Claim) -> Answer:
        told.wait("no worker is at work")
        time.sleep(0.3)  # it looks several times more, and does not say so again
        return Answer(text="Here.")

    player.play = play
    _, out, err = askq("ask", "Why?", "--stream", "--no-worker")
    assert out == "Here.\n"
    assert err.count("waiting: no worker is at work\n") == 1


def test_a_question_that_was_typed_has_no_line(player: Player, askq: Asked, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for argv, told in (
        (("ask", ""), "askq: the question is empty\n"),
        (("ask", "Why?", "--file", "none.csv"), 'askq: "none.csv": there is no such file\n'),
        (("ask", "Why?", "--file", "folder"), 'askq: "folder": this is a folder\n'),
    ):
        code, _, err = askq(*argv)
        assert code == 2
        assert err.startswith(told)
        assert "list and try again" not in err


def test_a_line_that_is_no_text_is_one_question_that_is_not_asked(
    player: Player, store: MemoryStore, askq: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = io.TextIOWrapper(io.BytesIO("One?\n\udcff?\nTwo?\n".encode("utf-8", "surrogateescape")), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", piped)
    code, out, err = askq("chat", "--no-worker")
    assert (code, out) == (5, "Answer to: One?\nAnswer to: Two?\n")
    assert "the line is not UTF-8 text" in err
    assert store.batches()[0].total == 2


def test_a_tab_after_a_command_is_a_blank(store: MemoryStore, askq: Asked, says: Says, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n", "utf-8")
    says("/file\ta.csv\n")
    code, _, err = askq("chat", "--no-worker")
    assert code == 0
    assert "goes along with the next question: a.csv" in err
