"""Forgetting where machines have folders of files of their own: nothing is erased before each of them was emptied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from askq import failpoints
from askq.files.folder import Folder, Incoming
from askq.files.model import FileRef
from askq.ids import split_job_id
from askq.jobs import forgetting
from askq.jobs.objects import content_thing
from askq.jobs.store import Store
from tests.contract.store_stage import RedisStage, Stage, answer_all, submit

CANARY = b"canary-91c4"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None)


@dataclass
class Folders:
    """Two machines with a folder each, and a third that has none of their files."""

    one: Folder
    two: Folder
    other: Folder

    def left(self) -> list[str]:
        """Files of anybody's, by the name of their folder."""
        return sorted(
            folder.root.name
            for folder in (self.one, self.two, self.other)
            for path in folder.root.rglob("*")
            if path.is_file() and path.read_bytes().startswith(CANARY)
        )


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(*(Folder(tmp_path / name) for name in ("one", "two", "other")))


def sent(store: Store, folder: Folder, batch: str, text: bytes = CANARY) -> FileRef:
    """A file was sent along by somebody who has this folder, as `submit` notes it."""
    path = folder.root.parent / "sent.txt"
    path.write_bytes(text)
    ref = folder.keep(path)
    forgetting.keeps_files_of(store, folder, batch)
    store.share(content_thing(ref.sha256), batch)
    return ref


def made(store: Store, folder: Folder, job: str) -> None:
    """A worker that has this folder has fetched a file that a run has made."""
    batch, row = split_job_id(job)
    forgetting.keeps_files_of(store, folder, batch)
    with folder.incoming() as file:
        file.write(CANARY + job.encode())
        folder.name(Incoming.keep(file), "made.txt", batch=batch, row=row)


def answered(store: Store, rows: int) -> str:
    batch = submit(store, rows)
    answer_all(store, batch)
    return batch


def forgets(store: Store, what: str, *machines: Folder) -> int:
    """What is left to wait for after each of these machines has come by once."""
    return [forgetting.advance(store, what, folder) for folder in machines][-1]


def nothing_is_known_of(stage: Stage, folders: Folders) -> None:
    told = str(stage.everything())
    assert not [folder for folder in (folders.one, folders.two, folders.other) if folder.identity() in told]


def test_a_batch_is_erased_when_every_folder_was_emptied(stage: Stage, folders: Folders) -> None:
    store = stage.store
    batch = answered(store, 2)
    sent(store, folders.one, batch)
    for job in store.job_ids(batch):
        made(store, folders.two, job)
    forgetting.begin(store, batch)
    assert forgets(store, batch, folders.other) == 1
    elsewhere = forgetting.elsewhere(store, batch, folders.other)
    assert elsewhere == {folder.identity(): folder.place() for folder in (folders.one, folders.two)}
    assert store.batch(batch) is not None, "whoever reads the receipt finds that it is not done"
    receipt = store.receipt(batch)
    assert receipt is not None
    assert not receipt.done
    assert forgets(stage.another(), batch, folders.one) == 1
    assert forgetting.elsewhere(store, batch, folders.other) == {folders.two.identity(): folders.two.place()}
    forgetting.go_on(stage.another(), Folder(folders.two.root), most=500)
    assert (store.batch(batch), store.forgetting()) == (None, [])
    receipt = store.receipt(batch)
    assert receipt is not None
    assert receipt.done
    assert folders.left() == []
    nothing_is_known_of(stage, folders)


def test_one_job_is_forgotten_in_every_folder(stage: Stage, folders: Folders) -> None:
    store = stage.store
    batch = answered(store, 2)
    sent(store, folders.one, batch)
    first, second = store.job_ids(batch)
    for folder in (folders.one, folders.two):
        made(store, folder, first)
        made(store, folder, second)
    forgetting.begin(store, first)
    assert forgets(store, first, folders.one, folders.other, folders.one) == 1
    assert forgets(store, first, folders.two) == 0
    assert folders.left().count("one") == 3, "what was sent along for the batch, and a name and a content of the second"
    assert folders.left().count("two") == 2
    assert store.receipt(batch) is None
    forgetting.begin(store, batch)
    assert forgets(store, batch, folders.one, folders.two) == 0
    assert folders.left() == []
    nothing_is_known_of(stage, folders)


def test_a_copy_that_another_batch_uses_goes_with_that_one(stage: Stage, folders: Folders) -> None:
    """The same file was sent along from two machines. The first batch takes nothing from the second, and the second
    then takes both copies with it."""
    store = stage.store
    first, second = answered(store, 1), answered(store, 1)
    ref = sent(store, folders.one, first)
    assert sent(store, folders.two, second) == ref
    forgetting.begin(store, first)
    assert forgets(store, first, folders.one) == 0
    assert folders.left() == ["one", "two"]
    forgetting.begin(store, second)
    assert forgets(store, second, folders.two) == 1
    assert folders.left() == ["one"]
    assert forgets(store, second, folders.one) == 0
    assert folders.left() == []
    nothing_is_known_of(stage, folders)


