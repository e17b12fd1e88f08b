"""Programs that work in a folder: what they may do there, and that they get nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from askq.localapi.tutor.sandbox import Limits, Sandbox

LIMITS = Limits(
    seconds=20,
    cpu_seconds=5,
    memory_bytes=1 << 30,
    output_bytes=1 << 16,
    file_bytes=1 << 20,
    folder_bytes=1 << 21,
    files=20,
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()


async def test_a_program_reads_and_writes_in_its_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    program = """
import csv, os, pathlib
rows = list(csv.DictReader(open("in.csv")))
os.mkdir("sub")
with open("sub/out.txt", "w") as file:
    file.write(rows[0]["a"])
os.rename("sub/out.txt", "sub/done.txt")
print(sorted(os.listdir(".")), [path.name for path in pathlib.Path("sub").iterdir()])
"""
    run = await sandbox.run(program, folder=tmp_path, limits=LIMITS)
    assert (run.ended, run.output) == ("ok", "['in.csv', 'sub'] ['done.txt']\n")
    assert (tmp_path / "sub" / "done.txt").read_text() == "1"


@pytest.mark.parametrize(
    "line",
    [
        "open('/etc/passwd')",
        "open('../secret.txt')",
        "open('../secret.txt', 'w')",
        "open('/tmp/askq-escape', 'w')",
        "os.symlink('/etc/passwd', 'link')",
        "os.link('../secret.txt', 'link')",
        "os.rename('../secret.txt', 'mine.txt')",
        "os.open('.', os.O_RDONLY)",
        "os.open(os.path.dirname(os.__file__), os.O_RDONLY | os.O_DIRECTORY)",
        "os.listdir('..')",
        "os.chdir('..')",
        "__import__('socket').socket()",
        "__import__('subprocess').run(['true'])",
        "os.system('true')",
    ],
)
async def test_it_gets_nowhere_else(sandbox: Sandbox, tmp_path: Path, line: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "work"
    folder.mkdir()
    run = await sandbox.run(f"import os\n{line}", folder=folder, limits=LIMITS)
    assert run.ended == "refused", run
    assert list(folder.iterdir()) == []
    assert (tmp_path / "secret.txt").read_text() == "secret"


async def test_files_are_bounded(sandbox: Sandbox, tmp_path: Path) -> None:
    run = await sandbox.run("open('big', 'wb').write(b'x' * (2 << 20))", folder=tmp_path, limits=LIMITS)
    assert run.ended in ("error", "crashed")
    assert (tmp_path / "big").stat().st_size <= 1 << 20
    (tmp_path / "big").unlink()
    many = "for n in range(100):\n    open(str(n), 'w').close()"
    assert (await sandbox.run(many, folder=tmp_path, limits=LIMITS)).ended == "output"


async def test_single_files_may_be_made_readable(sandbox: Sandbox, tmp_path: Path) -> None:
    font = tmp_path / "font.ttf"
    font.write_text("glyphs")
    folder = tmp_path / "work"
    folder.mkdir()
    run = await sandbox.run(f"print(open({str(font)!r}).read())", folder=folder, readable=[str(font)], limits=LIMITS)
    assert (run.ended, run.output) == ("ok", "glyphs\n")
    run = await sandbox.run(f"open({str(font)!r}, 'a')", folder=folder, readable=[str(font)], limits=LIMITS)
    assert run.ended == "refused"
