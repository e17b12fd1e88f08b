"""The folder of files: whole files or none, under harmless names, each content once."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from askq.files import folder as folder_module
from askq.files.folder import FileChanged, Folder, Kept, hashed
from askq.files.names import LONGEST_NAME, numbered, safe_folder, safe_name


def made(folder: Folder, content: bytes) -> Kept:
    with folder.incoming() as file:
        file.write(content)
        return file.keep()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("/mnt/data/chart.png", "chart.png"),
        ("C:\\temp\\report.csv", "report.csv"),
        ("..", "file"),
        ("", "file"),
        ("   ...  ", "file"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("COM1.csv", "_COM1.csv"),
        ("lpt9", "_lpt9"),
        ("console.txt", "console.txt"),
        ("a\0b.csv", "ab.csv"),
        ("x\x1b[31mred\x07.csv", "x[31mred.csv"),
        ("a\nb\tc.csv", "abc.csv"),
        ("exe\u202egnp.exe", "exegnp.exe"),
        ('what?: "this" <is> |it|*.txt', "what__ _this_ _is_ _it__.txt"),
        ("-rf", "_-rf"),
        ("~root", "_~root"),
        (".bashrc", "bashrc"),
        ("요금표 2026.csv", "요금표 2026.csv"),
        ("name.", "name"),
        ("\ud800.txt", "txt"),
    ],
)
def test_a_name_from_outside_leads_nowhere(wanted: str, name: str) -> None:
    assert safe_name(wanted) == name


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "요" * 300 + ".csv", "b" * 300, "c." + "d" * 300])
def test_a_long_name_is_shortened_and_keeps_its_suffix(name: str) -> None:
    short = safe_name(name)
    assert len(short.encode()) <= LONGEST_NAME
    assert short.encode().decode() == short
    if name.endswith((".png", ".csv")):
        assert short[-4:] == name[-4:]


def test_ids_that_would_share_a_folder_do_not() -> None:
    assert safe_folder("q0001") == "q0001"
    assert (
        len({safe_folder("a:b"), safe_folder("a?b"), safe_folder("a_b"), safe_folder("CON"), safe_folder("_CON")}) == 5
    )
    assert numbered("noext", 3) == "noext (3)"
    assert numbered(".png", 2) == ".png (2)"


def test_a_file_appears_whole_or_not_at_all(folder: Folder) -> None:
    def dies() -> None:
        with folder.incoming() as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        dies()
    assert not folder.partial()
    assert not list((folder.root / "partial").iterdir())
    assert not (folder.root / "made").exists()


def test_the_same_content_is_kept_once_under_each_name(folder: Folder) -> None:
    one, two = made(folder, b"1"), made(folder, b"1")
    assert one == two
    paths = {folder.name(one, name, batch="b_1", row=row) for name in ("a.csv", "b.csv") for row in ("q1", "q2")}
    assert paths == {"b_1/q1/a.csv", "b_1/q1/b.csv", "b_1/q2/a.csv", "b_1/q2/b.csv"}
    assert len(list((folder.root / "made").rglob("?" * 64))) == 1


def test_asked_again_a_file_has_the_name_it_had(folder: Folder) -> None:
    kept = made(folder, b"1")
    first = folder.name(kept, "../../etc/passwd", batch="b_1", row="q1")
    assert first == folder.name(kept, "../../etc/passwd", batch="b_1", row="q1") == "b_1/q1/passwd"
    assert folder.name(made(folder, b"2"), "passwd", batch="b_1", row="q1") == "b_1/q1/passwd (2)"
    assert (folder.root / "b_1/q1/passwd (2)").read_bytes() == b"2"


def test_what_stands_in_the_way_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"1")
    kept = made(folder, b"1")
    place = folder.job("b_1", "q1")
    place.mkdir(parents=True)
    (place / "a.csv").symlink_to(outside)
    assert folder.name(kept, "a.csv", batch="b_1", row="q1") == "b_1/q1/a (2).csv"


def test_what_is_forgotten_is_gone_and_nothing_else(folder: Folder) -> None:
    shared, own = made(folder, b"shared"), made(folder, b"own")
    for row in ("q1", "q2"):
        folder.name(shared, "s.csv", batch="b_1", row=row)
    folder.name(own, "o.csv", batch="b_1", row="q1")
    assert folder.forget("b_1", "q1") == 2
    left = [path.read_bytes() for path in folder.root.rglob("*") if path.is_file()]
    assert left == [b"shared", b"shared"]
    assert folder.forget("b_1") == 1
    assert [path for path in folder.root.rglob("*") if path.is_file()] == []
    assert folder.forget("b_1") == 0


def test_an_attached_file_is_copied_as_it_is(folder: Folder, tmp_path: Path) -> None:
    source = tmp_path / "표.csv"
    source.write_bytes(b"a,b\n")
    ref = folder.keep(source)
    assert ref == hashed(source)
    assert folder.path(ref.sha256).read_bytes() == b"a,b\n"
    assert folder.has(ref.sha256)
    source.write_bytes(b"changed")
    assert folder.path(ref.sha256).read_bytes() == b"a,b\n"
    assert folder.drop(ref.sha256)
    assert not folder.drop(ref.sha256)


def test_a_file_that_is_being_written_is_not_taken(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "growing.csv"
    source.write_bytes(b"a" * 10)
    real, seen = os.fstat, []

    def grow(descriptor: int) -> os.stat_result:
        seen.append(descriptor)
        if len(seen) == 2:
            source.write_bytes(b"b" * 20)
        return real(descriptor)

    monkeypatch.setattr(folder_module.os, "fstat", grow)
    with pytest.raises(FileChanged):
        folder.keep(source)
    assert not (folder.root / "sent").exists()


def test_without_nameless_files_and_hard_links_it_works_as_well(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def no_links(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.delattr(folder_module.os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(folder_module.os, "link", no_links)
    kept = made(folder, b"1")
    assert folder.name(kept, "a.csv", batch="b_1", row="q1") == "b_1/q1/a.csv"
    assert folder.name(kept, "a.csv", batch="b_1", row="q1") == "b_1/q1/a.csv"
    assert (folder.root / "b_1/q1/a.csv").read_bytes() == b"1"
    assert folder.identity() == Folder(folder.root).identity()
    assert not folder.partial()
    assert real is not no_links


@pytest.mark.parametrize("nameless", ["with", "without"])
def test_of_two_that_name_a_folder_at_once_the_first_has_named_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, nameless: str
) -> None:
    """Also on NFS and macOS: a batch would wait for ever for a folder whose first name nobody knows."""
    if nameless == "without":
        monkeypatch.delattr(folder_module.os, "O_TMPFILE", raising=False)
    known = folder.identity()
    # Somebody who looked before it was there.
    Folder(folder.root)._name_itself(folder.root / ".identity")
    assert Folder(folder.root).identity() == known
    assert made(folder, b"1") == made(folder, b"1")
    assert not folder.partial()


def test_what_nobody_needs_goes_after_a_while(folder: Folder, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(b"attached")
    ref = folder.keep(source)
    named, nameless = made(folder, b"named"), made(folder, b"nameless")
    folder.name(named, "n.csv", batch="b_1", row="q1")
    (folder.root / "partial" / "left").write_bytes(b"by a process that died")
    assert folder.sweep(keep_s=60) == 0
    old = time.time() - 7200
    for path in folder.root.rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))
    folder.used(ref.sha256)
    assert folder.sweep(keep_s=3600) == 2
    assert folder.has(ref.sha256)
    assert (folder.root / "b_1/q1/n.csv").is_file()
    assert not folder.partial()
    assert nameless.size == 8


def test_a_folder_knows_itself_wherever_it_is_mounted(folder: Folder, tmp_path: Path) -> None:
    known = folder.identity()
    (tmp_path / "mounted").symlink_to(folder.root)
    other = Folder(tmp_path / "mounted")
    assert other.identity() == known
    assert Folder(tmp_path / "another").identity() != known
    assert folder.sweep(keep_s=0) == 0
    assert (folder.identity(), folder.partial()) == (known, [])
    shutil.rmtree(folder.root)
    assert (other.root.exists(), folder.identity()) == (False, known)
    assert Folder(folder.root).identity() == known
