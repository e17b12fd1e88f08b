"""Files with real workers and the local API: what is bad, late or gone has its documented outcome, and no other."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from askq.assistants import file as assistants
from askq.files.folder import Folder
from askq.jobs.model import Job
from producer.questions import open_items
from producer.submit import Submission, submit
from tests.acceptance.stack import Stack
from tests.parts import eventually

pytestmark = pytest.mark.timeout(300)
PROTOCOLS = ("responses", "assistants")
NASTY = [
    *("../../etc/passwd", "a" * 200 + ".csv", "CON", "nul\u202e.txt"),
    *({"name": "same.csv", "text": text} for text in ("1", "2")),
]
SCRIPT = {
    "default": {"answer": "{question} with {attached}", "duration": 0.1},
    "rule": [
        {"contains": "[nasty]", "code": [{"input": "1", "logs": "x" * 600_000, "files": NASTY}], "duration": 0.1},
        {
            "contains": "[gone]",
            "code": [{"input": "1", "logs": "kept", "files": ["lost.csv"]}],
            "container_gone": 0,
            "duration": 0.1,
        },
        {
            "contains": "[large]",
            "code": [{"input": "1", "files": [{"name": "l.bin", "size": 5000}, "s.csv"]}],
            "duration": 0.1,
        },
    ],
    "store_file": [
        {"contains": "broken", "error": {"code": "invalid_file", "message": "it is encrypted"}},
        {"contains": "slow", "seconds": 2},
    ],
}


class Desk:
    """A stack with a worker, and lists with files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = Stack(folder, script=SCRIPT)
        self.files = Folder(folder / "files")
        self.settings = {"ASKQ_FILES": str(self.files.root), "ASKQ_MAX_OUTPUT_FILE_BYTES": "4000"}
        self.settings |= {"ASKQ_TICK_S": "0.1"}
        self.worker = self.stack.worker(settings=self.settings)

    def answers(self, protocol: str, tools: str, *rows: dict[str, str], more: str = "") -> dict[str, Job]:
        """What becomes of rows that an assistant with this file is asked."""
        toml = self.folder / "asked.toml"
        toml.write_text(f'model = "m"\ntools = {tools}\n{more}', "utf-8")
        assistant = assistants.load(
            toml,
            folder=self.folder,
            default_model="m",
            default_protocol=protocol,
            files=self.files,  # type: ignore[arg-type]
        )
        kinds = {str(tool["type"]) for tool in assistant.tools}
        with open_items(rows) as listed:
            summary = listed.attach(folder=self.files, tools_of=lambda _: kinds).check()
            wanted = Submission(questions=listed, summary=summary, assistant=assistant, others={})
            batch = submit(self.stack.store, wanted).batch
        eventually(lambda: self.stack.status(batch).done, seconds=120, what="all are answered")
        return {job.question.row_id: job for job in self.stack.store.jobs(batch)}

    def api(self, path: str, method: str = "GET") -> Any:
        headers = {"Authorization": "Bearer sk-test-canary-0123456789", "OpenAI-Beta": "assistants=v2"}
        request = urllib.request.Request(f"{self.stack.base_url}{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def askq(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "producer.cli", *argv],
            env=self.stack.environment(**self.settings),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("files"))
    try:
        yield made
    finally:
        made.stack.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_and_sizes_from_the_model_do_no_harm(desk: Desk, protocol: str) -> None:
    rows = ({"id": "n", "question": "[nasty]"}, {"id": "l", "question": "[large]"})
    found = desk.answers(protocol, '["code_interpreter"]', *rows)
    assert {job.state.value for job in found.values()} == {"completed"}, found
    nasty = found["n"].answer
    assert nasty is not None
    # A container has one file of a name; on Assistants each is a file by itself.
    assert len(nasty.files) == len(NASTY) - (protocol == "responses")
    base = desk.files.root.resolve()
    for file in nasty.files:
        path = (desk.files.root / file["path"]).resolve()
        assert path.is_relative_to(base / found["n"].id.partition(".")[0])
        assert path.stat().st_size == file["size"]
    names = {file["name"] for file in nasty.files}
    assert {"passwd", "_CON", "same.csv"} | ({"same (2).csv"} if protocol == "assistants" else set()) <= names
    assert len(nasty.code[0]["output"]) < 300_000
    large = found["l"].answer
    assert large is not None
    assert {file["name"]: file.get("error", {}).get("code") for file in large.files} == {
        "l.bin": "too_large",
        "s.csv": None,
    }
    assert "1 of 2 files were not kept" in (found["l"].note or "")
    assert not desk.files.partial()


