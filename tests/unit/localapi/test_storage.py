"""The data folder: what was committed is there after a restart, and two servers cannot share it."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from askq.localapi.errors import LocalApiError
from askq.localapi.storage import FILE_NAME, KeptReply, LedgerEntry, Row, Storage, StoredObject


def stored(number: int, text: str = "text") -> StoredObject:
    return StoredObject(f"msg_{number}", "message", "thread_1", number, {"id": f"msg_{number}", "text": text})


def entry(number: int) -> LedgerEntry:
    return LedgerEntry(
        n=number,
        id=f"run_{number}",
        protocol="assistants",
        created_at=1.5,
        scope="thread_1",
        model="m",
        metadata={"job": "ä"},
        round=0,
        digest="d",
        question="Why?",
    )


async def test_what_was_committed_is_read_back_in_order(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path))
    for number in (1, 2, 3):
        storage.put(stored(number))
    storage.put(stored(1, "changed ☃"))
    storage.delete("msg_2")
    storage.append_ledger(entry(storage.next_ledger_number()))
    storage.keep_reply("key", KeptReply(request="digest", body={"id": "x"}, work=None))
    await storage.close()

    again = Storage.open(str(tmp_path))
    assert list(again.objects()) == [stored(1, "changed ☃"), stored(3)]
    assert await again.ledger(0, 10) == [entry(1)]
    assert again.ledger_length == 1
    assert again.next_ledger_number() == 2
    assert await again.kept_reply("key") == KeptReply(request="digest", body={"id": "x"}, work=None)
    assert await again.kept_reply("other key") is None
    await again.close()


async def test_the_ledger_is_read_in_pages() -> None:
    storage = Storage.open(":memory:")
    for _ in range(5):
        storage.append_ledger(entry(storage.next_ledger_number()))
    assert [each.n for each in await storage.ledger(0, 2)] == [1, 2]
    assert [each.n for each in await storage.ledger(2, 10)] == [3, 4, 5]
    assert await storage.ledger(5, 10) == []
    await storage.close()


async def test_concurrent_commits_share_a_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(":memory:")
    groups: list[int] = []
    write = storage._write

    def counted(group: list[tuple[str, Row]]) -> None:
        groups.append(len(group))
        write(group)

    monkeypatch.setattr(storage, "_write", counted)

    async def request(number: int) -> None:
        storage.put(stored(number))
        await storage.commit()

    await asyncio.gather(*(request(number) for number in range(100)))
    assert sum(groups) == 100
    assert len(groups) < 5
    assert len(list(storage.objects())) == 100
    await storage.close()


async def test_a_failed_write_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(":memory:")
    write = storage._write

    def full(_group: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(storage, "_write", full)
    storage.put(stored(1))
    with pytest.raises(LocalApiError, match="cannot be written: database or disk is full"):
        await storage.commit()
    monkeypatch.setattr(storage, "_write", write)
    storage.put(stored(2))
    await storage.commit()
    assert [each.id for each in storage.objects()] == ["msg_1", "msg_2"]
    await storage.close()


async def test_cleaning_the_log_holds_up_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("askq.localapi.storage.SCRUB_S", 0.0)
    storage = Storage.open(str(tmp_path))
    for number in range(200):
        storage.put(stored(number))
        storage.delete(f"msg_{number}")
        await storage.commit()
        # The log is cleaned from here on, and the next write is right behind it.
        storage.put(stored(number + 1000))
        await storage.commit()
    await storage.close()


async def test_two_servers_cannot_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("askq.localapi.storage.LOCK_WAIT_S", 0.1)
    storage = Storage.open(str(tmp_path))
    with pytest.raises(LocalApiError, match="in use by another local API"):
        Storage.open(str(tmp_path))
    await storage.close()
    await Storage.open(str(tmp_path)).close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalApiError, match=r"cannot be opened.*Name another folder with --data"):
        Storage.open(str(tmp_path / "file"))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("not a database, but long enough to be looked at" * 10)
    with pytest.raises(LocalApiError, match="file is not a database"):
        Storage.open(str(tmp_path))


def test_a_file_of_another_version(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(LocalApiError, match="written by another version"):
        Storage.open(str(tmp_path))


async def test_half_a_character_stops_nobody(tmp_path: Path) -> None:
    """Engines and scripts may bring one; SQLite refuses it, and with it whatever is written in the same group."""
    storage = Storage.open(str(tmp_path))
    storage.put(stored(1, "half \ud83d"))
    storage.append_ledger(dataclasses.replace(entry(storage.next_ledger_number()), question="why \ud83d?"))
    storage.put(stored(2))
    async with asyncio.timeout(60):
        await storage.commit()
        assert [each.question for each in await storage.ledger(0, 10)] == ["why ??"]
    await storage.close()
    again = Storage.open(str(tmp_path))
    assert list(again.objects()) == [stored(1, "half \ud83d"), stored(2)]
    await again.close()
