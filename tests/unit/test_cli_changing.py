"""`cancel`, `retry`, `resume`, `list --dead`, `--max-cost`: what they say, do and return, and their Python twins."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from askq.errors import BudgetUsedUp
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import DEAD_LETTER, Lane, Move, State
from producer import Client
from tests.unit.cli_stage import Asked, end_all

PRICED = """
model = "house"
max_output_tokens = 100
price = { input = 1.0, output = 10.0 }
"""


@pytest.fixture
def batch(store: MemoryStore, askq: Asked, questions: Path) -> str:
    """A batch of two questions, a and b."""
    return str(askq("submit", questions)[1].strip())


def states(store: MemoryStore, batch: str) -> dict[str, str]:
    return {job.question.row_id: job.state.value for job in store.jobs(batch)}


def start(store: MemoryStore, row: str) -> None:
    """Let a run of one question exist."""
    for claim in store.claim(Lane.START, range(16), limit=100, lease_s=60):
        if claim.id.endswith(f".{row}"):
            for name in ("intend", "start"):
                store.commit([Move(job=claim.id, fence=claim.fence, name=name, delay=600)])
        else:
            store.commit([Move(job=claim.id, fence=claim.fence, name="defer")])


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Somebody who sits at the terminal and answers."""

    def answers(text: str) -> None:
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: text)

    return answers


# -- cancel --------------------------------------------------------------------------------------------------


def test_cancel_ends_what_is_queued_and_asks_for_the_rest(store: MemoryStore, askq: Asked, batch: str) -> None:
    start(store, "b")
    code, out, err = askq("cancel", batch, "--yes")
    assert (code, out) == (0, "")
    assert err == "2 questions will be cancelled.\nWorkers tell the service; `askq status` shows when it is done.\n"
    assert states(store, batch) == {"a": "cancelled", "b": "running"}
    assert store.batch(batch).pending == 1  # type: ignore[union-attr]
    code, _, err = askq("cancel", batch, "--yes", "--json")
    assert code == 0
    assert err == ""


def test_cancel_says_in_json_what_it_did(store: MemoryStore, askq: Asked, batch: str) -> None:
    start(store, "b")
    told = [json.loads(askq("cancel", "@last", "--yes", "--json")[1]) for _ in range(2)]
    assert told == [{"cancelled": 2, "already": 0}, {"cancelled": 0, "already": 1}]


@pytest.mark.parametrize("given", ["{batch}.a", "@last.a", "{short}.a"])
def test_cancel_takes_single_questions(store: MemoryStore, askq: Asked, batch: str, given: str) -> None:
    code, _, err = askq("cancel", given.format(batch=batch, short=batch[:-3]), "-y")
    assert (code, err) == (0, "1 question will be cancelled.\n")
    assert states(store, batch) == {"a": "cancelled", "b": "queued"}


def test_cancel_leaves_what_has_ended_and_says_so(store: MemoryStore, askq: Asked, batch: str) -> None:
    end_all(store)
    code, _, err = askq("cancel", f"{batch}.a", batch)
    assert (code, err) == (0, f"{batch}.a is completed: left as it is\n0 questions will be cancelled.\n")


def test_cancel_all_means_every_batch_that_is_not_finished(store: MemoryStore, askq: Asked, questions: Path) -> None:
    first = askq("submit", questions)[1].strip()
    end_all(store)
    others = [askq("submit", questions, "--idempotency-key", key)[1].strip() for key in "xy"]
    assert askq("cancel", "--all", "-y")[2].startswith("4 questions will be cancelled.")
    assert set(states(store, first).values()) == {"completed"}
    assert {state for other in others for state in states(store, other).values()} == {"cancelled"}


