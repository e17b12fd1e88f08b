"""What Flower is told about a job."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from celery import Celery
from kombu import Producer

from askq.jobs.model import Answer, Move, State, Usage
from tests.unit.test_steps import NOW, claim, running
from worker.monitor import Monitor


class Recorder:
    """Stands where Celery's dispatcher would."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.broken = False

    def send(self, kind: str, **fields: Any) -> None:
        if self.broken:
            raise OSError("connection lost")
        self.sent.append((kind, fields))

    def flush(self, **_: Any) -> None: ...


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def monitor(recorder: Recorder, *, show_text: bool = True) -> Monitor:
    made = Monitor(Celery("test", set_as_current=False), "askq@host", show_text=show_text)
    made._dispatcher = recorder
    return made


def moved(name: str, **fields: Any) -> Move:
    answer = fields.pop("answer", None)
    return Move(job="b_1.q1", fence=1, name=name, fields=fields, answer=answer)


def test_a_job_appears_under_its_own_id_and_can_be_searched(recorder: Recorder) -> None:
    watched = monitor(recorder)
    watched.claimed(claim(first=True))
    watched.flush()
    ((kind, fields),) = recorder.sent
    assert (kind, fields["uuid"], fields["name"]) == ("task-received", "b_1.q1", "askq.job")
    about = ast.literal_eval(fields["kwargs"])
    assert about == {"batch": "b_1", "item": "q1", "assistant": "tutor", "q": "3x + 11 = 14?"}


def test_a_job_appears_once(recorder: Recorder) -> None:
    watched = monitor(recorder)
    watched.claimed(claim(first=False))
    watched.claimed(running())
    watched.flush()
    assert recorder.sent == []


def test_texts_are_hidden_where_the_setting_says_so(recorder: Recorder) -> None:
    watched = monitor(recorder, show_text=False)
    watched.claimed(claim(first=True))
    watched.moved(running(), moved("complete", answer=Answer(text="x = 1", usage=Usage(total_tokens=9))))
    watched.flush()
    assert "3x" not in str(recorder.sent)
    assert "x = 1" not in str(recorder.sent)
    assert "9 tokens" in str(recorder.sent)


def test_a_failure_quotes_no_text_where_texts_are_hidden(recorder: Recorder) -> None:
    watched = monitor(recorder, show_text=False)
    told = "at $.name: 'Kim Cheol-su, diabetic' is not of type 'integer'"
    watched.moved(running(), moved("fail", error_code="invalid_output", error_message=told))
    watched.flush()
    assert "Kim" not in str(recorder.sent)
    assert recorder.sent[0][1]["exception"].startswith("invalid_output: The answer does not fit the schema")


def test_the_life_of_a_job_is_told_in_celerys_words(recorder: Recorder) -> None:
    watched = monitor(recorder)
    watched.moved(claim(), moved("prepare"))
    watched.moved(claim(), moved("start", run="r"))
    watched.moved(running(), moved("poll", remote="in_progress", polls=3))
    watched.moved(running(), moved("complete", answer=Answer(text="x = 1")))
    watched.flush()
    assert [kind for kind, _ in recorder.sent] == ["task-started", "task-progress", "task-succeeded"]
    assert recorder.sent[1][1]["result"] == "in_progress · 4 s · poll 3"
    assert recorder.sent[2][1]["result"] == "x = 1"
    assert recorder.sent[2][1]["runtime"] == 4


def test_a_flower_that_was_started_later_can_tell_what_its_rows_are(recorder: Recorder) -> None:
    watched = monitor(recorder)
    watched.moved(claim(), moved("start", run="r"))
    watched.moved(running(), moved("poll", remote="in_progress", polls=3))
    watched.moved(running(), moved("fail", error_code="server_error", error_message="oops"))
    watched.flush()
    told = [(fields["uuid"], fields["name"], fields["args"]) for _, fields in recorder.sent]
    assert told == 3 * [("b_1.q1", "askq.job", "('tutor',)")]
    assert not any("kwargs" in fields for _, fields in recorder.sent), "they would replace the question in the others"


def test_progress_is_told_rarely(recorder: Recorder) -> None:
    watched = monitor(recorder)
    for polls in range(50):
        watched.moved(running(), moved("poll", remote="in_progress", polls=polls))
    watched.flush()
    assert len(recorder.sent) == 1


def test_functions_that_a_job_waits_for_are_named_in_its_row(recorder: Recorder) -> None:
    watched = monitor(recorder)
    watched.moved(running(), moved("act", note="functions: light"))
    watched.moved(running(began_at=NOW - 60), moved("complete", answer=Answer(text="on")))
    watched.flush()
    assert [(kind, fields["result"]) for kind, fields in recorder.sent] == [
        ("task-progress", "functions: light"),
        ("task-succeeded", "on"),
    ]
    assert recorder.sent[1][1]["runtime"] == 60, "from its first run on"


@pytest.mark.parametrize("name", ["cut", "fail", "cancel", "expire", "doubt"])
def test_every_other_end_is_a_failure_with_its_code(recorder: Recorder, name: str) -> None:
    watched = monitor(recorder)
    watched.moved(running(), moved(name, error_code="server_error", error_message="oops\nagain"))
    watched.flush()
    ((kind, fields),) = recorder.sent
    assert (kind, fields["exception"]) == ("task-failed", "server_error: oops again")


def test_after_a_broker_was_away_events_go_over_a_new_connection_and_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery's own dispatcher, on a broker in this process."""
    sent: list[str] = []
    away = True

    def publish(producer: Producer, body: Any, **_: Any) -> None:
        if away:
            raise ConnectionResetError("the broker is gone")
        sent.extend(event["uuid"] for event in body)

    monkeypatch.setattr(Producer, "publish", publish)
    app = Celery("test", broker="memory://", set_as_current=False)
    watched = Monitor(app, "askq@host", show_text=False)
    watched.claimed(claim(first=True))
    watched.flush()
    assert "1 events for Flower were lost" in caplog.text
    away = False
    watched.claimed(claim(first=True, id="b_1.q2"))
    watched.flush()
    assert sent == ["b_1.q2"]
    assert not watched._dispatcher._outbound_buffer


def test_a_broken_broker_costs_events_and_nothing_else(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    watched = monitor(recorder)
    recorder.broken = True
    watched.moved(claim(), moved("start"))
    watched.flush()
    assert "1 events for Flower were lost" in caplog.text
    assert watched.waiting == 0


def test_the_states_a_job_can_end_in_are_all_told(recorder: Recorder) -> None:
    from askq.jobs.model import FINISHING

    watched = monitor(recorder)
    for state, name in FINISHING.items():
        watched.moved(running(), moved(name))
        assert watched.waiting == 1, state
        watched.flush()
    assert len(recorder.sent) == len([state for state in State if state.terminal])
