"""`askq forget` says truly what it has not reached."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from askq.assistants.model import Assistant
from askq.files.folder import Folder
from askq.files.model import Attachment
from askq.ids import SHARDS
from askq.jobs import forgetting
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import Lane, Move, Question
from producer.cli import forget
from producer.conversation import Conversation
from tests.unit.test_engine import submit


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def wait_for(store: MemoryStore, folder: Folder, said: list[str], *, lost_folders: bool = False) -> Any:
    parts = SimpleNamespace(files=lambda: folder, revive=list)
    supervisor = SimpleNamespace(tick=list, failed=None)
    session = SimpleNamespace(say=said.append)
    return forget._Wait(
        cast(Any, session), cast(Any, parts), store, cast(Any, supervisor), None, lost_folders=lost_folders
    )


def test_files_in_a_folder_that_nobody_has_are_told(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forget, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(forget, "_LOOK_EVERY_S", 0.01)
    theirs, mine = Folder(tmp_path / "theirs"), Folder(tmp_path / "mine")
    batch = submit(store, 1)
    (claim,) = store.claim(Lane.START, range(SHARDS), limit=1, lease_s=60)
    store.commit([Move(job=claim.id, fence=claim.fence, name="fail", fields={"error_code": "upstream"})])
    forgetting.keeps_files_of(store, theirs, batch)
    forgetting.begin(store, batch)
    said: list[str] = []
    receipt = wait_for(store, mine, said).follow(batch)
    assert f"waiting for a worker that has the folder of files {theirs.place()}" in said
    record = forget.receipt_record(receipt, [], None, [theirs.place()])
    assert (record["complete"], record["files_may_be_in"]) == (False, [theirs.place()])
    forget._print_receipt(receipt, [], None, [theirs.place()])
    out, err = capsys.readouterr()
    assert f"files may still be in {theirs.place()}, which no running worker has" in out
    assert "--lost-folders" in err
    # Whoever knows that the folder is no more says so.
    receipt = wait_for(store, mine, said, lost_folders=True).follow(batch)
    assert forget.receipt_record(receipt, [], None, [])["complete"]
    assert store.batch(batch) is None


def test_what_a_chat_has_sent_along_is_forgotten_with_it(store: MemoryStore, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "files")
    (tmp_path / "a.txt").write_text("canary", "utf-8")
    conversation = Conversation(store, Assistant(name="t", protocol="responses", model="m"), folder=folder)
    for text in ("What is in it?", "And now?"):
        ref = folder.keep(tmp_path / "a.txt")
        attached = (Attachment(tool="code_interpreter", file=ref),)
        conversation.ask(Question(row_id="", index=0, text=text, files=attached))
    assert conversation.batch is not None
    assert folder.has(ref.sha256)
    store.cancel([job.id for job in conversation.jobs])
    forgetting.begin(store, conversation.batch)
    assert forgetting.advance(store, conversation.batch, Folder(tmp_path / "other")) == 1
    assert forgetting.advance(store, conversation.batch, folder) == 0
    assert not folder.has(ref.sha256)
    assert store.assistant(conversation.assistant.digest) is None, "its instructions are somebody's words, too"