def test_cancel_is_confirmed_by_a_person_or_by_yes(store: MemoryStore, askq: Asked, batch: str, person: Any) -> None:
    code, out, err = askq("cancel", batch)
    assert (code, out) == (2, "")
    assert "nobody can be asked here" in err
    assert "--yes" in err
    person("n")
    assert askq("cancel", batch)[0] == 3
    assert set(states(store, batch).values()) == {"queued"}
    person("y")
    assert askq("cancel", batch)[0] == 0
    assert set(states(store, batch).values()) == {"cancelled"}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["cancel"], "name batches or jobs, or give --all"),
        (["cancel", "@last", "--all"], "name batches or jobs, or give --all"),
        (["cancel", "b_nothing", "-y"], "there is no batch b_nothing"),
        (["cancel", "@last.zzz", "-y"], "there is no job @last.zzz"),
        (["retry"], "Missing argument"),
        (["retry", "b_nothing"], "there is no batch b_nothing"),
        (["retry", "@last.zzz"], "there is no job @last.zzz"),
        (["retry", "@last", "--only", "failed", "--all"], "--only and --all exclude each other"),
        (["retry", "@last", "--only", "completed"], "'completed' is not one of"),
        (["resume", "--max-cost", "5"], "--max-cost needs the batch"),
        (["resume", "@last", "--max-cost", "5"], "was submitted without a budget"),
        (["resume", "b_nothing"], "there is no batch b_nothing"),
        (["resume", "@last", "--max-cost", "0"], "is not in the range"),
        (["resume", "@last", "--max-cost", "nan"], "'nan' is no amount of dollars"),
        (["resume", "@last", "--max-cost", "inf"], "is not in the range"),
        (["submit", "x.csv", "--max-cost", "-1"], "is not in the range"),
        (["run", "x.csv", "--max-cost", "much"], "is not a valid float"),
    ],
)
def test_what_makes_no_sense_is_told_and_changes_nothing(
    store: MemoryStore, askq: Asked, batch: str, argv: list[str], told: str
) -> None:
    code, out, err = askq(*argv)
    assert (code, out) == (2, "")
    assert told in err
    assert set(states(store, batch).values()) == {"queued"}


# -- retry ---------------------------------------------------------------------------------------------------


def test_retry_asks_again_what_failed_or_expired(store: MemoryStore, askq: Asked, batch: str) -> None:
    end_all(store, {"a": State.FAILED, "b": State.UNCERTAIN})
    code, out, err = askq("retry", "@last")
    assert (code, out) == (0, "")
    assert "1 question will be asked again." in err
    assert "Not asked again: 1 uncertain (--only uncertain)." in err
    assert "No worker is running" in err
    assert states(store, batch) == {"a": "queued", "b": "uncertain"}
    job = store.job(f"{batch}.a")
    assert job is not None
    assert (job.retries, job.error_code) == (1, None)
    assert "asked again 1 time\n" in askq("show", "@last.a")[1]
    assert askq("retry", "@last")[2].startswith("0 questions")


@pytest.mark.parametrize("end", ["cancelled", "expired", "failed", "incomplete", "uncertain"])
def test_retry_takes_the_ends_it_is_told(store: MemoryStore, askq: Asked, batch: str, end: str) -> None:
    end_all(store, {"a": State(end)})
    assert askq("retry", batch, "--only", end, "--yes")[0] == 0
    assert states(store, batch) == {"a": "queued", "b": "completed"}


