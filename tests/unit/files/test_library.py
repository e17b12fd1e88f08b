"""The library at work: each file and store is made once, waited for, and made anew when it is gone."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from askq.files.folder import Folder
from askq.files.model import Attachment, FileRef, Resources, StoreRef
from askq.ids import job_id
from askq.jobs import forgetting
from askq.jobs.library import BY_COMMAND, ItemState, Wish, file_item, store_item
from askq.jobs.memory_store import MemoryStore
from askq.jobs.model import NewBatch, NewJob, Question
from askq.jobs.objects import RemoteObject
from tests.unit.protocols_stage import assistant
from worker import library_runner
from worker.library import Library, NotReady, Unavailable
from worker.library_steps import CHECK_STORE_S, MOST_TRIES, made_of
from worker.needs import Needs, needs
from worker.protocols.base import Ambiguous, Blocked, CallError, Given, Gone, Limited, Refused
from worker.protocols.filing import StoreSeen, Uploaded

ACCOUNT = "acc"


class Service:
    """Files and stores of an account that can be told to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.stores: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.errors: dict[str, list[CallError]] = {}
        """By call, what it raises the next times."""
        self.lost: set[str] = set()
        """Calls whose reply is lost once."""
        self.unreadable: dict[str, str] = {}
        self.slow = 0
        """Looks for which the index is not ready."""
        self.expires_at: int | None = None

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    def _reply(self, name: str) -> None:
        if name in self.lost:
            self.lost.discard(name)
            raise Ambiguous("no_reply", "the reply was lost")

    async def upload(self, path: Path, *, name: str, size: int, purpose: str) -> Uploaded:
        self._call("upload")
        made = f"file-{len(self.files) + 1}"
        self.files[made] = (name, path.read_bytes())  # noqa: ASYNC240
        await asyncio.sleep(0)
        self._reply("upload")
        return Uploaded(id=made, expires_at=self.expires_at)

    async def has_file(self, file_id: str) -> bool:
        self._call("has_file")
        return file_id in self.files

    async def delete_file(self, file_id: str) -> bool:
        self._call("delete_file")
        self.files.pop(file_id, None)
        return True

    async def create_store(self, *, name: str, item: str) -> str:
        self._call("create_store")
        made = f"vs_{len(self.stores) + 1}"
        self.stores[made] = {"item": item, "files": [], "status": "completed", "name": name}
        self._reply("create_store")
        return made

    async def find_stores(self, item: str) -> list[str]:
        self._call("find_stores")
        return [id_ for id_, store in self.stores.items() if store["item"] == item]

    async def fill_store(self, store_id: str, file_ids: Sequence[str]) -> None:
        self._call("fill_store")
        for file_id in file_ids:
            if file_id not in self.files:
                raise Refused("bad_request", f"No such File object: {file_id}")
            if file_id not in self.stores[store_id]["files"]:
                self.stores[store_id]["files"].append(file_id)
        self._reply("fill_store")

    async def files_of(self, store_id: str) -> dict[str, tuple[str, str]]:
        self._call("files_of")
        if store_id not in self.stores:
            raise Gone("not_found", store_id)
        return {
            id_: ("failed", self.unreadable[self.files[id_][0]])
            if self.files[id_][0] in self.unreadable
            else ("completed", "")
            for id_ in self.stores[store_id]["files"]
        }

    async def look(self, store_id: str) -> StoreSeen:
        self._call("look")
        if store_id not in self.stores:
            raise Gone("not_found", store_id)
        files = self.stores[store_id]["files"]
        failed = sum(self.files[id_][0] in self.unreadable for id_ in files)
        waiting, self.slow = (len(files), self.slow - 1) if self.slow > 0 else (0, 0)
        done = 0 if waiting else len(files) - failed
        return StoreSeen(status=self.stores[store_id]["status"], waiting=waiting, done=done, failed=failed)

    async def delete_store(self, store_id: str) -> bool:
        self._call("delete_store")
        self.stores.pop(store_id, None)
        return True


