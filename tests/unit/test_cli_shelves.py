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


def test_a_file_of_an_answer_in_a_line() -> None:
    kept = {"path": "b/q/c.png", "name": "c.png", "media_type": "image/png", "size": 12345}
    assert line(kept, Path("/files")) == "/files/b/q/c.png (image/png, 12,345 bytes)"
    lost = {"name": "a\x1b[2Jb.csv", "error": {"code": "gone", "message": "the container\nhas expired"}}
    assert line(lost, Path("/files")) == "ab.csv: not kept: the container has expired"
    assert line({"file_id": "file_1"}, Path("/files")) == "file_1"