def test_retry_all_means_everything_without_a_complete_answer(store: MemoryStore, askq: Asked, batch: str) -> None:
    end_all(store, {"a": State.UNCERTAIN})
    code, out, _ = askq("retry", batch, "--all", "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"retried": 1, "expired": 0})
    assert states(store, batch) == {"a": "queued", "b": "completed"}


def test_what_may_have_been_paid_for_must_be_confirmed(
    store: MemoryStore, askq: Asked, batch: str, person: Any
) -> None:
    end_all(store, {"a": State.UNCERTAIN, "b": State.FAILED})
    code, _, err = askq("retry", batch, "--all")
    assert code == 2
    assert "nobody can be asked here" in err
    person("n")
    code, _, _ = askq("retry", batch, "--all")
    assert code == 3
    assert states(store, batch) == {"a": "uncertain", "b": "failed"}
    person("y")
    assert askq("retry", batch, "--all")[0] == 0
    assert states(store, batch) == {"a": "queued", "b": "queued"}


def test_a_dry_run_of_retry_only_counts(store: MemoryStore, askq: Asked, batch: str) -> None:
    end_all(store, {"a": State.UNCERTAIN, "b": State.FAILED})
    code, out, err = askq("retry", batch, "--all", "--dry-run")
    assert (code, out, err) == (0, "", "Would ask 2 questions again: 1 failed, 1 uncertain.\n")
    assert json.loads(askq("retry", batch, "--dry-run", "--json")[1]) == {"would_retry": {"failed": 1}}
    assert states(store, batch) == {"a": "uncertain", "b": "failed"}


def test_retry_leaves_a_question_that_is_pending_or_answered(store: MemoryStore, askq: Asked, batch: str) -> None:
    assert f"{batch}.a is queued: left as it is" in askq("retry", f"{batch}.a")[2]
    end_all(store)
    assert f"{batch}.a is completed: left as it is" in askq("retry", f"{batch}.a", "--all", "-y")[2]
    assert set(states(store, batch).values()) == {"completed"}


def test_a_question_whose_result_expires_meanwhile_is_told(
    store: MemoryStore, askq: Asked, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_all(store, {"a": State.FAILED, "b": State.FAILED})
    again = store.retry

    def late(jobs: Any, ends: Any) -> Any:
        del store._records[f"{batch}.a"]
        return again(jobs, ends)

    monkeypatch.setattr(store, "retry", late)
    code, _, err = askq("retry", batch)
    assert code == 0
    assert "1 question will be asked again.\n1 question had expired: submit them again." in err


def test_retry_may_wait_for_the_end(
    store: MemoryStore, askq: Asked, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_all(store, {"a": State.FAILED})
    again = store.retry

    def and_work(jobs: Any, ends: Any) -> Any:
        found = again(jobs, ends)
        end_all(store)
        return found

    monkeypatch.setattr(store, "retry", and_work)
    code, _, err = askq("retry", batch, "--wait")
    assert code == 0
    assert "2/2 done" in err


# -- resume, dead letters ------------------------------------------------------------------------------------


def test_resume_ends_every_pause(store: MemoryStore, askq: Asked, batch: str) -> None:
    assert askq("resume") == (0, "", "Nothing was paused.\n")
    store.pause("acc", "quota_exhausted", "no credit", probe_after_s=600)
    store.pause("acc", "endpoint_gone", "gone", probe_after_s=600, protocol="assistants")
    code, out, err = askq("resume")
    assert (code, out) == (0, "")
    assert sorted(err.splitlines()) == ["no longer paused: endpoint_gone", "no longer paused: quota_exhausted"]
    assert store.pauses() == []
    assert store.probe("acc", again_after_s=1), "and nobody has to wait"
    store.pause("acc", "rejected_key", "no", probe_after_s=600)
    assert json.loads(askq("resume", batch, "--json")[1]) == {"resumed": ["rejected_key"], "max_cost_usd": None}


def test_dead_letters_are_listed_newest_first(store: MemoryStore, askq: Asked, batch: str) -> None:
    assert askq("list", "--dead") == (0, "", "There are no dead letters.\n")
    assert askq("list", "--dead", "--json")[1] == "[]\n"
    for claim in sorted(store.claim(Lane.START, range(16), limit=10, lease_s=60), key=lambda claim: claim.id):
        store.commit([Move(job=claim.id, fence=claim.fence, name="fail", fields={"error_code": DEAD_LETTER})])
    _, out, _ = askq("list", "--dead")
    assert [line.split("\t")[0] for line in out.splitlines()] == [f"{batch}.b", f"{batch}.a"]
    assert [sorted(entry) for entry in json.loads(askq("list", "--dead", "--json")[1])] == [["given_up_at", "id"]] * 2
    askq("retry", f"{batch}.a")
    assert [entry["id"] for entry in json.loads(askq("list", "--dead", "--json")[1])] == [f"{batch}.b"]


# -- budgets -------------------------------------------------------------------------------------------------


@pytest.fixture
def priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of assistants whose only one has a price."""
    folder = tmp_path / "assistants"
    folder.mkdir()
    (folder / "house.toml").write_text(PRICED, "utf-8")
    monkeypatch.setenv("ASKQ_ASSISTANTS_DIR", str(folder))
    return folder


def test_a_budget_is_kept_shown_and_raised(store: MemoryStore, askq: Asked, questions: Path, priced: Path) -> None:
    batch = askq("submit", questions, "-a", "house", "--max-cost", "0.5")[1].strip()
    assert store.reserve(f"{batch}.a", 1, 0.2)
    store.settle(f"{batch}.a", 1, 0.15)
    assert store.reserve(f"{batch}.b", 1, 0.3)
    assert "budget:    $0.50: $0.1500 spent, $0.3000 put aside" in askq("status")[1]
    assert json.loads(askq("status", "--json")[1])["budget"] == {
        "limit_usd": 0.5, "spent_usd": 0.15, "reserved_usd": 0.3,
    }  # fmt: skip
    assert not store.reserve(f"{batch}.c", 1, 0.1)
    told = askq("status")[1]
    assert "PAUSED:    budget_exceeded" in told
    assert "askq resume BATCH --max-cost USD" in told
    code, _, err = askq("resume", batch, "--max-cost", "0.4")
    assert code == 2
    assert "$0.4500 of batch" in err
    assert askq("resume", "@last", "--max-cost", "2") == (0, "", "budget: $2.00\n")
    assert store.reserve(f"{batch}.c", 1, 0.1)
    assert json.loads(askq("resume", "@last", "--max-cost", "3", "--json")[1]) == {"resumed": [], "max_cost_usd": 3.0}


def test_a_budget_that_is_used_up_ends_the_wait_with_what_to_do(
    store: MemoryStore, askq: Asked, questions: Path, priced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("askq.jobs.model._ALL_HAVE_ASKED_S", 0.0)
    batch = askq("submit", questions, "-a", "house", "--max-cost", "0.0001")[1].strip()
    assert not store.reserve(f"{batch}.a", 1, 0.2)
    for argv in (["watch"], ["run", questions, "-a", "house", "--max-cost", "0.0001", "--no-worker", "--timeout", "0"]):
        if argv[0] == "run":
            code, _, err = askq(*argv)
            assert code == 3, "a list of its own, of which nothing was refused yet"
        else:
            code, _, err = askq(*argv)
            assert code == 8
            assert f"the budget of batch {batch} is used up" in err
            assert f"askq resume {batch} --max-cost USD" in err
            assert f"askq results {batch} --partial" in err
    with pytest.raises(BudgetUsedUp), Client(store=store) as client:
        client.batch(batch).wait(timeout=60)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('model = "house"\nprice = { input = 1.0, output = 10.0 }\n', "sets no max_output_tokens"),
        ('model = "house"\nmax_output_tokens = 100\n', "the price of model house at 127.0.0.1 is not known"),
        (PRICED + 'tools = [{ type = "code_interpreter" }]\n', "sets no max_prompt_tokens"),
    ],
)
def test_a_budget_needs_an_assistant_of_whom_the_worst_is_known(
    store: MemoryStore, askq: Asked, questions: Path, priced: Path, text: str, told: str
) -> None:
    (priced / "house.toml").write_text(text, "utf-8")
    for command in ("submit", "run"):
        code, out, err = askq(command, questions, "-a", "house", "--max-cost", "1")
        assert (code, out) == (2, "")
        assert told in err
    assert store.batches() == []


def test_a_budget_looks_at_the_models_of_rows_too(
    store: MemoryStore, askq: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given an assistant of a known price and one row for another model, then that row is what is complained of."""
    folder = tmp_path / "known"
    folder.mkdir()
    (folder / "known.toml").write_text('model = "gpt-5"\nmax_output_tokens = 100\n', "utf-8")
    monkeypatch.setenv("ASKQ_ASSISTANTS_DIR", str(folder))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-used-for-anything")
    lines = [{"id": "a", "question": "Hi?"}, {"id": "b", "question": "Hi?", "model": "house-model-7b"}]
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    code, _, err = askq("submit", listed, "-a", "known", "--max-cost", "1")
    assert code == 2
    assert "the price of model house-model-7b at api.openai.com is not known" in err
    assert askq("submit", listed, "-a", "known", "--max-cost", "1", "--limit", "1")[0] == 0
    assert store.batches()[0].budget is not None


def test_a_batch_that_began_without_a_bound_gets_none_later(
    store: MemoryStore, askq: Asked, questions: Path, priced: Path
) -> None:
    assert askq("submit", questions, "-a", "house", "--idempotency-key", "k")[0] == 0
    code, _, err = askq("submit", questions, "-a", "house", "--idempotency-key", "k", "--max-cost", "1")
    assert code == 2
    assert "was submitted without a budget" in err
    askq("submit", questions, "-a", "house", "--idempotency-key", "K", "--max-cost", "1")
    assert askq("submit", questions, "-a", "house", "--idempotency-key", "K", "--max-cost", "2")[0] == 0
    assert store.batches()[0].budget.limit_usd == 2.0  # type: ignore[union-attr]


# -- the same in Python --------------------------------------------------------------------------------------


def test_batches_are_cancelled_and_asked_again_from_python(store: MemoryStore) -> None:
    with Client(store=store) as client:
        batch = client.submit([f"What is {number}?" for number in range(4)])
        start(store, "q0004")
        assert batch.cancel() == 4
        assert batch.refresh().counts[State.CANCELLED] == 3
        assert batch.cancel() == 0
        assert batch.retry() == 0, "failed and expired ones, as a rule"
        assert batch.retry({State.CANCELLED}) == 3
        end_all(store, {"q0001": State.FAILED, "q0002": State.EXPIRED, "q0003": State.UNCERTAIN})
        assert batch.retry() == 2
        assert batch["q0003"].state is State.UNCERTAIN
        assert batch.retry({State.UNCERTAIN, State.COMPLETED}) == 1
        assert batch["q0003"].retries == 2


def test_what_cancelled_questions_had_put_aside_is_free_again(
    store: MemoryStore, askq: Asked, questions: Path, priced: Path
) -> None:
    batch = askq("submit", questions, "-a", "house", "--max-cost", "1")[1].strip()
    assert store.reserve(f"{batch}.a", 1, 0.4)
    assert askq("cancel", batch, "-y")[0] == 0
    status = store.batch(batch)
    assert status is not None
    assert status.budget is not None
    assert (status.budget.spent_usd, status.budget.reserved_usd) == (0.0, 0.0)
