"""`askq files` and `askq stores` without a worker: what they say of what is on record, and of wrong names."""

from __future__ import annotations

from pathlib import Path

import pytest

from askq.accounts import alias
from askq.jobs.library import STORE, Wish
from askq.jobs.memory_store import MemoryStore
from producer.answers.outputs import line
from producer.answers.plain import cells
from producer.api import Api
from producer.library import Shelves
from producer.parts import Parts
from tests.unit.cli_stage import Asked

SERVICE = Api("http://127.0.0.1:1/v1", "k", "test")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(Parts, "api", lambda self: SERVICE)
    return SERVICE


def test_columns_stand_in_line_whatever_the_script_of_a_name(
    store: MemoryStore, service: Api, askq: Asked, tmp_path: Path
) -> None:
    account = alias(service.base_url, service.api_key)
    names = ("handbook", "설명서", "دليل")
    store.want(account, [Wish(name=f"store:{name}", kind=STORE, title=name, about={"files": []}) for name in names])
    code, out, _ = askq("stores", "list")
    assert code == 0
    places = {cells(told[: told.index("0 of 0")]) for told in out.splitlines()}
    assert len(places) == 1, out


def test_a_name_that_is_almost_right_is_answered_with_it(store: MemoryStore, service: Api, askq: Asked) -> None:
    account = alias(service.base_url, service.api_key)
    store.want(account, [Wish(name="store:설명서", kind=STORE, title="설명서", about={"files": []})])
    code, out, err = askq("stores", "delete", "설명")
    assert (code, out) == (2, "")
    assert "there is no store 설명\nDid you mean 설명서? `askq stores list` shows the stores there are." in err
    assert "Did you mean" not in askq("files", "delete", "x.csv")[2]


def test_whoever_stops_waiting_is_told_that_nothing_is_lost(
    store: MemoryStore, service: Api, askq: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shelves, "follow", interrupted)
    (tmp_path / "a.md").write_text("x", "utf-8")
    code, out, err = askq("stores", "create", "설명서", "a.md", "--no-worker")
    assert (code, out) == (130, "")
    assert "it goes on when a worker runs, or with the same command again" in err


def test_each_file_of_a_folder_that_cannot_be_taken_is_named(
    store: MemoryStore, service: Api, askq: Asked, tmp_path: Path
) -> None:
    folder = tmp_path / "문서"
    folder.mkdir()
    for name, text in {"a.md": "x", "b.txt": "", "c.md": ""}.items():
        (folder / name).write_text(text, "utf-8")
    code, out, err = askq("stores", "create", "설명서", "문서", "missing.md", "--no-worker")
    assert (code, out) == (2, "")
    assert "문서/b.txt: the file is empty. Fill it, or leave it out." in err
    assert "문서/c.md: the file is empty" in err
    assert "missing.md: it cannot be read: No such file or directory" in err


def test_a_file_of_an_answer_in_a_line() -> None:
    kept = {"path": "b/q/c.png", "name": "c.png", "media_type": "image/png", "size": 12345}
    assert line(kept, Path("/files")) == "/files/b/q/c.png (image/png, 12,345 bytes)"
    lost = {"name": "a\x1b[2Jb.csv", "error": {"code": "gone", "message": "the container\nhas expired"}}
    assert line(lost, Path("/files")) == "ab.csv: not kept: the container has expired"
    assert line({"file_id": "file_1"}, Path("/files")) == "file_1"