def test_a_container_that_is_gone_costs_its_files_and_not_the_answer(desk: Desk) -> None:
    (job,) = desk.answers("responses", '["code_interpreter"]', {"question": "[gone]"}).values()
    assert job.state.value == "completed"
    assert job.answer is not None
    assert job.answer.code[0]["output"] == "kept"
    assert {file["error"]["code"] for file in job.answer.files} == {"gone"}
    assert "were not kept" in (job.note or "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_that_vanishes_at_the_service_is_uploaded_anew(desk: Desk, protocol: str) -> None:
    (desk.folder / f"{protocol}.csv").write_text(protocol)
    row = {"id": "r", "question": "Why?", "file": str(desk.folder / f"{protocol}.csv")}
    first = desk.answers(protocol, '["code_interpreter"]', row)["r"]
    (file,) = [file for file in desk.api("/files?purpose=assistants")["data"] if file["filename"] == f"{protocol}.csv"]
    desk.api(f"/files/{file['id']}", "DELETE")
    again = desk.answers(protocol, '["code_interpreter"]', row)["r"]
    for job in (first, again):
        assert job.answer is not None, job
        assert job.answer.text == f"Why? with {protocol}.csv"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_that_cannot_be_read_stops_the_question_or_not(desk: Desk, protocol: str) -> None:
    for name in ("good.md", "broken.md"):
        (desk.folder / name).write_text(f"# {name}\n\n{protocol}")
    more = '[tool_resources.file_search]\nfiles = ["good.md", "broken.md"]\n'
    (stopped,) = desk.answers(protocol, '["file_search"]', {"question": "Why?"}, more=more).values()
    assert stopped.error_code == "index_failed"
    assert "broken.md: it is encrypted" in (stopped.error_message or "")
    assert stopped.runs == 0
    going_on = f'{more}on_failed_file = "continue"\n'
    (answered,) = desk.answers(protocol, '["file_search"]', {"question": "Why?"}, more=going_on).values()
    assert answered.state.value == "completed"
    row = {"question": "Why?", "file": str(desk.folder / "broken.md")}
    (message,) = desk.answers(protocol, '["file_search"]', row).values()
    assert message.error_code == "index_failed"
    assert "broken.md: it is encrypted" in (message.error_message or "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_index_is_waited_for_outside_of_workers(desk: Desk, protocol: str) -> None:
    (desk.folder / f"slow {protocol}.md").write_text("# Slow\n\ntext")
    row = {"id": "r", "question": "Why?", "file": str(desk.folder / f"slow {protocol}.md")}
    job = desk.answers(protocol, '["file_search"]', row)["r"]
    assert job.answer is not None
    assert job.answer.text == f"Why? with slow {protocol}.md"
    assert job.started_at is not None
    assert job.started_at - job.created_at >= 2, "no run before the index is there"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_are_part_of_the_message(desk: Desk, protocol: str) -> None:
    (desk.folder / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    row = {"id": "r", "question": "What is it?", "image": str(desk.folder / "cat.png")}
    job = desk.answers(protocol, "[]", row, {"id": "u", "question": "And?", "image": "https://x.test/y.png"})
    assert {each.state.value for each in job.values()} == {"completed"}
    assert job["r"].answer is not None
    if protocol == "assistants":
        (message,) = [m for m in desk.api(f"/threads/{job['r'].thread_id}/messages")["data"] if m["role"] == "user"]
        kinds = [part["type"] for part in message["content"]]
        assert kinds == ["text", "image_file"]
    else:
        items = desk.api(f"/conversations/{job['r'].thread_id}/items?order=asc")["data"]
        assert [part["type"] for part in items[0]["content"]] == ["input_text", "input_image"]


def test_stores_are_made_filled_used_and_deleted_by_command(desk: Desk) -> None:
    for name in ("one.md", "two.md", "broken two.md"):
        (desk.folder / name).write_text(f"# {name}\n\ntext of {name}")
    (desk.folder / "table.csv").write_text("a\n1\n")
    refused = desk.askq("stores", "create", "hand", "table.csv")
    assert refused.returncode == 2
    assert "file search cannot read .csv" in refused.stderr
    missing = desk.askq("stores", "create", "hand", "nope.md")
    assert "nope.md" in missing.stderr
    assert missing.returncode == 2
    made = desk.askq("stores", "create", "hand", "one.md")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("vs_")
    other = desk.askq("stores", "create", "hand", "two.md")
    assert "there is a store hand already" in other.stderr
    added = desk.askq("stores", "add", "hand", "two.md", "broken two.md")
    assert added.returncode == 5
    assert "broken two.md could not be read: it is encrypted" in added.stderr
    (told,) = [store for store in json.loads(desk.askq("stores", "list", "--json").stdout) if store["store"] == "hand"]
    assert sorted(told["files"]) == ["broken two.md", "one.md", "two.md"]
    assert told["failures"] == [{"file": "broken two.md", "reason": "it is encrypted"}]
    more = '[tool_resources.file_search]\nstores = ["hand"]\non_failed_file = "continue"\n'
    (job,) = desk.answers("responses", '["file_search"]', {"question": "Why?"}, more=more).values()
    assert job.answer is not None
    assert "one.md" in (job.answer.text or "")
    in_use = desk.askq("stores", "delete", "hand")
    assert in_use.returncode == 2
    assert job.id.partition(".")[0] in in_use.stderr
    gone = desk.askq("stores", "delete", "hand", "--force")
    assert gone.returncode == 0, gone.stderr
    eventually(
        lambda: not {"one.md", "two.md"} & {file["filename"] for file in desk.api("/files?limit=1000")["data"]},
        what="its files are deleted",
    )
    assert all(store["id"] != told["id"] for store in desk.api("/vector_stores")["data"])
    (later,) = desk.answers("responses", '["file_search"]', {"question": "And now?"}, more=more).values()
    assert later.error_code == "store_missing"


def test_files_are_added_once_and_deleted_by_command(desk: Desk) -> None:
    (desk.folder / "요금.csv").write_text("a\n")
    first, second = desk.askq("files", "add", "요금.csv"), desk.askq("files", "add", "요금.csv")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert first.stdout.endswith("\t요금.csv\n")
    assert "요금.csv" in desk.askq("files", "list").stdout
    assert desk.askq("files", "delete", "nope.csv").returncode == 2
    deleted = desk.askq("files", "delete", "요금.csv")
    assert deleted.returncode == 0, deleted.stderr
    assert "요금.csv" not in {file["filename"] for file in desk.api("/files?limit=1000")["data"]}
    assert "요금.csv" not in desk.askq("files", "list").stdout
