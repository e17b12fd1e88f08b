"""What was deleted is not on the disk any more; what was not survives a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options

from .stage import Stage, stage

CANARY = "canary-7f31d0c2"


def script(**default: Any) -> Any:
    return parse_script({"default": {"duration": 0, **default}})


async def upload(it: Stage, name: str, content: bytes) -> str:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("purpose", "assistants")
    form.add_field("file", content, filename=name)
    async with it.http.post(f"{it.server.base_url}/files", data=form) as reply:
        assert reply.status == 200, await reply.text()
        made: str = (await reply.json())["id"]
        return made


def traces(folder: Path) -> list[str]:
    """The files that have the canary in them."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


async def gone(folder: Path) -> None:
    async with asyncio.timeout(60):
        while traces(folder):  # noqa: ASYNC110  # nobody rings a bell
            await asyncio.sleep(0.05)


async def indexed(it: Stage, store_id: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if (await it.good("GET", f"/vector_stores/{store_id}"))["status"] != "in_progress":
                return
            await asyncio.sleep(0.02)


async def test_nothing_of_what_was_deleted_is_left_on_disk(tmp_path: Path) -> None:
    code = [{"input": f"# {CANARY}", "logs": CANARY, "files": [{"name": "x.txt", "text": CANARY}], "images": ["a.png"]}]
    options = Options(engine="script", data=str(tmp_path), idempotency=True)
    async with stage(options, script(code=code, answer=f"{CANARY} sandbox:/mnt/data/x.txt")) as it:
        file = await upload(it, f"{CANARY}.txt", f"The {CANARY} sings.".encode())
        kept = await upload(it, "kept.txt", b"stays")
        store = await it.good("POST", "/vector_stores", {"file_ids": [file, kept]})
        await indexed(it, store["id"])
        container = await it.good("POST", "/containers", {"name": "c", "file_ids": [file]})
        keyed = {"headers": {"Idempotency-Key": "k1"}}
        asked = {"model": "m", "input": f"{CANARY}?", "background": True}
        response = await it.good("POST", "/responses", asked, **keyed)
        response = await it.good("GET", f"/responses/{response['id']}?include[]=code_interpreter_call.outputs")
        assistant = await it.good("POST", "/assistants", {"model": "m"})
        thread = await it.good("POST", "/threads", {"messages": [{"role": "user", "content": f"{CANARY}?"}]})
        run = await it.good("POST", f"/threads/{thread['id']}/runs", {"assistant_id": assistant["id"]})
        await it.good("GET", f"/threads/{thread['id']}/runs/{run['id']}")
        assert len(traces(tmp_path)) >= 3

        await it.good("DELETE", f"/responses/{response['id']}")
        await it.good("DELETE", f"/threads/{thread['id']}")
        await it.good("DELETE", f"/containers/{container['id']}")
        await it.good("DELETE", f"/containers/{response['output'][0]['container_id']}")
        for made in (await it.good("GET", "/files"))["data"]:
            if made["id"] != kept:
                await it.good("DELETE", f"/files/{made['id']}")
        await gone(tmp_path)
        entries = await it.ledger()
        assert [entry["id"] for entry in entries] == [response["id"], run["id"]]
        assert len({entry["question"] for entry in entries}) == 1
        assert entries[0]["question"].startswith("sha256:")
        [body] = (await it.good("GET", "/files"))["data"]
        assert body["id"] == kept
        found = await it.good("POST", f"/vector_stores/{store['id']}/search", {"query": "stays"})
        assert [hit["file_id"] for hit in found["data"]] == [kept]
        status, _ = await it.ask("POST", "/responses", asked, **keyed)
        assert status == 404
        await it.good("DELETE", f"/vector_stores/{store['id']}")
    assert [path.name for path in (tmp_path / "stores").iterdir()] == []
    assert not traces(tmp_path)


async def test_files_stores_and_containers_survive_a_restart(tmp_path: Path) -> None:
    options = Options(engine="script", data=str(tmp_path))
    async with stage(options, script(code=[{"input": "1", "files": [{"name": "out.txt", "text": "made"}]}])) as it:
        file = await upload(it, "한글.txt", "고양이는 창가에서 잔다.".encode())
        store = await it.good("POST", "/vector_stores", {"file_ids": [file]})
        response = await it.respond()
        response = await it.good("GET", f"/responses/{response['id']}")
        container = response["output"][0]["container_id"]
    (tmp_path / "blobs" / "ab").mkdir(exist_ok=True)
    (tmp_path / "blobs" / "ab" / ("ab" * 32)).write_bytes(b"nobody's")
    (tmp_path / "stores" / "vs_none.sqlite3").write_bytes(b"nobody's")
    async with stage(options, script()) as it:
        await indexed(it, store["id"])
        found = await it.good("POST", f"/vector_stores/{store['id']}/search", {"query": "고양이"})
        assert found["data"][0]["filename"] == "한글.txt"
        [made] = (await it.good("GET", f"/containers/{container}/files"))["data"]
        async with it.http.get(f"{it.server.base_url}/containers/{container}/files/{made['id']}/content") as reply:
            assert await reply.read() == b"made"
    assert not (tmp_path / "stores" / "vs_none.sqlite3").exists()
    assert not (tmp_path / "blobs" / "ab" / ("ab" * 32)).exists()


async def test_what_is_kept_in_memory_leaves_nothing_behind() -> None:
    async with stage() as it:
        root = it.server.api.place.root
        await upload(it, "a.txt", b"abc")
        assert any(root.rglob("*"))
    assert not root.exists()
