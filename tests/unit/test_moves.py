"""The table of moves is consistent, and the Lua beside it is written as agreed."""

from __future__ import annotations

import ast
import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest

from askq import jobs
from askq.ends import ENDS
from askq.ids import SHARDS
from askq.jobs import keys
from askq.jobs.codec import record_fields
from askq.jobs.model import (
    FINISHING,
    LANE_OF,
    MOST_TOKENS,
    MOVES,
    PENDING,
    TERMINAL,
    TOKEN_FIELDS,
    Answer,
    Lane,
    Move,
    State,
    Usage,
)

ROOT = Path(jobs.__file__).parents[2]
FOLDER = Path(jobs.__file__).parent
SCRIPTS = sorted((FOLDER / "lua").glob("*.lua"))
ARROWS = {(source, rule.target) for rule in MOVES.values() for source in rule.sources if rule.target is not None}


def _reachable(start: State) -> set[State]:
    found, left = {start}, [start]
    while left:
        at = left.pop()
        for source, target in ARROWS:
            if source is at and target not in found:
                found.add(target)
                left.append(target)
    return found


def test_a_state_is_either_pending_or_an_end() -> None:
    assert set(State) == PENDING | TERMINAL
    assert not PENDING & TERMINAL
    assert {state for state in State if state.terminal} == TERMINAL


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached_from_queued(state: State) -> None:
    assert state in _reachable(State.QUEUED)


@pytest.mark.parametrize("state", sorted(PENDING))
def test_every_pending_state_has_a_way_to_every_plain_end(state: State) -> None:
    assert {State.FAILED, State.CANCELLED, State.EXPIRED} <= _reachable(state)
    assert State.COMPLETED in _reachable(state), "and none is a dead end for an answer"


@pytest.mark.parametrize("name", MOVES)
def test_a_move_leaves_pending_states_only(name: str) -> None:
    rule = MOVES[name]
    assert rule.name == name
    assert rule.sources
    assert rule.sources <= PENDING, "an end is an end"


def test_only_a_started_run_can_be_polled_collected_or_completed() -> None:
    """No run without an intent (I3): nothing that needs a run leaves `queued` other than by the intent or an end."""
    assert {target for source, target in ARROWS if source is State.QUEUED} == {
        State.STARTING,
        State.FAILED,
        State.CANCELLED,
        State.EXPIRED,
    }
    assert {source for source, target in ARROWS if target is State.STARTING} == {State.QUEUED, State.ACTION}
    assert {source for source, target in ARROWS if target is State.UNCERTAIN} == {State.STARTING}


def test_only_what_goes_on_to_the_paid_call_keeps_the_claim() -> None:
    assert [rule.name for rule in MOVES.values() if rule.keeps_claim] == ["intend", "send"]


def test_lanes_cover_the_pending_states_and_no_other() -> None:
    assert set(LANE_OF) == PENDING
    assert set(LANE_OF.values()) == set(Lane)


def test_a_move_that_stays_stays_in_its_lane() -> None:
    """`prepare`, `send`, `defer` and `wait` keep the state, so they need no lane of their own."""
    assert {rule.name for rule in MOVES.values() if rule.target is None} == {"prepare", "send", "defer", "wait"}


def test_finishing_names_a_move_for_every_end() -> None:
    assert set(FINISHING) == TERMINAL
    for state, name in FINISHING.items():
        assert MOVES[name].target is state
    assert sum(rule.target in TERMINAL for rule in MOVES.values()) == len(TERMINAL), "one move for each end"


@pytest.mark.parametrize("code", ENDS)
def test_the_state_of_an_end_is_reached_by_a_move(code: str) -> None:
    assert ENDS[code].state in FINISHING


def test_names_of_moves_fit_the_scripts() -> None:
    """A commit's token is `fence/move`; sources travel as `,a,b,`."""
    for word in [*MOVES, *State]:
        assert re.fullmatch(r"[a-z]+", word)