def test_of_three_that_share_a_file_two_may_go_at_once(stage: Stage, folders: Folders) -> None:
    store = stage.store
    batches = [answered(store, 1) for _ in range(3)]
    for batch in batches:
        sent(store, folders.one, batch)
    for batch in batches[:2]:
        forgetting.begin(store, batch)
    assert [forgets(store, batch, folders.one) for batch in batches[:2]] == [0, 0]
    assert folders.left() == ["one"]
    forgetting.begin(store, batches[2])
    assert forgets(store, batches[2], folders.one) == 0
    assert folders.left() == []
    nothing_is_known_of(stage, folders)


@pytest.mark.parametrize(
    "place", ["forget.jobs.after", "forget.folder.before", "forget.folder.after", "forget.erase.*"]
)
def test_whoever_dies_at_it_another_goes_on(stage: Stage, folders: Folders, place: str) -> None:
    store = stage.store
    batch = answered(store, 1)
    sent(store, folders.one, batch)
    for job in store.job_ids(batch):
        made(store, folders.two, job)
    forgetting.begin(store, batch)
    for folder in (folders.one, folders.two):
        failpoints.arm(f"{place}=raise")
        # Some come to it at their first folder, and to the last step only the last one comes.
        with contextlib.suppress(failpoints.Failpoint):
            forgets(store, batch, folder)
        failpoints.arm(None)
        forgets(stage.another(), batch, folder)
    assert (store.batch(batch), store.forgetting(), folders.left()) == (None, [], [])
    nothing_is_known_of(stage, folders)


def test_a_folder_that_is_no_more_is_taken_for_deleted_by_a_person(stage: Stage, folders: Folders) -> None:
    store = stage.store
    batch = answered(store, 1)
    sent(store, folders.one, batch)
    forgetting.begin(store, batch)
    assert forgets(store, batch, folders.other) == 1
    forgetting.take_for_deleted(store, batch, forgetting.elsewhere(store, batch, folders.other))
    assert forgets(store, batch, folders.other) == 0
    nothing_is_known_of(stage, folders)


def test_a_batch_without_files_asks_for_no_folder(stage: Stage, folders: Folders) -> None:
    batch = answered(stage.store, 1)
    forgetting.begin(stage.store, batch)
    assert forgets(stage.store, batch, folders.other) == 0
    assert not folders.other.root.exists()


def test_whoever_can_have_no_folder_leaves_it_to_those_who_have_one(
    stage: Stage, folders: Folders, tmp_path: Path
) -> None:
    """Given a command where ASKQ_FILES cannot be written, when it forgets a list with files, then it does all else, and
    a worker that has them ends it."""
    store = stage.store
    batch = answered(store, 1)
    sent(store, folders.one, batch)
    (tmp_path / "no folder").touch()
    nowhere = Folder(tmp_path / "no folder" / "files")
    forgetting.begin(store, batch)
    assert forgets(store, batch, nowhere) == 1
    assert forgetting.elsewhere(store, batch, nowhere) == {folders.one.identity(): folders.one.place()}
    assert list(store.job_ids(batch)) == []
    assert forgets(store, batch, folders.one, nowhere) == 0
    nothing_is_known_of(stage, folders)


def test_a_file_that_cannot_be_deleted_holds_up_no_other_batch(
    stage: Stage, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stage.store
    batches = sorted(answered(store, 1) for _ in range(3))
    for batch in batches:
        sent(store, folders.one, batch, CANARY + batch.encode())
        forgetting.begin(store, batch)
    forget = folders.one.forget

    def refuses(batch: str, row: str | None = None) -> int:
        if batch == batches[0]:
            raise PermissionError("somebody else's")
        return forget(batch, row)

    monkeypatch.setattr(folders.one, "forget", refuses)
    with pytest.raises(PermissionError):
        forgetting.go_on(store, folders.one, most=500)
    assert store.forgetting() == batches[:1]
    monkeypatch.undo()
    forgetting.go_on(store, folders.one, most=500)
    assert (store.forgetting(), folders.left()) == ([], [])


def test_what_was_emptied_is_not_waited_for_again_after_a_death(
    alone: RedisStage, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given folders that a person has taken for deleted, when a process dies anywhere while it erases what is left of
    the batch, then another ends it without them."""
    store, other = alone.store, alone.another()
    unshare, left = store.unshare, [0]

    def dies(thing: str, user: str, *, receipt: str | None = None) -> bool:
        if left[0] == 0:
            raise failpoints.Failpoint
        left[0] -= 1
        return unshare(thing, user, receipt=receipt)

    monkeypatch.setattr(store, "unshare", dies)
    deaths = 0
    for place in range(20):
        batch = answered(store, 1)
        sent(store, folders.one, batch)
        sent(store, folders.two, batch)
        forgetting.begin(store, batch)
        forgets(store, batch, folders.other)
        forgetting.take_for_deleted(store, batch, forgetting.elsewhere(store, batch, folders.other))
        left[0] = place
        with contextlib.suppress(failpoints.Failpoint):
            assert forgets(store, batch, folders.other) == 0
            break
        deaths += 1
        assert forgets(other, batch, folders.other) == 0
    assert deaths >= 4, "two folders, and their marks"