class Stage:
    """A library with a service, and files to be sent."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.service = Service()
        self.folder = Folder(root / "files")
        self.root = root
        self.library = self.another()

    def another(self) -> Library:
        """The library as another process has it."""
        return Library(self.store, ACCOUNT, self.folder, lambda: self.service)  # type: ignore[arg-type,return-value]

    def ref(self, name: str, content: str = "content") -> FileRef:
        path = self.root / name
        path.write_text(content)
        return self.folder.keep(path)

    async def given(self, needed: Needs | None, *, user: str = "b_1", go_on: bool = False) -> Given | Unavailable:
        """What comes in the end."""
        assert needed is not None
        async with asyncio.timeout(60):
            while True:
                found = await self.library.give(needed, user=user, go_on=go_on)
                if not isinstance(found, NotReady):
                    return found
                await asyncio.sleep(0.01)

    async def ids(self, needed: Needs | None, *, user: str = "b_1", go_on: bool = False) -> Given:
        found = await self.given(needed, user=user, go_on=go_on)
        assert isinstance(found, Given), found
        return found

    def item(self, wish: Wish) -> Any:
        (found,) = self.store.items(ACCOUNT, [wish.name])
        return found


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(library_runner, "_NAP_S", 0.01)
    monkeypatch.setattr("worker.library_steps.backoff", lambda tries, jitter: 0.01)
    made = Stage(tmp_path)
    yield made
    if open_ := made.library.stop():
        await asyncio.wait(open_, timeout=1.0)


async def until(seen: Callable[[], bool]) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(60):
        while not seen():  # noqa: ASYNC110  there is no event: another part of the program does it
            await asyncio.sleep(0.01)


def row(*attachments: Attachment, protocol: str = "responses", **fields: Any) -> Needs | None:
    return needs(assistant(**fields), attachments, protocol=protocol)


def code(ref: FileRef) -> Attachment:
    return Attachment(tool="code_interpreter", file=ref)


def search(ref: FileRef) -> Attachment:
    return Attachment(tool="file_search", file=ref)


async def test_a_file_is_uploaded_once_whoever_needs_it(stage: Stage) -> None:
    ref = stage.ref("표.csv")
    found = await asyncio.gather(*(stage.ids(row(code(ref)), user=f"b_{n}") for n in range(5)))
    assert {given.row_code for given in found} == {("file-1",)}
    assert stage.service.files == {"file-1": ("표.csv", b"content")}
    stage.library = stage.another()
    assert (await stage.ids(row(code(ref)), user="b_1")).row_code == ("file-1",)
    assert stage.service.calls.count("upload") == 1
    thing = f"{ACCOUNT}/{file_item(ref, 'assistants').name}"
    assert stage.store.users(thing) == [f"b_{n}" for n in range(5)]
    assert [entry.object.id for entry in stage.store.objects(thing)] == ["file-1"]


async def test_the_same_content_under_another_name_is_another_file(stage: Stage) -> None:
    one, two = stage.ref("a.csv"), stage.ref("b.csv")
    given = await stage.ids(row(code(one), code(two)))
    assert len(set(given.row_code)) == 2
    assert {name for name, _ in stage.service.files.values()} == {"a.csv", "b.csv"}


async def test_an_upload_whose_reply_was_lost_is_made_again(stage: Stage) -> None:
    stage.service.lost.add("upload")
    given = await stage.ids(row(code(stage.ref("a.csv"))))
    assert given.row_code == ("file-2",)


async def test_an_id_on_record_is_used_by_whoever_comes_after_a_death(stage: Stage) -> None:
    wish = file_item(stage.ref("a.csv"), "assistants")
    stage.store.want(ACCOUNT, [wish])
    (item,) = stage.store.claim_items(ACCOUNT, limit=1, lease_s=0.0)
    made = await stage.service.upload(stage.root / "a.csv", name="a.csv", size=7, purpose="assistants")
    stage.store.remember(f"{ACCOUNT}/{wish.name}", [made_of(ACCOUNT, item, made.id)])
    given = await stage.ids(row(code(stage.ref("a.csv"))))
    assert given.row_code == (made.id,)
    assert stage.service.calls.count("upload") == 1


@pytest.mark.parametrize(
    "error",
    [Limited("rate_limit_exceeded", "not now", retry_after=0.01), Ambiguous("http_500", "down")],
)
async def test_trouble_that_passes_is_waited_for(stage: Stage, error: CallError) -> None:
    stage.service.errors["upload"] = [error] * 3
    assert (await stage.ids(row(code(stage.ref("a.csv"))))).row_code == ("file-1",)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Refused("bad_request", "unsupported type"), "the service refused it: unsupported type"),
        (Blocked("endpoint_gone", "Not Found"), "this server has no files"),
    ],
)
async def test_trouble_that_stays_ends_the_job(stage: Stage, error: CallError, told: str) -> None:
    stage.service.errors["upload"] = [error]
    found = await stage.given(row(code(stage.ref("a.csv"))))
    assert isinstance(found, Unavailable)
    assert (found.code, told in found.message, "a.csv" in found.message) == ("file_unavailable", True, True)
    assert (await stage.given(row(code(stage.ref("a.csv"))))) == found, "at once, and without another attempt"
    assert stage.service.calls.count("upload") == 1


async def test_what_failed_is_tried_again_when_it_is_asked_for_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.service.errors["upload"] = [Refused("bad_request", "no room")]
    needed = row(code(stage.ref("a.csv")))
    assert isinstance(await stage.given(needed), Unavailable)
    monkeypatch.setattr("worker.library_steps.AGAIN_S", 0.0)
    await asyncio.sleep(0.01)
    assert (await stage.ids(needed)).row_code == ("file-1",)


async def test_a_content_that_is_not_here_names_the_folder(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.library_steps._NOT_HERE_TRIES", 1)
    ref = stage.ref("a.csv")
    stage.folder.drop(ref.sha256)
    found = await stage.given(row(code(ref)))
    assert isinstance(found, Unavailable)
    assert "ASKQ_FILES" in found.message


async def test_attempts_are_bounded(stage: Stage) -> None:
    stage.service.errors["upload"] = [Ambiguous("http_500", "down")] * (MOST_TRIES + 5)
    found = await stage.given(row(code(stage.ref("a.csv"))))
    assert isinstance(found, Unavailable)
    assert "attempts failed" in found.message


async def test_an_item_on_which_processes_die_is_given_up(stage: Stage) -> None:
    wish = file_item(stage.ref("a.csv"), "assistants")
    stage.store.want(ACCOUNT, [wish])
    (item,) = stage.store.claim_items(ACCOUNT, limit=1, lease_s=0.0)
    stage.store.move_item(ACCOUNT, item, {"state": "making", "tries": MOST_TRIES + 1}, due_s=0.0)
    found = await stage.given(row(code(stage.ref("a.csv"))))
    assert isinstance(found, Unavailable)
    assert "attempts came to nothing" in found.message
    assert "upload" not in stage.service.calls


async def test_nothing_is_begun_while_a_suspect_is_in_hand(stage: Stage) -> None:
    needed = row(code(stage.ref("a.csv")))
    assert needed is not None
    async with stage.library.held():
        assert isinstance(await stage.library.give(needed, user="b_1", go_on=False), NotReady)
        await asyncio.sleep(0.1)
        assert stage.service.calls == []
    assert (await stage.ids(needed)).row_code == ("file-1",)


async def test_a_file_that_is_gone_is_uploaded_anew(stage: Stage) -> None:
    needed = row(code(stage.ref("a.csv")))
    (old,) = (await stage.ids(needed)).row_code
    stage.service.files.clear()
    stage.service.files["other"] = ("other", b"")
    assert await stage.library.missing([old])
    assert (await stage.ids(needed)).row_code == ("file-2",)
    assert not await stage.library.missing(["file-2"]), "one that is there is no reason"


async def test_many_who_are_refused_for_the_same_file_at_once_all_come_back_for_it(stage: Stage) -> None:
    needed = row(code(stage.ref("a.csv")))
    for user in ("b_1", "b_2"):
        (old,) = (await stage.ids(needed, user=user)).row_code
    stage.service.files.clear()
    stage.service.files["other"] = ("other", b"")
    assert await asyncio.gather(*(stage.library.missing([old]) for _ in range(5))) == [True] * 5
    for user in ("b_1", "b_2"):
        assert (await stage.ids(needed, user=user)).row_code == ("file-2",)


async def test_what_is_known_makes_room_and_is_used_all_the_same(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a file that all questions share, when there are more files than are remembered, then no question fails."""
    monkeypatch.setattr("worker.library._REMEMBERED", 2)
    shared = code(stage.ref("all.csv", "all"))
    for number in range(5):
        own = code(stage.ref(f"{number}.csv", str(number)))
        assert len((await stage.ids(row(shared, own))).row_code) == 2
    assert stage.service.calls.count("upload") == 6