# -- what a move may carry -----------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [math.nan, math.inf, -math.inf])
def test_a_move_is_due_at_some_time(delay: float) -> None:
    with pytest.raises(ValueError, match=r"defer of b_0\.q1: a delay of -?(nan|inf) seconds never ends"):
        Move(job="b_0.q1", fence=1, name="defer", delay=delay)


@pytest.mark.parametrize("count", [-1, MOST_TOKENS, 7.0, math.nan, "7"])
@pytest.mark.parametrize("name", TOKEN_FIELDS)
def test_tokens_are_counted_in_whole_numbers(name: str, count: Any) -> None:
    """The script adds them up, and what it has written by then it could not take back."""
    with pytest.raises(ValueError, match=r"collect of b_0\.q1: .* is no number of tokens"):
        Move(job="b_0.q1", fence=1, name="collect", fields={name: count})
    usage = Usage(**{{"in": "input", "out": "output"}.get(name, name) + "_tokens": count})
    with pytest.raises(ValueError, match=r"complete of b_0\.q1: .* is no number of tokens"):
        Move(job="b_0.q1", fence=1, name="complete", answer=Answer(text="x", usage=usage))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_prices_and_times_are_finite(number: float) -> None:
    for more in (
        {"fields": {"deadline": number}},
        {"fields": {"cost": number}},
        {"answer": Answer(text="x", usage=Usage(cost_usd=number))},
    ):
        with pytest.raises(ValueError, match=r"b_0\.q1: (nan|inf) is not a finite number"):
            Move(job="b_0.q1", fence=1, name="complete", **more)


def test_a_plain_move_carries_anything_a_store_keeps() -> None:
    usage = Usage(input_tokens=MOST_TOKENS - 1, cost_usd=0.0)
    fields: dict[str, str | int | float | None] = {"in": 0, "total": None, "deadline": 1.5, "note": "nan"}
    move = Move(job="b_0.q1", fence=1, name="fail", delay=-1, fields=fields, answer=Answer(text="", usage=usage))
    assert (move.fields, move.delay) == (fields, -1)
    assert {field for field in record_fields(move) if field in TOKEN_FIELDS} == set(TOKEN_FIELDS)


# -- Lua -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_opens_with_what_it_takes_returns_and_leaves(path: Path) -> None:
    text = path.read_text("utf-8")
    header = re.match(r"(--.*\n)+\n", text)
    assert header is not None, "the header is a comment, then an empty line"
    lines = header.group()
    assert lines.startswith(f"-- {path.stem}: ")
    places = [lines.index(word) for word in ("\n-- KEYS[1] ", "\n-- ARGV", "\n-- Returns ")]
    assert places == sorted(places)
    assert re.search(r"Leaves (behind|nothing behind)", lines[places[-1] :])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_used_and_says_what_every_argument_is(path: Path) -> None:
    text = path.read_text("utf-8")
    callers = "".join(path.read_text("utf-8") for path in FOLDER.glob("redis_*.py"))
    assert re.search(rf'\(\s*"{path.stem}",\s', callers)
    header = text.partition("\n\n")[0]
    for name in set(re.findall(r"(?:KEYS|ARGV)\[\d+\]", text)):
        documented = name in header or any(f"per {thing}" in header for thing in ("row", "job", "object"))
        assert documented, f"{name} is not in the header"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_asks_redis_for_the_time_and_names_no_key(path: Path) -> None:
    code = re.sub(r"--.*", "", path.read_text("utf-8"))
    assert not re.search(r"os\.|math\.random", code)
    assert not re.search(r"'[^'\s]*:[^'\s]*'", code), "the key map is keys.py"


# -- keys ----------------------------------------------------------------------------------------------------


def test_no_key_is_written_outside_the_key_map() -> None:
    """Only keys.py puts together names that begin with the prefix or carry a shard's hash tag."""
    strangers = []
    for folder in ("askq", "config", "producer", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == FOLDER / "keys.py":
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and re.match(rf"{keys.PREFIX}[a-z{{]|\{{s\d", node.value)
                ):
                    strangers.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}")
    assert strangers == []


