"""What functions return is seen while an answer comes, whether their calls were seen live or not."""

from __future__ import annotations

import io
import time

import pytest

from askq.assistants.model import Assistant
from askq.jobs.calls import CallResult, WantedCall
from askq.jobs.live import Kind, LiveEntry, Piece
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Lane, Move, NewBatch, NewJob, Outcome, Question
from producer.cli.follow import follow
from producer.cli.functions import Functions, shortened
from producer.cli.screen import Screen
from tests.contract.store_stage import ALL, LONG

HOME = Assistant(name="home", protocol="assistants", model="m", functions={"light": {}, "sum": {}})
CALLS = (
    WantedCall(key="1.0", call_id="c1", name="light", arguments='{"on": true}'),
    WantedCall(key="1.1", call_id="c2", name="sum", arguments="[1, 2]"),
)


def screen() -> tuple[Screen, io.StringIO]:
    err = io.StringIO()
    return Screen(out=io.StringIO(), err=err), err


def written(run: str, name: str, arguments: str, key: str) -> Piece:
    return Piece(kind=Kind.CALL, key=key, name=name, text=arguments)


def shown(name: str, arguments: str, output: str | None, **more: str) -> dict[str, str | None]:
    return {"name": name, "arguments": arguments, "output": output, **more}


def test_each_output_is_shown_once_and_a_call_that_was_not_seen_with_it() -> None:
    made, err = screen()
    functions = Functions(made)
    assert not functions.owed
    functions.see("r1", written("r1", "light", '{"on":', "k"))
    functions.see("r1", Piece(kind=Kind.CALL, key="k", at=6, text="true}"))
    assert functions.owed
    first, second = shown("light", '{"on": true}', "on"), shown("sum", "[1,2]", None)
    functions.show([first, second])
    functions.show([first, second])
    assert err.getvalue() == "── light returned\n  │ on\n"
    assert functions.owed, "the other one has not returned"
    functions.show([first, {**second, "output": "3"}], seen_only=True)
    assert "sum" not in err.getvalue(), "its call may still come live"
    functions.show([first, {**second, "output": "boom\x1b[2J", "error": "exception"}])
    assert err.getvalue().endswith("on\n── calls sum\n  │ [1,2]\n── sum failed: exception\n  │ boom\n")
    assert not functions.owed


def test_the_same_call_twice_is_two_calls() -> None:
    made, err = screen()
    functions = Functions(made)
    functions.see("r1", written("r1", "light", "{}", "k"))
    functions.show([shown("light", "{}", "on"), shown("light", "{}", "off")])
    assert err.getvalue().count("── calls light") == 1
    assert [line for line in err.getvalue().splitlines() if "│" in line] == ["  │ on", "  │ {}", "  │ off"]


def test_outputs_come_before_what_the_model_makes_of_them() -> None:
    functions = Functions(screen()[0])

    def entry(*pieces: Piece) -> LiveEntry:
        return LiveEntry(id="1", run="r1", pieces=pieces)

    text, call = Piece(kind=Kind.TEXT, key="m", text="So"), written("r1", "light", "{}", "k")
    assert not functions.precede(entry(text)), "nothing was called"
    functions.see("r1", call)
    assert not functions.precede(entry(call, Piece(kind=Kind.STATUS, text="queued"))), "it is still being written"
    assert functions.precede(entry(text))
    assert functions.precede(entry(written("r1", "sum", "{}", "k2")))


@pytest.mark.parametrize(
    ("text", "begins", "ends"),
    [("short\n", "short", "short\n"), ("x" * 5000, "x" * 1000, "x\n… 4,000 more characters")],
)
def test_a_long_output_is_shortened(text: str, begins: str, ends: str) -> None:
    assert shortened(text).startswith(begins)
    assert shortened(text).endswith(ends)
    lines = shortened("\n".join(map(str, range(100))))
    assert lines.startswith("0\n1\n")
    assert lines.splitlines()[12].startswith("… ")


def test_outputs_are_seen_without_a_stream_while_the_answer_is_still_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a server without streams, when one of two functions has returned, then that is shown at once."""
    monkeypatch.setattr("producer.cli.follow._LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("producer.cli.follow._LOOK_FOR_OUTPUTS_S", 0.0)
    store = MemoryStore()
    store.save_assistant(HOME.digest, HOME.to_json())
    batch, _ = store.open_batch(NewBatch(name=None, assistant="home", protocol="assistants"))
    question = Question(row_id="q1", index=0, text="Dark?", stream=True)
    job = f"{batch}.q1"
    store.add(batch, [NewJob(question=question, assistant="home", assistant_digest=HOME.digest, protocol="assistants")])
    store.seal(batch, 1)
    (claim,) = store.claim(Lane.START, ALL, limit=1, lease_s=LONG)

    def commit(name: str, **about: object) -> None:
        made = Move(job=job, fence=claim.fence, name=name, delay=LONG, **about)  # type: ignore[arg-type]
        assert store.commit([made]) == [Outcome.MOVED]

    commit("intend")
    commit("start", fields={"run": "r1"})
    commit("act", fields={"rounds": 1}, calls=CALLS)
    one, other = store.calls().claim(limit=2, lease_s=LONG)
    screen_, err = screen()
    until = time.monotonic() + 30

    def returns() -> None:
        """What others do meanwhile."""
        assert time.monotonic() < until, err.getvalue()
        kept = store.calls().look(job)
        if kept[0].result is None:
            store.calls().finish(one, CallResult(output="lamp is on"))
        elif "lamp is on" in err.getvalue() and kept[1].result is None:
            assert "sum" not in err.getvalue()
            store.calls().finish(other, CallResult(output="3"))
        elif "3" in err.getvalue().split("sum returned")[-1] and "sum returned" in err.getvalue():
            commit("poll", fields={"run": "r1"})
            commit("complete", answer=Answer(text="Done.", tool_calls=tuple(call.shown() for call in kept)))

    ended = follow(store, job, screen_, tick=returns)
    assert ended is not None
    assert err.getvalue() == (
        '── calls light\n  │ {"on": true}\n── light returned\n  │ lamp is on\n'
        "── calls sum\n  │ [1, 2]\n── sum returned\n  │ 3\n"
    )