async def test_a_file_that_expires_soon_is_uploaded_anew(stage: Stage) -> None:
    stage.service.expires_at = 1
    needed = row(code(stage.ref("a.csv")))
    (wish,) = needed.wishes() if needed else []
    stage.store.want(ACCOUNT, [wish])
    stage.library.kick()
    await until(lambda: stage.item(wish).state is ItemState.READY)
    stage.service.expires_at = None
    assert (await stage.ids(needed)).row_code == ("file-2",)


async def test_a_file_that_its_last_user_has_left_is_not_used_any_more(stage: Stage) -> None:
    needed = row(code(stage.ref("a.csv")))
    await stage.ids(needed, user="b_1")
    thing = f"{ACCOUNT}/{needed.row_code[0].name}" if needed else ""
    assert stage.store.unshare(thing, "b_1"), "it is to be deleted now"
    assert (await stage.ids(needed, user="b_2")).row_code == ("file-2",)


# -- stores --------------------------------------------------------------------------------------------------


async def test_a_store_is_made_once_filled_and_waited_for(stage: Stage) -> None:
    refs = tuple(stage.ref(f"{name}.md", name) for name in "abc")
    stage.service.slow = 3
    store = Resources(store=StoreRef(name="handbook", files=refs))
    needed = row(resources=store)
    assert isinstance(first := await stage.library.give(needed, user="b_1", go_on=False), NotReady)  # type: ignore[arg-type]
    assert first.note == "waits for the index of handbook: files are uploaded: 0 of 3"
    given = await stage.ids(needed)
    assert given.stores == ("vs_1",)
    assert sorted(stage.service.stores["vs_1"]["files"]) == ["file-1", "file-2", "file-3"]
    assert stage.service.stores["vs_1"]["name"] == "handbook"
    stage.library = stage.another()
    assert (await stage.ids(needed, user="b_2")).stores == ("vs_1",)
    assert stage.service.calls.count("create_store") == 1