def test_the_key_map_tells_of_every_key() -> None:
    table = set(re.findall(r"^\| `(askq:[^`]+)` \|", keys.__doc__ or "", re.MULTILINE))
    made = {
        keys.HOME,
        keys.FORGETTING,
        keys.INVENTORY,
        keys.inventory("<token>"),
        keys.BATCHES,
        keys.NODES,
        keys.PAUSES,
        keys.DISK,
        keys.budget("<batch>"),
        keys.again("<batch>"),
    }
    made |= {keys.batch("<id>"), keys.assistant("<digest>"), keys.remote("<account>", "<digest>")}
    made |= {
        keys.disk_mark(7).replace("7", "<number>"),
        keys.probe("<account>"),
        re.sub(r"[0-9a-f]{64}", "<sha256>", keys.idempotency("k")),
    }
    sharded = {keys.job("<id>"), keys.ask("<id>"), keys.answer("<id>"), keys.rows(3, "<batch>")}
    sharded |= {keys.objects("<owner>"), keys.buried(3), keys.users("<thing>"), keys.uses("<user>")}
    sharded |= {keys.receipt(3, "<name>"), keys.live("<id>"), keys.teller("<id>")}
    sharded |= {keys.count(3, "<batch>"), keys.due(3, Lane.POLL), keys.lease(3, Lane.POLL), keys.dead(3)}
    sharded |= {keys.calls("<id>"), keys.functions(3), keys.clock(3)}
    made |= {keys.chains(Lane.POLL), keys.hint(Lane.POLL), keys.AUDIT_TURN, keys.AUDIT_PLACE, keys.AUDIT_LAST}
    made |= {
        keys.LIBRARIES,
        keys.item("<account>", "<name>"),
        keys.items_due("<account>"),
        keys.item_names("<account>"),
    }
    made |= {keys.WAITS, keys.took("<digest>"), keys.limit("<account>/<protocol>/<model>")}
    made |= {re.sub(r"\d+", "<number>", keys.disk_mark(7)), keys.items_clock("<account>")}
    made |= {re.sub(r"\{s\d\d\}", "{sNN}", key) for key in sharded}
    assert {re.sub(rf":{Lane.POLL}$", ":<lane>", key) for key in made} == table


def test_all_keys_of_a_job_share_the_hash_tag_of_its_shard() -> None:
    for number in range(200):
        job = f"b_0.q{number}"
        tags = {
            re.findall(r"\{s\d\d\}", key)[0]
            for key in (keys.job(job), keys.ask(job), keys.answer(job), keys.objects(job), keys.calls(job))
        }
        assert len(tags) == 1
        shard = int(tags.pop()[2:4])
        assert 0 <= shard < SHARDS
        assert keys.job(job) == keys.job_stem(shard) + job
        assert keys.ask(job) == keys.ask_stem(shard) + job
        for key in (keys.due(shard, Lane.START), keys.rows(shard, "b_0"), keys.count(shard, "b_0")):
            assert key.startswith(keys.shard_prefix(shard))


def test_what_people_write_does_not_bend_a_key() -> None:
    assert keys.idempotency("a") != keys.idempotency("b")
    assert re.fullmatch(r"askq:idem:[0-9a-f]{64}", keys.idempotency("any {text} № 1 \n"))


def test_forgetting_erases_every_key_of_a_job() -> None:
    """Whoever gives jobs another key adds it to `keys.of_job`: what is not there would outlive `askq forget`."""
    job = "b_0.q1"
    made = {
        name: make(job)
        for name, make in inspect.getmembers(keys, inspect.isfunction)
        if list(inspect.signature(make).parameters) == ["job_id"] and name not in ("of_job", "job")
    }
    assert set(made.values()) <= set(keys.of_job(job)), made
