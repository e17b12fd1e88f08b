"""The command line without any server: what it says, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from askq.assistants.model import Assistant
from askq.embedded.supervisor import Supervisor
from askq.errors import AskqError, ConfigError, EmbeddedError, InputError
from askq.jobs.health import Health
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Answer, Lane, Move, State
from askq.pauses import PAUSES
from producer import Client
from producer.cli import run
from producer.cli.workers import kept_running, require_hope
from producer.parts import Parts
from producer.questions import open_list
from producer.submit import Submission, submit
from tests.parts import eventually, free_port
from tests.unit.cli_stage import Asked, end_all

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "run", "ask", "chat", "submit", "status", "watch", "results", "show", "list", "cancel", "retry", "forget",
    "cleanup", "resume", "sweep", "files", "stores", "assistants", "up", "worker", "flower", "local-api", "doctor",
    "completion",
]  # fmt: skip


def test_help_names_every_command_and_imports_none() -> None:
    """`askq --help` must be quick: it imports neither celery, openai, redis nor rich."""
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; from producer.cli import run; code = run(['--help'])\n"
                "print(sorted({'celery', 'openai', 'redis', 'rich', 'kombu', 'jsonschema'} & set(sys.modules)))\n"
                "sys.exit(code)"
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    *help_text, loaded = told.strip().splitlines()
    assert loaded == "[]"
    for command in COMMANDS:
        assert any(line.strip().startswith(command) for line in help_text), command


def test_reading_imports_neither_celery_nor_openai() -> None:
    script = (
        "import sys; import producer.cli.sweep, askq.jobs.auditor;"
        "import producer.cli.reading, producer.parts, producer.client, askq.jobs.redis_store;"
        "from producer import Client; assert not {'celery', 'openai', 'kombu'} & set(sys.modules), 'too much'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(askq: Asked, command: str) -> None:
    code, out, err = askq(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: askq {command}")


def test_version(askq: Asked) -> None:
    assert askq("--version")[:2] == (0, "askq, version 0.1.0\n")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["statu"], "Did you mean status?"),
        (["run", "--outptu", "x"], "Did you mean '--output'?"),
        (["run"], "Missing argument 'FILE|-'"),
        (["show"], "Missing argument 'JOB'"),
        (["results", "--only", "some"], "'some' is not one of"),
        (["run", "x.csv", "--protocol", "smtp"], "'smtp' is not one of"),
        (["run", "x.csv", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_a_typo_is_answered_with_what_was_meant(askq: Asked, argv: list[str], told: str) -> None:
    code, out, err = askq(*argv)
    assert (code, out) == (2, "")
    assert told in err


def test_submit_prints_the_id_and_nothing_else(store: MemoryStore, askq: Asked, questions: Path) -> None:
    code, out, err = askq("submit", questions)
    (status,) = store.batches()
    assert (code, out) == (0, status.id + "\n")
    assert "No worker is running" in err
    assert f"next: askq watch {status.id}" in err
    assert (status.total, status.sealed, status.counts[State.QUEUED]) == (2, True, 2)
    job = store.job(f"{status.id}.b")
    assert job is not None
    assert (job.question.text, job.question.input) == ("What is 2, plus 2?", {"topic": "sums"})


def test_submit_under_a_key_adds_what_is_missing(store: MemoryStore, askq: Asked, questions: Path) -> None:
    _, first, _ = askq("submit", questions, "--idempotency-key", "k")
    with questions.open("a", encoding="utf-8") as file:
        file.write("c,What is 3 + 3?,sums\n")
    code, second, err = askq("submit", questions, "--idempotency-key", "k")
    assert (code, second) == (0, first)
    assert "2 known, 1 added" in err
    assert store.batches()[0].total == 3


def test_a_changed_row_under_the_same_key_is_refused_and_adds_nothing(
    store: MemoryStore, askq: Asked, questions: Path
) -> None:
    askq("submit", questions, "--idempotency-key", "k")
    questions.write_text("id,question\na,What is 1 + 2?\nz,New?\n", "utf-8")
    code, out, err = askq("submit", questions, "--idempotency-key", "k")
    assert (code, out) == (2, "")
    assert "row a is in batch" in err
    assert "another idempotency key" in err
    assert store.batches()[0].total == 2


def test_a_dry_run_stores_nothing(store: MemoryStore, askq: Asked, questions: Path) -> None:
    code, out, err = askq("submit", questions, "--dry-run")
    assert (code, out) == (0, "")
    assert "2 questions (csv" in err
    assert store.batches() == []


def test_a_wrong_list_queues_nothing(store: MemoryStore, askq: Asked, questions: Path) -> None:
    questions.write_text("id,question\na,\nb,ok\nb,again\n", "utf-8")
    for argv in (["submit", questions], ["run", questions]):
        code, out, err = askq(*argv)
        assert (code, out) == (2, "")
        assert "questions.csv:2: the question is empty" in err
        assert "Traceback" not in err
    assert store.batches() == []


@pytest.mark.parametrize("argv", [["submit"], ["run"]])
def test_an_unknown_assistant_is_named_with_those_that_exist(
    store: MemoryStore, askq: Asked, questions: Path, argv: list[str]
) -> None:
    code, _, err = askq(*argv, questions, "-a", "tutr")
    assert code == 2
    assert "Did you mean tutor?" in err
    assert store.batches() == []


def test_meta_takes_pairs(store: MemoryStore, askq: Asked, questions: Path) -> None:
    assert askq("submit", questions, "--meta", "team=support", "--meta", "x=1=2")[0] == 0
    assert store.batches()[0].metadata == {"team": "support", "x": "1=2"}
    code, _, err = askq("submit", questions, "--meta", "team")
    assert code == 2
    assert "--meta takes KEY=VALUE" in err


def test_status_of_a_batch(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions, "--name", "weekly")
    code, out, _ = askq("status", "@last")
    assert code == 0
    assert "weekly" in out
    assert "2 queued" in out
    assert askq("status", "--exit-status")[0] == 8
    end_all(store, {"b": State.FAILED})
    code, out, _ = askq("status")
    assert "finished: 1 completed, 1 failed" in out
    assert askq("status", "--exit-status")[0] == 5
    record = json.loads(askq("status", "--json")[1])
    assert list(record) == [
        "id", "name", "assistant", "protocol", "metadata", "done", "submitted", "total", "pending", "counts", "usage",
        "budget", "paused", "limited", "created_at", "finished_at",
    ]  # fmt: skip
    assert record["counts"]["completed"] == 1
    assert record["usage"]["total_tokens"] == 14


def test_a_pause_is_shown_with_its_reason(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    store.pause("acc", "rejected_key", "Incorrect API key", probe_after_s=30)
    told = askq("status")[1]
    assert re.search(r"PAUSED: +rejected_key since \S+: Incorrect API key\n", told)
    assert PAUSES["rejected_key"].remedy in told
    (shown,) = json.loads(askq("status", "--json")[1])["paused"]
    assert (shown["code"], shown["message"]) == ("rejected_key", "Incorrect API key")


def test_ids_may_be_shortened_while_they_are_unique(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    batch = store.batches()[0].id
    assert askq("status", batch[:20])[0] == 0
    askq("submit", questions, "--idempotency-key", "other")
    code, _, err = askq("status", batch[:4])
    assert code == 2
    assert "Write more of the id" in err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["status", "b_nothing"], "there is no batch b_nothing"),
        (["watch", "b_nothing"], "there is no batch b_nothing"),
        (["results", "b_nothing"], "there is no batch b_nothing"),
        (["show", "b_nothing.q1"], "there is no batch b_nothing"),
        (["show", "q1"], "q1 is no job's id"),
        (["results", "b_nothing.q1"], "`askq show b_nothing.q1` shows it"),
        (["status"], "no list was submitted from this folder yet"),
    ],
)
def test_an_unknown_id_is_said_to_be_one(store: MemoryStore, askq: Asked, argv: list[str], told: str) -> None:
    code, out, err = askq(*argv)
    assert (code, out) == (2, "")
    assert told in err


def test_results_come_in_the_order_of_the_list(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    code, out, err = askq("results")
    assert (code, out) == (8, "")
    assert "2 of 2 pending" in err
    assert len(askq("results", "--partial")[1].splitlines()) == 2
    end_all(store, {"b": State.FAILED})
    code, out, _ = askq("results")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["custom_id"] for line in lines] == ["a", "b"]
    assert lines[0]["answer"] == "answer a"
    assert lines[1]["error"]["remedy"]
    assert [json.loads(line)["custom_id"] for line in askq("results", "--only", "failed")[1].splitlines()] == ["b"]


def test_results_into_files_by_their_suffix(store: MemoryStore, askq: Asked, questions: Path, tmp_path: Path) -> None:
    askq("submit", questions)
    end_all(store)
    code, out, err = askq("results", "-o", "a.csv", "-o", "a.jsonl")
    assert (code, out) == (0, "")
    assert "2 answers: a.csv" in err
    header = (tmp_path / "a.csv").read_text("utf-8-sig").splitlines()[0]
    assert header.startswith('"id","question","topic","answer","status"')
    code, _, err = askq("results", "-o", "a.xlsx")
    assert code == 2
    assert "Write .csv" in err
    assert askq("results", "-f", "table", "-o", "x.csv")[0] == 2


def test_results_as_a_table(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    end_all(store)
    assert "\x1b" not in askq("results", "-f", "table")[1], "what is no terminal gets no colours"
    _, out, _ = askq("--no-color", "results", "-f", "table")
    assert "answer a" in out
    assert "\x1b" not in out
    assert "more" not in out
    # What there is no more of is not promised.
    assert "more" not in askq("--no-color", "results", "-f", "table", "--only", "completed")[1]


def test_a_filtered_table_counts_what_it_filtered(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    end_all(store, {"b": State.FAILED})
    _, out, _ = askq("--no-color", "results", "-f", "table", "--only", "failed")
    assert "server_error" in out
    assert "more" not in out


def test_show_tells_everything_about_one_question(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    end_all(store, {"b": State.FAILED})
    code, out, _ = askq("show", "@last.a")
    assert code == 0
    for part in ("What is 1 + 1?", "answer a", "print(2)", "7 tokens", "topic:"):
        assert part in out
    assert "server_error: oops" in askq("show", "@last.b")[1]
    code_only = askq("show", "@last.a", "--code")[1]
    assert "print(2)" in code_only
    assert "answer a" not in code_only
    record = json.loads(askq("show", "@last.a", "--json")[1])
    assert (record["answer"], record["state"]) == ("answer a", "completed")
    code, _, err = askq("show", "@last.zzz")
    assert code == 2
    assert "there is no job" in err


def test_terminal_controls_in_answers_do_not_reach_the_terminal(
    store: MemoryStore, askq: Asked, questions: Path
) -> None:
    askq("submit", questions)
    claim = store.claim(Lane.START, range(16), limit=1, lease_s=60)[0]
    store.commit([Move(job=claim.id, fence=claim.fence, name="intend")])
    evil = Answer(text="\x1b]0;owned\x07hello\x1b[2J")
    store.commit([Move(job=claim.id, fence=claim.fence, name="complete", answer=evil)])
    out = askq("show", claim.id)[1]
    assert "hello" in out
    assert "\x1b" not in out


def test_list_shows_the_newest_first(store: MemoryStore, askq: Asked, questions: Path) -> None:
    assert "No list was submitted yet" in askq("list")[2]
    for name in ("one", "two"):
        askq("submit", questions, "--name", name)
    _, out, _ = askq("list")
    first, second = out.splitlines()
    assert first.endswith("two")
    assert second.endswith("one")
    assert [entry["name"] for entry in json.loads(askq("list", "--json")[1])] == ["two", "one"]


def test_watch_follows_to_the_end(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("submit", questions)
    code, _, err = askq("watch", "--timeout", "0", "--interval", "0.1")
    assert code == 3
    assert "is not finished after 0 s" in err
    assert "No worker is running" in err
    end_all(store, {"b": State.FAILED})
    code, out, err = askq("watch")
    assert (code, out) == (0, "")
    assert "2/2 done" in err
    assert "No worker is running" not in err
    assert askq("watch", "--exit-status")[0] == 5


def test_quiet_says_nothing(store: MemoryStore, askq: Asked, questions: Path) -> None:
    code, out, err = askq("-q", "submit", questions)
    assert (code, err) == (0, "")
    assert out.startswith("b_")


def test_a_finished_list_is_answered_from_the_store(
    store: MemoryStore, askq: Asked, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the list was answered, when the command is run again, then no part is started and nothing is paid."""
    monkeypatch.setattr(Parts, "api", lambda self: pytest.fail("the API is not needed"))

    with pytest.raises(BaseException, match="the API is not needed"):
        run(["run", str(questions)])
    assert store.batches() == [], "nothing is queued before the API has answered"
    assert askq("run", questions, "--no-worker", "--timeout", "0")[0] == 3
    end_all(store)
    code, _, err = askq("run", questions)
    assert code == 0
    assert "answered before" in err
    assert (tmp_path / "answers.csv").exists()
    assert askq("run", questions, "--new", "--no-worker", "--timeout", "0")[0] == 3
    assert len(store.batches()) == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [([], "The same command goes on with it."), (["--new"], "It goes on as soon as a worker runs (`askq up`).")],
)
def test_whoever_stops_waiting_is_told_what_goes_on(
    store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("producer.cli.run._wait", interrupted)
    code, _, err = askq("run", questions, "--no-worker", *options)
    assert code == 130
    assert f"nothing is lost. {told}" in err


def test_run_says_when_some_have_no_answer(store: MemoryStore, askq: Asked, questions: Path) -> None:
    askq("run", questions, "--no-worker", "--timeout", "0")
    end_all(store, {"a": State.FAILED})
    code, out, err = askq("run", questions, "--json")
    assert code == 5
    assert "1 completed, 1 failed" in err
    assert json.loads(out)["outputs"] == ["answers.csv"]


def test_run_refuses_a_place_it_cannot_write_before_anything_else(
    store: MemoryStore, askq: Asked, questions: Path
) -> None:
    code, _, err = askq("run", questions, "-o", "nowhere/answers.csv")
    assert code == 1
    assert "there is no folder nowhere" in err
    assert store.batches() == []


def test_run_never_writes_over_the_list(
    store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = questions.read_bytes()
    Path("link.csv").symlink_to(questions)
    os.link(questions, "answers.csv")
    for outputs in (["-o", str(questions)], ["-o", "other.jsonl", "-o", "link.csv"], []):
        code, _, err = askq("run", questions, *outputs)
        assert code == 2
        assert "the answers would overwrite the list" in err
    assert questions.read_bytes() == before
    assert store.batches() == []


def test_standard_output_takes_one_document(store: MemoryStore, askq: Asked, questions: Path) -> None:
    code, out, err = askq("run", questions, "-o", "-", "--json")
    assert (code, out) == (2, "")
    assert "would both write to standard output" in err
    assert store.batches() == []


def test_a_format_that_cannot_be_written_is_wrong_usage(store: MemoryStore, askq: Asked, questions: Path) -> None:
    for place in ("a.xlsx", "a"):
        code, _, err = askq("run", questions, "-o", place)
        assert code == 2
        assert f"cannot be written to {place}" in err
    assert store.batches() == []


def test_assistants_that_rows_name_are_told_with_their_lines(store: MemoryStore, askq: Asked, questions: Path) -> None:
    questions.write_text("question,assistant\na,plain\nb,tuter\nc,nosuch\n", "utf-8")
    for command in ("run", "submit"):
        code, _, err = askq(command, questions)
        assert code == 2
        assert f"{questions}:3: there is no assistant called 'tuter'" in err
        assert "Did you mean tutor?" in err
        assert f"{questions}:4: there is no assistant called 'nosuch'" in err
        assert '(column "assistant")' in err
    assert store.batches() == []


def test_settings_that_are_wrong_are_told_together(askq: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKQ_WORKERS", "many")
    monkeypatch.setenv("ASKQ_LEASES", "3")
    code, _, err = askq("status")
    assert code == 4
    assert "ASKQ_WORKERS=many" in err
    assert "did you mean ASKQ_LEASE_S?" in err


def test_a_base_url_needs_a_key(
    store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    code, _, err = askq("run", questions)
    assert code == 4
    assert "there is no key for it" in err
    assert store.batches() == []


def test_an_api_that_does_not_answer_is_told_before_anything_is_queued(
    store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret")
    code, _, err = askq("run", questions)
    assert code == 1
    assert "does not answer" in err
    assert "sk-secret" not in err
    assert store.batches() == []


def test_the_chat_server_behind_the_local_api_is_asked_before_anything_is_queued(
    store: MemoryStore, askq: Asked, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASKQ_LOCAL_ENGINE", "chat")
    code, _, err = askq("run", questions)
    assert code == 4
    assert "Set ASKQ_CHAT_URL" in err
    monkeypatch.setenv("ASKQ_CHAT_URL", f"http://127.0.0.1:{free_port()}/v1")
    code, _, err = askq("run", questions)
    assert code == 1
    assert "does not answer" in err
    assert "Check the network and ASKQ_CHAT_URL" in err
    assert store.batches() == []


def test_a_redis_that_does_not_answer(askq: Asked, questions_elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:9/0")
    for argv in (["status", "b_x"], ["run", questions_elsewhere], ["submit", questions_elsewhere]):
        code, out, err = askq(*argv)
        assert (code, out) == (1, "")
        assert "does not answer" in err
        assert "REDIS_URL" in err
        assert "hunter2" not in err


@pytest.fixture
def questions_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "list.txt"
    path.write_text("What is 1 + 1?\n", "utf-8")
    return path


def test_an_unsafe_redis_is_refused() -> None:
    health = Health(version="7", append_only=False, eviction="allkeys-lru", used_memory=1, max_memory=2)
    with pytest.raises(AskqError) as caught:
        health.require_safe()
    assert caught.value.exit_code == 1
    assert "append-only file is off" in str(caught.value)
    assert "allkeys-lru" in str(caught.value)
    assert "ASKQ_ALLOW_UNSAFE_REDIS" in str(caught.value)


def test_assistants_are_listed_shown_and_checked(askq: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASKQ_ASSISTANTS_DIR", str(tmp_path))
    (tmp_path / "mine.toml").write_text('description = "Mine"\n', "utf-8")
    (tmp_path / "bad.toml").write_text('modle = "x"\ntemperature = 9\n', "utf-8")
    _, out, _ = askq("assistants", "list")
    assert "Mine" in out
    assert "2 problems" in out
    assert "tutor" in out, "those that came with askq are there too"
    shown = json.loads(askq("assistants", "show", "mine", "--json")[1])
    assert (shown["name"], len(shown["digest"])) == ("mine", 16)
    (tmp_path / "mine.toml").write_text('tools = ["code_interpreter"]\ninstructions = "두 줄\\n"\n', "utf-8")
    lines = dict(line.split(":", 1) for line in askq("assistants", "show", "mine")[1].splitlines() if ":" in line)
    assert lines["tools"].strip() == '[{"type": "code_interpreter"}]'
    assert lines["instructions"].strip() == "두 줄"
    code, _, err = askq("assistants", "validate")
    assert code == 2
    assert "bad.toml:1" in err
    assert "bad.toml:2" in err
    assert askq("assistants", "validate", "mine")[0] == 0
    assert json.loads(askq("assistants", "schema")[1])["title"] == "askq assistant"
    assert askq("assistants", "show", "bad")[0] == 2


def test_completion_scripts(askq: Asked) -> None:
    for shell in ("bash", "zsh", "fish"):
        code, out, _ = askq("completion", shell)
        assert code == 0
        assert "_ASKQ_COMPLETE" in out


def test_the_python_client(store: MemoryStore, tmp_path: Path) -> None:
    with Client(store=store) as client:
        batch = client.submit(["What is 1 + 1?", {"question": "And 2 + 2?", "topic": "sums"}], name="py")
        assert (len(batch), batch.done, batch.status.name) == (2, False, "py")
        end_all(store)
        assert batch.wait(timeout=60).done
        assert [job.answer.text for job in batch if job.answer] == ["answer q0001", "answer q0002"]
        assert batch["q0002"].question.input == {"topic": "sums"}
        again = client.batch(batch.id)
        assert again.counts[State.COMPLETED] == 2
        assert client.job(f"{batch.id}.q0001").state is State.COMPLETED
        assert [status.id for status in client.batches()] == [batch.id]
        assert again.save(tmp_path / "out.jsonl") == 2
        assert repr(again) == f"<Batch {batch.id}: 2 of 2 done>"
        with pytest.raises(KeyError):
            batch["nothing"]
        for wrong in (lambda: client.batch("b_none"), lambda: client.job("b_none.q1")):
            with pytest.raises(AskqError, match="there is no"):
                wrong()
        assert "tutor" in client.assistants()


def test_the_python_client_refuses_what_it_cannot_ask(store: MemoryStore) -> None:
    with Client(store=store) as client:
        with pytest.raises(InputError, match=r"write it as a list of one: submit\(\[question\]\)"):
            client.submit("What is 1 + 1?")
        with pytest.raises(InputError, match=r"questions\.csv: there is no such file"):
            client.submit("questions.csv")
        with pytest.raises(InputError, match="'smtp' is no protocol\nKnown: responses, assistants"):
            client.submit(["What is 1 + 1?"], protocol="smtp")  # type: ignore[arg-type]  what a program may do
        with pytest.raises(AskqError, match=r"item:1: there is no assistant called 'tuter'"):
            client.submit([{"question": "What is 1 + 1?", "assistant": "tuter"}])
        assert client.batches() == []


def test_waiting_may_end_before_the_batch(store: MemoryStore) -> None:
    with Client(store=store) as client:
        batch = client.submit(["What is 1 + 1?"])
        with pytest.raises(AskqError, match="1 of 1 pending") as caught:
            batch.wait(timeout=0)
        assert caught.value.exit_code == 3


def bash(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command line in which `askq` is ours."""
    ours = f'askq() {{ {shlex.quote(sys.executable)} -m producer.cli "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", f"{ours} {command}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ASKQ_HOME": str(folder)},
        check=False,
    )


def test_output_that_nobody_reads_to_the_end(tmp_path: Path) -> None:
    """`askq … | head -1` ends quietly and well."""
    reader, pipe = os.pipe()
    os.close(reader)
    told = subprocess.run(
        [sys.executable, "-m", "producer.cli", "assistants", "schema"],
        stdout=pipe,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ASKQ_HOME": str(tmp_path)},
        check=False,
    )
    os.close(pipe)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_output_onto_a_full_disk(tmp_path: Path) -> None:
    told = bash("askq assistants schema > /dev/full", tmp_path)
    assert told.returncode == 1
    assert told.stderr == (
        "askq: the output cannot be written: No space left on device\n"
        "Make room or permit it, and try again; what is in the store is safe.\n"
    )


def test_standard_streams_that_are_closed(tmp_path: Path) -> None:
    for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
        told = bash(f"askq assistants list {closed}", tmp_path)
        assert (told.returncode, told.stderr) == (0, "")
    told = bash("askq submit - <&-", tmp_path)
    assert told.returncode == 2
    assert "there is no question in it" in told.stderr


def test_a_list_that_changes_while_it_is_submitted_is_stored_as_it_was(store: MemoryStore, questions: Path) -> None:
    """Half of one list and half of another would both be paid for."""
    with open_list(questions) as opened:
        submission = Submission(
            questions=opened,
            summary=opened.check(),
            assistant=Assistant(name="tutor", protocol="responses", model="m"),
            others={},
        )
        questions.write_text("id,question\nz,Another?\n", "utf-8")
        submitted = submit(store, submission)
    assert [job.question.row_id for job in store.jobs(submitted.batch)] == ["a", "b"]


def test_the_chat_engine_alone_needs_a_server_too(askq: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = askq("local-api", "--engine", "chat")
    assert code == 4
    assert "Give --chat-url or ASKQ_CHAT_URL" in err


def test_the_last_batch_may_have_expired(store: MemoryStore, askq: Asked) -> None:
    Path(".askq").mkdir()
    Path(".askq/last").write_text("b_gone\n", "utf-8")
    for command in ("status", "watch", "results"):
        code, _, err = askq(command)
        assert code == 2
        assert "there is no batch b_gone" in err


def test_the_python_client_tells_wrong_settings(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASKQ_WORKERS", "many")
    with pytest.raises(ConfigError, match="ASKQ_WORKERS=many"):
        Client(store=store)


def test_a_child_that_is_given_up_ends_the_program(tmp_path: Path) -> None:
    supervisor = Supervisor()
    supervisor.add("worker-1", [sys.executable, "-c", "import sys; sys.exit('no luck')"], {}, tmp_path / "log")
    with kept_running(supervisor):
        eventually(lambda: supervisor.tick() and supervisor.failed, seconds=60, what="the child is given up")
        with pytest.raises(EmbeddedError, match=r"worker-1 ended 3 times at its start .*:\nno luck"):
            require_hope(supervisor)