async def test_why_nothing_gets_on_is_told_while_it_is_tried_again(stage: Stage) -> None:
    stage.service.errors["create_store"] = [Ambiguous("no_reply", "the service\nis away")] * 3
    needed = row(resources=Resources(store=StoreRef(name="설명서", files=(stage.ref("a.md"),))))
    assert needed is not None
    told: set[str] = set()
    async with asyncio.timeout(60):
        while isinstance(found := await stage.library.give(needed, user="b_1", go_on=False), NotReady):
            told.add(found.note)
            await asyncio.sleep(0)
    why = "the last attempt failed: no_reply: the service is away"
    assert f"waits for the index of 설명서: is being made of 1 files; {why}" in told
    (item,) = [item for item in stage.store.items(ACCOUNT) if item.kind == "store"]
    assert (item.progress(), item.error) == ("ready: 1 of 1 files", None)


async def test_a_store_whose_reply_was_lost_is_found_again(stage: Stage) -> None:
    stage.service.lost = {"create_store", "fill_store"}
    given = await stage.ids(row(resources=Resources(store=StoreRef(files=(stage.ref("a.md"),)))))
    assert given.stores == ("vs_1",)
    assert len(stage.service.stores) == 1


async def test_a_store_that_expired_is_made_anew(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = row(resources=Resources(store=StoreRef(files=(stage.ref("a.md"),))))
    assert (await stage.ids(needed)).stores == ("vs_1",)
    stage.service.stores["vs_1"]["status"] = "expired"
    monkeypatch.setattr("worker.library_steps.CHECK_STORE_S", -1.0)
    stage.library = stage.another()
    found = stage.library.give(needed, user="b_2", go_on=False)  # type: ignore[arg-type]
    assert isinstance(await found, NotReady)
    await until(lambda: len(stage.service.stores) == 2)
    monkeypatch.setattr("worker.library_steps.CHECK_STORE_S", CHECK_STORE_S)
    assert (await stage.ids(needed, user="b_2")).stores == ("vs_2",)


async def test_a_store_whose_file_is_gone_gets_it_anew(stage: Stage) -> None:
    ref = stage.ref("a.md")
    await stage.ids(row(code(ref)))
    stage.service.files = {"other": ("other", b"")}
    given = await stage.ids(row(resources=Resources(store=StoreRef(files=(ref,)))))
    assert stage.service.stores[given.stores[0]]["files"] == ["file-2"]


@pytest.mark.parametrize("go_on", [False, True])
async def test_files_that_cannot_be_read_are_told_by_name(stage: Stage, *, go_on: bool) -> None:
    refs = (stage.ref("good.md", "1"), stage.ref("bad.md", "2"))
    stage.service.unreadable = {"bad.md": "it is encrypted"}
    wish = store_item(StoreRef(name="h", files=refs))
    found = await stage.given(row(resources=Resources(store=StoreRef(name="h", files=refs))), go_on=go_on)
    if go_on:
        assert isinstance(found, Given)
        assert found.stores == ("vs_1",)
    else:
        assert isinstance(found, Unavailable)
        assert found.code == "index_failed"
        assert "bad.md: it is encrypted" in found.message
    item = stage.item(wish)
    assert item.failures == [("bad.md", "it is encrypted")]
    assert item.progress() == "ready: 1 of 2 files"


async def test_a_store_that_is_only_named_must_be_there(stage: Stage) -> None:
    needed = row(resources=Resources(store=StoreRef(name="handbook")))
    found = await stage.given(needed)
    assert isinstance(found, Unavailable)
    assert (found.code, "askq stores create" in found.message) == ("store_missing", True)
    ref = stage.ref("a.md")
    wish = Wish(name="store:handbook", kind="store", title="handbook", about={"files": [ref.to_json()]})
    stage.store.want(ACCOUNT, [wish], kept=True)
    assert (await stage.ids(needed)).stores == ("vs_1",)


async def test_a_store_takes_its_files_with_it_unless_others_use_them(stage: Stage) -> None:
    shared, own = stage.ref("shared.md", "1"), stage.ref("own.md", "2")
    await stage.ids(row(code(shared)))
    await stage.ids(row(resources=Resources(store=StoreRef(name="h", files=(shared, own)))), user=BY_COMMAND)
    item = stage.item(store_item(StoreRef(name="h", files=(shared, own))))
    stage.store.move_item(ACCOUNT, item, {"state": ItemState.LEAVING}, due_s=0.0, take_over=True)
    stage.library.kick()
    await until(lambda: not stage.service.stores and len(stage.service.files) == 1)
    assert [name for name, _ in stage.service.files.values()] == ["shared.md"]
    assert [item.title for item in stage.store.items(ACCOUNT)] == ["shared.md"]


async def test_a_stale_holder_commits_nothing(stage: Stage) -> None:
    wish = file_item(stage.ref("a.csv"), "assistants")
    stage.store.want(ACCOUNT, [wish])
    (old,) = stage.store.claim_items(ACCOUNT, limit=1, lease_s=0.0)
    given = await stage.ids(row(code(stage.ref("a.csv"))))
    await stage.library._runner._work(old)
    assert stage.item(wish).remote == given.row_code[0]


async def test_what_is_made_for_an_item_that_has_left_is_deleted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file is uploaded, the batch that needs it is forgotten: nobody would ever delete the file."""
    wish = file_item(stage.ref("a.csv"), "assistants")
    upload = stage.service.upload

    async def while_it_leaves(*args: Any, **options: Any) -> Any:
        (item,) = stage.store.items(ACCOUNT)
        stage.store.unshare(f"{ACCOUNT}/{wish.name}", "b_1")
        stage.store.drop_item(ACCOUNT, item)
        return await upload(*args, **options)

    monkeypatch.setattr(stage.service, "upload", while_it_leaves)
    needed = row(code(stage.ref("a.csv")))
    assert needed is not None
    assert isinstance(await stage.library.give(needed, user="b_1", go_on=False), NotReady)
    await until(lambda: bool(stage.service.files) and not stage.library._runner._tasks)
    (stone,) = stage.store.all_buried()
    assert (stone.owner, stone.object.id) == (f"{ACCOUNT}/{wish.name}", "file-1")
    assert list(stage.store.unowned()) == []


@pytest.mark.parametrize("error", [Refused("bad_request", "not now"), Ambiguous("http_500", "oops")])
async def test_what_leaves_is_never_given_up(stage: Stage, error: CallError) -> None:
    """Its record has the name of a file that somebody may have asked to be forgotten."""
    given = await stage.ids(row(code(stage.ref("a.csv"))))
    (item,) = stage.store.items(ACCOUNT)
    stage.store.move_item(ACCOUNT, item, {"state": ItemState.LEAVING, "tries": 50}, due_s=0.0, take_over=True)
    stage.service.errors["delete_file"] = [error] * 3
    stage.library.kick()
    await until(lambda: not stage.store.items(ACCOUNT))
    assert given.row_code[0] not in stage.service.files


# -- what goes where ---------------------------------------------------------------------------------------


def ref(name: str) -> FileRef:
    return FileRef(name=name, sha256=name, size=1)


def test_nearly_all_questions_need_nothing() -> None:
    assert row() is None


def test_images_are_part_of_the_message() -> None:
    needed = row(Attachment(tool="image", file=ref("a.png")), Attachment(tool="image", url="https://x.test/b.png"))
    assert needed is not None
    (wish,) = needed.wishes()
    assert wish.purpose == "vision"
    given = needed.given({wish.name: "file-1"})
    assert [(image.file_id, image.url) for image in given.images] == [("file-1", None), (None, "https://x.test/b.png")]


def test_on_responses_what_message_and_thread_bring_is_one_store() -> None:
    thread = Resources(store=StoreRef(name="t", files=(ref("t.md"),)), code=(ref("t.csv"),), file_ids=("file-9",))
    needed = row(
        search(ref("m.md")),
        resources=Resources(store=StoreRef(name="a", files=(ref("a.md"),))),
        thread_resources=thread,
    )
    assert needed is not None
    assert needed.thread_store is None
    assert needed.row_store is not None
    assert [file.name for file in needed.row_store.files] == ["t.md", "m.md"]
    ids = {wish.name: wish.title for wish in needed.wishes()}
    given = needed.given(ids)
    assert given.stores == ("a",)
    assert given.row_stores == ("t.md and 1 more",)
    assert given.thread_code == ("file-9", "t.csv")


def test_on_responses_a_question_brings_the_files_of_those_before_it() -> None:
    needed = needs(
        assistant(protocol="responses"),
        [search(ref("b.md"))],
        protocol="responses",
        earlier=[search(ref("a.md")), code(ref("c.csv"))],
    )
    assert needed is not None
    assert needed.row_store is not None
    assert [file.name for file in needed.row_store.files] == ["a.md", "b.md"]
    assert [wish.title for wish in needed.row_code] == ["c.csv"]


async def test_on_assistants_a_thread_that_is_added_to_has_a_store_of_its_own(stage: Stage) -> None:
    thread = Resources(store=StoreRef(name="t", files=(stage.ref("t.md", "t"),)))
    alone = await stage.ids(needs(assistant(thread_resources=thread), (), protocol="assistants"))
    assert (alone.thread_stores, alone.thread_store_files) == (("vs_1",), ())
    added = await stage.ids(row(search(stage.ref("m.md", "m")), protocol="assistants", thread_resources=thread))
    assert added.thread_stores == ()
    assert len(added.thread_store_files) == 1
    assert len(added.row_search) == 1
    talk = needs(assistant(thread_resources=thread), (), protocol="assistants", in_conversation=True)
    assert (await stage.ids(talk)).thread_store_files == added.thread_store_files
    named = dataclasses.replace(thread, store=StoreRef(name="by-command"))
    wish = Wish(
        name="store:by-command", kind="store", title="by-command", about={"files": [stage.ref("n.md", "n").to_json()]}
    )
    stage.store.want(ACCOUNT, [wish])
    own = await stage.ids(needs(assistant(thread_resources=named), (), protocol="assistants", in_conversation=True))
    assert len(own.thread_store_files) == 1


def asked(stage: Stage) -> tuple[str, str]:
    """The ids of a batch and its only job."""
    batch, _ = stage.store.open_batch(NewBatch(name=None, assistant="tutor", protocol="responses"))
    question = Question(row_id="q1", index=0, text="What is 2 + 2?")
    new = NewJob(question=question, assistant="tutor", assistant_digest="d", protocol="responses")
    stage.store.add(batch, [new])
    stage.store.seal(batch, 1)
    return batch, job_id(batch, "q1")


def forget(stage: Stage, batch: str) -> None:
    forgetting.begin(stage.store, batch)
    assert forgetting.advance(stage.store, batch, stage.folder) == 0


async def test_nothing_is_wanted_for_a_question_that_was_forgotten(stage: Stage) -> None:
    """Given a process that was stopped while its batch was forgotten, when it goes on, then it brings nothing back."""
    wish = file_item(stage.ref("a.csv"), "assistants")
    batch, job = asked(stage)
    forget(stage, batch)
    found = await stage.library.give(Needs(row_code=(wish,)), user=batch, go_on=False, job=job)
    assert isinstance(found, Unavailable)
    assert (stage.store.items(ACCOUNT), stage.store.users(f"{ACCOUNT}/{wish.name}")) == ([], [])


async def test_a_use_that_is_noted_while_its_batch_is_forgotten_is_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a process that was stopped just before it noted what it uses, when the batch is gone as it goes on, then
    the file is not kept for ever, nor is one that others use deleted."""
    mine, ours = (file_item(stage.ref(name, name), "assistants") for name in ("a.csv", "b.csv"))
    await stage.ids(Needs(row_code=(ours,)), user="b_other")
    batch, job = asked(stage)
    share = stage.store.share

    def late(thing: str, user: str) -> list[RemoteObject]:
        if stage.store.batch(batch) is not None:
            forget(stage, batch)
        return share(thing, user)

    monkeypatch.setattr(stage.store, "share", late)
    await stage.library.give(Needs(row_code=(mine, ours)), user=batch, go_on=False, job=job)
    await until(lambda: [item.name for item in stage.store.items(ACCOUNT)] == [ours.name])
    assert stage.store.users(f"{ACCOUNT}/{mine.name}") == []
    assert stage.store.users(f"{ACCOUNT}/{ours.name}") == ["b_other"]
    assert [name for name, _ in stage.service.files.values()] == ["b.csv"]


async def test_a_file_is_not_kept_by_a_store_that_was_deleted_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a process that was stopped just before it noted that a store uses a file, when the store is gone as it goes
    on, then the file goes, too."""
    wish = store_item(StoreRef(files=(stage.ref("a.txt"),)))
    share, late_for = stage.store.share, list[str]()

    def late(thing: str, user: str) -> list[RemoteObject]:
        if user.startswith(f"{ACCOUNT}/store:") and (items := stage.store.items(ACCOUNT, [wish.name])):
            late_for.append(thing)
            stage.store.move_item(ACCOUNT, items[0], {"state": ItemState.LEAVING}, due_s=99.0, take_over=True)
            stage.store.unshare(f"{ACCOUNT}/{wish.name}", "b_1")
        return share(thing, user)

    monkeypatch.setattr(stage.store, "share", late)
    await stage.library.give(Needs(row_store=wish), user="b_1", go_on=False)
    await until(lambda: bool(late_for) and not stage.store.items(ACCOUNT, [late_for[0].partition("/")[2]]))
    assert "fill_store" not in stage.service.calls
    await until(lambda: not stage.service.files)
