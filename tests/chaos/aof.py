"""A power cut: what Redis had not written to its disk is gone, and nothing else.

A SIGKILL alone loses nothing, because the kernel keeps what was written. So the append-only file is cut afterwards.
Where it may be cut must be known for certain, or the experiment takes back what was confirmed to be on the disk and
accuses the innocent. So the disk stops first: from `CONFIG SET appendfsync no` on, Redis begins no fsync, and confirms
nothing that was written later (`WAITAOF` waits). A mark is set then, and the file is cut at it or somewhere behind it.
"""

from __future__ import annotations

import random
from pathlib import Path

import redis

MARK = "askq-chaos-mark"


def stop_disk(client: redis.Redis, number: int) -> None:
    """Let nothing that is written from now on reach the disk."""
    client.config_set("appendfsync", "no")
    client.set(MARK, number)


def behind_mark(folder: Path, number: int) -> int:
    """How many bytes are behind the mark in the file of a server that runs."""
    content = _written(folder).read_bytes()
    end = _behind(content, number)
    return len(content) - end if end >= 0 else 0


def _written(folder: Path) -> Path:
    """The newest part of the file, which is the one that is written to."""
    return max(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


def _behind(content: bytes, number: int) -> int:
    """The place behind a mark; -1 where there is none."""
    mark = b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in ("SET", MARK, str(number)))
    found = content.rfind(mark)
    return found + len(mark) if found >= 0 else -1


def cut(folder: Path, number: int, pick: random.Random) -> int:
    """Cut the file of a server that is dead, at random behind its mark; how many bytes it lost."""
    file = _written(folder)
    content = file.read_bytes()
    end = _behind(content, number)
    assert end >= 0, f"mark {number} is not in {file.name}"
    # Often everything: that is what a second without a disk means.
    keep = pick.choice((end, pick.randint(end, len(content))))
    with file.open("rb+") as opened:
        opened.truncate(keep)
    return len(content) - keep
