"""What runs have made: fetched whole, under safe names, within limits; what cannot be had costs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from askq.files.folder import Folder
from askq.jobs.model import Answer, Claim, State
from askq.jobs.objects import Kind
from tests.unit.protocols_stage import Service
from tests.unit.test_steps import claim as a_claim
from worker import steps
from worker.downloads import MOST_TRIES, Downloads, Limits, NotNow, objects_made
from worker.protocols.base import Ambiguous, Blocked, CallError, Gone, Limited
from worker.protocols.filing import Filing, Made, TooLarge

WITH_CODE = Answer(text="done", code=({"input": "1", "output": "", "container_id": "cntr_1"},))
LIMITS = Limits(files=5, file_bytes=1000, total_bytes=1500)
JOB = "b_1.q1"
PLAIN = {"content-type": "application/octet-stream"}


def claim(**fields: Any) -> Claim:
    return dataclasses.replace(a_claim(State.COLLECTING), id=JOB, **fields)


class Remote:
    """Files of an account, by id; an error instead of a content is raised."""

    def __init__(self, *made: Made, notes: tuple[str, ...] = ()) -> None:
        self.all = list(made)
        self.notes = list(notes)
        self.contents: dict[str, bytes | CallError] = {}
        self.fetched: list[str] = []

    async def made(self, answer: Answer) -> tuple[list[Made], list[str]]:
        return list(self.all), self.notes

    async def named(self, made: Made) -> Made:
        return made

    async def download(self, made: Made, write: Callable[[bytes], None], *, most: int) -> None:
        self.fetched.append(made.key)
        content = self.contents.get(made.key, made.key.encode())
        if isinstance(content, CallError):
            write(b"half")
            raise content
        if len(content) > most:
            raise TooLarge
        write(content)


def made(file_id: str, name: str | None = None, **more: Any) -> Made:
    return Made(kind="file", file_id=file_id, container_id="cntr_1", name=name, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")


async def fetch(folder: Folder, remote: Remote, *, limits: Limits = LIMITS, **fields: Any) -> list[dict[str, Any]]:
    downloads = Downloads(folder, limits)
    answer = await downloads.fetch(claim(**fields), WITH_CODE, remote)  # type: ignore[arg-type]
    assert answer.text == "done"
    assert not folder.partial()
    return [dict(file) for file in answer.files]


async def test_files_come_under_safe_names_with_type_and_size(folder: Folder) -> None:
    remote = Remote(
        made("f1", "../../etc/passwd"), made("f2", "요금 \x00.csv"), made("f3", "CON"), made("f4", "a" * 300)
    )
    files = await fetch(folder, remote)
    assert [file["name"] for file in files] == ["passwd", "요금 .csv", "_CON", "a" * 120]
    for file, content in zip(files, ("f1", "f2", "f3", "f4"), strict=True):
        path = (folder.root / file["path"]).resolve()
        assert path.is_relative_to(folder.root.resolve())
        assert path.read_bytes() == content.encode()
        assert file["size"] == 2
    assert files[1]["media_type"] == "text/csv"


async def test_two_files_of_one_name_are_both_there(folder: Folder) -> None:
    files = await fetch(folder, Remote(made("f1", "a.csv"), made("f2", "a.csv")))
    assert [file["name"] for file in files] == ["a.csv", "a (2).csv"]


async def test_limits_are_told_by_file(folder: Folder) -> None:
    remote = Remote(*(made(f"f{n}", f"{n}.csv") for n in range(7)))
    remote.contents = {"f0": b"x" * 1001, "f1": b"x" * 900, "f2": b"y" * 700}
    files = await fetch(folder, remote)
    assert [file.get("error", {}).get("code") for file in files] == [
        *("too_large", None, "too_large", None, None, "too_many", "too_many")
    ]
    assert remote.fetched == ["f0", "f1", "f2", "f3", "f4"]


async def test_a_size_that_is_told_before_is_not_fetched(folder: Folder) -> None:
    service = Service()
    async with service.client() as client:
        with pytest.raises(TooLarge):
            await Filing(client).download(made("f1", size=2000), lambda data: None, most=1000)


async def test_what_is_gone_is_told_and_the_rest_is_there(folder: Folder) -> None:
    remote = Remote(made("f1", "a.csv"), made("f2", "b.csv"))
    remote.contents["f1"] = Gone("not_found", "Container is expired.")
    one, two = await fetch(folder, remote)
    assert one["error"] == {"code": "gone", "message": "Container is expired."}
    assert "path" not in one
    assert two["path"] == "b_1/q1/b.csv"


async def test_a_server_that_gives_out_no_files_costs_the_files_alone(folder: Folder) -> None:
    remote = Remote(made("f1", "a.csv"))
    remote.contents["f1"] = Blocked("endpoint_gone", "Not Found")
    (file,) = await fetch(folder, remote)
    assert file["error"]["code"] == "refused"
    remote.contents["f1"] = Blocked("rejected_key", "Incorrect API key")
    with pytest.raises(Blocked):
        await Downloads(folder, LIMITS).fetch(claim(), WITH_CODE, remote)  # type: ignore[arg-type]


async def test_a_container_that_is_gone_is_told_though_nothing_names_its_files(folder: Folder) -> None:
    (file,) = await fetch(folder, Remote(notes=("the container of its code is gone: expired",)))
    assert file["error"]["code"] == "gone"


@pytest.mark.parametrize("error", [Ambiguous("cut", "3 of 9 bytes came"), Limited("unreachable", "no connection")])
async def test_what_may_pass_is_tried_again_and_not_for_ever(folder: Folder, error: CallError) -> None:
    remote = Remote(made("f1", "a.csv"), made("f2", "b.csv"))
    remote.contents["f2"] = error
    downloads = Downloads(folder, LIMITS)
    with pytest.raises(type(error)):
        await downloads.fetch(claim(), WITH_CODE, remote)  # type: ignore[arg-type]
    answer = await downloads.fetch(claim(errors=MOST_TRIES - 1), WITH_CODE, remote)  # type: ignore[arg-type]
    assert remote.fetched == ["f1", "f2", "f2"], "what is here is not fetched again"
    assert answer.files[0]["path"] == "b_1/q1/a.csv"
    assert answer.files[1]["error"]["code"] == "unreachable"


async def test_after_a_death_the_files_are_the_same(folder: Folder) -> None:
    remote = Remote(made("f1", "a.csv"), made("f2", "a.csv"))
    assert await fetch(folder, remote) == await fetch(folder, remote)
    assert len(list(folder.root.rglob("a*.csv"))) == 2


async def test_what_an_earlier_run_has_brought_is_not_fetched_again(folder: Folder) -> None:
    """Later rounds work on in the same container, and its list has everything."""
    remote = Remote(made("f1", "a.csv", size=2), made("f2", "b.csv", size=2))
    first = await fetch(folder, remote)
    brought = json.dumps({"files": first})
    remote.all += [made("f3", "a.csv", size=2), made("f4", "b.csv", size=2)]
    remote.contents["f4"] = b"f2"  # the same once more
    found = await fetch(folder, remote, brought=brought)
    assert remote.fetched == ["f1", "f2", "f3", "f4"]
    assert [(file["file_id"], file["path"]) for file in found] == [("f3", "b_1/q1/a (2).csv")]
    remote.all = [made("f1", "a.csv", size=3)]
    remote.contents["f1"] = b"new"
    (anew,) = await fetch(folder, remote, brought=brought)
    assert (folder.root / anew["path"]).read_bytes() == b"new", "one with another size is another file"


async def test_limits_are_those_of_all_rounds_together(folder: Folder) -> None:
    remote = Remote(*(made(f"f{n}", f"{n}.csv") for n in range(4)))
    remote.contents["f0"] = b"x" * 900
    brought = json.dumps({"files": await fetch(folder, remote)})
    remote.all = [made("g1", "g.csv"), made("g2", "h.csv"), made("f3", "3.csv")]
    for content, first in ((b"y" * 601, "too_large"), (b"y", None)):
        remote.contents["g1"] = content
        found = await fetch(folder, remote, brought=brought)
        assert [file.get("error", {}).get("code") for file in found] == [first, "too_many"]


async def test_a_container_that_is_gone_says_nothing_of_files_that_are_here(folder: Folder) -> None:
    remote = Remote(made("f1", "a.csv"))
    brought = json.dumps({"files": await fetch(folder, remote)})
    remote.notes = ["the container of its code is gone: expired"]
    assert await fetch(folder, remote, brought=brought) == []


async def test_files_of_other_answers_are_theirs_unless_this_one_names_them(folder: Folder) -> None:
    remote = Remote(made("f1", "a.csv"), made("f2", "b.csv"), made("f3", "c.csv"))
    answer = dataclasses.replace(WITH_CODE, files=({"kind": "file", "file_id": "f2"},))
    downloads = Downloads(folder, LIMITS)
    found = await downloads.fetch(claim(), answer, remote, others={"f1", "f2"})  # type: ignore[arg-type]
    assert [file["file_id"] for file in found.files] == ["f2", "f3"]


async def test_the_same_file_written_twice_is_one(folder: Folder) -> None:
    remote = Remote(made("f1", "a.csv"), made("f2", "a.csv"))
    remote.contents = {"f1": b"same", "f2": b"same"}
    assert [file["name"] for file in await fetch(folder, remote)] == ["a.csv"]


async def test_a_folder_that_takes_nothing_is_waited_for(folder: Folder) -> None:
    folder.root.write_text("a file is in the way")
    with pytest.raises(NotNow, match="cannot be written"):
        await Downloads(folder, LIMITS).fetch(claim(), WITH_CODE, Remote(made("f1", "a.csv")))  # type: ignore[arg-type]
    answer = await Downloads(folder, LIMITS).fetch(
        claim(errors=MOST_TRIES - 1),
        WITH_CODE,
        Remote(made("f1", "a.csv")),  # type: ignore[arg-type]
    )
    assert answer.files[0]["error"]["code"] == "not_written"
    decision = steps.answered(claim(), answer, {}, usage=None)
    assert decision.move.name == "complete"
    assert "1 of 1 files were not kept" in str(decision.move.fields["note"])


async def test_a_picture_in_the_reply_is_kept_unless_it_is_one_of_the_files(folder: Folder) -> None:
    picture = base64.b64encode(b"f1").decode()
    link = Made(kind="image", url=f"data:image/png;base64,{picture}")
    remote = Remote(link, made("f1", "chart.png"))
    remote.contents[link.key] = b"f1"
    (file,) = await fetch(folder, remote)
    assert file["name"] == "chart.png"
    (alone,) = await fetch(folder, Remote(link), limits=dataclasses.replace(LIMITS, files=1))
    assert (alone["name"], alone["media_type"]) == ("image.png", "image/png")


def test_what_a_run_has_made_is_on_record_before_it_is_used() -> None:
    answer = dataclasses.replace(
        WITH_CODE,
        files=({"kind": "file", "file_id": "file-1"}, {"kind": "file", "file_id": "c", "container_id": "cntr_1"}),
    )
    found = objects_made(answer, "acc")
    assert [(one.kind, one.id) for one in found] == [(Kind.CONTAINER, "cntr_1"), (Kind.FILE, "file-1")]


# -- the calls ---------------------------------------------------------------------------------------------


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, Filing]]:
    made_ = Service()
    async with made_.client() as client:
        yield made_, Filing(client)


def cfile(file_id: str, path: str, **more: Any) -> dict[str, Any]:
    return {"id": file_id, "path": path, "bytes": 2, "source": "assistant", **more}


async def test_files_that_nothing_cites_are_found_in_the_container(service: tuple[Service, Filing]) -> None:
    said, filing = service
    answer = dataclasses.replace(
        WITH_CODE,
        files=(
            {"kind": "file", "file_id": "c1", "name": "cited.csv", "container_id": "cntr_1"},
            {"kind": "image", "url": "https://elsewhere.test/x.png"},
        ),
    )
    said.lists(
        cfile("c1", "/mnt/data/cited.csv"),
        cfile("c2", "/mnt/data/chart.png"),
        cfile("c3", "/mnt/data/titanic.csv", source="user"),
    )
    found, notes = await filing.made(answer)
    assert [(one.kind, one.file_id, one.name, one.size) for one in found] == [
        ("file", "c1", "cited.csv", 2),
        ("image", "c2", "chart.png", 2),
    ]
    assert notes == []
    assert said.calls == ["GET /containers/cntr_1/files"]


async def test_what_was_in_the_container_before_the_run_is_not_its_own(service: tuple[Service, Filing]) -> None:
    """Questions of a conversation work in one container."""
    said, filing = service

    def file(id_: str, made_at: int | None) -> dict[str, Any]:
        return {"id": id_, "path": f"/mnt/data/{id_}.csv", "bytes": 2, "source": "assistant", "created_at": made_at}

    said.lists(
        file("before", 99), file("same second", 100), file("after", 105), file("cited", 50), file("no time", None)
    )
    cited = ({"kind": "file", "file_id": "cited", "container_id": "cntr_1"},)
    found, _ = await filing.made(dataclasses.replace(WITH_CODE, files=cited, since=100))
    assert {one.file_id for one in found} == {"cited", "same second", "after", "no time"}


async def test_a_container_that_has_expired_costs_its_files_alone(service: tuple[Service, Filing]) -> None:
    said, filing = service
    said.refuses(404, "Container with id 'cntr_1' has expired.", type="invalid_request_error")
    found, notes = await filing.made(WITH_CODE)
    assert found == []
    assert "expired" in notes[0]


async def test_a_file_that_comes_in_part_is_not_taken_for_whole(service: tuple[Service, Filing]) -> None:
    said, filing = service
    got: list[bytes] = []
    said.says(text="abc", headers={"content-length": "9", **PLAIN})
    with pytest.raises(Ambiguous, match="3 of 9 bytes"):
        await filing.download(made("c1"), got.append, most=100)
    said.says(text="abc", headers=PLAIN)
    got.clear()
    await filing.download(Made(kind="file", file_id="file-1"), got.append, most=100)
    assert b"".join(got) == b"abc"
    assert said.calls == ["GET /containers/cntr_1/files/c1/content", "GET /files/file-1/content"]


async def test_a_page_of_a_proxy_is_not_taken_for_a_file(service: tuple[Service, Filing]) -> None:
    said, filing = service
    page, got = "<html>It works!</html>", list[bytes]()
    said.says(text=page)
    with pytest.raises(Ambiguous, match="a page came"):
        await filing.download(made("c1", "chart.png", size=len(page)), got.append, most=100)
    said.says(text=page)
    await filing.download(made("c1", "report.html", size=len(page)), got.append, most=100)
    assert b"".join(got) == page.encode()


async def test_a_file_that_never_ends_is_cut_off(service: tuple[Service, Filing]) -> None:
    said, filing = service
    said.says(text="x" * 500, headers={"transfer-encoding": "chunked", **PLAIN})
    with pytest.raises(TooLarge):
        await filing.download(Made(kind="file", file_id="file-1"), lambda data: None, most=100)


async def test_an_upload_says_name_type_and_purpose(service: tuple[Service, Filing], tmp_path: Path) -> None:
    said, filing = service
    (tmp_path / "x").write_bytes(b"a,b\n")
    said.says({"id": "file-1", "object": "file", "expires_at": 7})
    done = await filing.upload(tmp_path / "x", name="요금.csv", size=4, purpose="assistants")
    assert (done.id, done.expires_at) == ("file-1", 7)
    body = said.requests[0].content
    assert b"a,b\n" in body
    assert b"text/csv" in body
    assert b"assistants" in body
    assert "요금.csv".encode() in body or b"filename*=" in body


async def test_a_store_may_be_called_anything(service: tuple[Service, Filing]) -> None:
    said, filing = service
    for name in ("설명서", "دليل 📚", "x" * 500):
        said.says({"id": "vs_1", "object": "vector_store"})
        assert await filing.create_store(name=name, item=f"acc/store:{name}") == "vs_1"
    keys = {request.headers["idempotency-key"] for request in said.requests}
    assert len(keys) == 3
    assert all(key.isascii() and len(key) <= 255 for key in keys)


async def test_stores_are_found_by_what_they_were_made_for(service: tuple[Service, Filing]) -> None:
    said, filing = service
    said.lists(
        {"id": "vs_1", "metadata": {"askq_item": "acc/store:h"}, "status": "expired"},
        {"id": "vs_2", "metadata": {"askq_item": "acc/store:h"}, "status": "completed"},
        {"id": "vs_3", "metadata": {}, "status": "completed"},
    )
    assert await filing.find_stores("acc/store:h") == ["vs_2"]


async def test_an_index_is_read_by_its_counts(service: tuple[Service, Filing]) -> None:
    said, filing = service
    counts = {"in_progress": 1, "completed": 2, "failed": 1, "cancelled": 1, "total": 5}
    said.says({"id": "vs_1", "status": "in_progress", "file_counts": counts})
    seen = await filing.look("vs_1")
    assert (seen.waiting, seen.done, seen.failed) == (1, 2, 2)
    said.says({"id": "vs_1", "status": "completed", "file_counts": {"completed": 1, "failed": 1, "total": 2}})
    said.lists(
        {"id": "file-1", "status": "completed"},
        {"id": "file-2", "status": "failed", "last_error": {"code": "unsupported_file", "message": "no text"}},
    )
    unread = await filing.unread(["vs_1"])
    assert (unread.waiting, unread.failed) == (0, (("file-2", "no text"),))
