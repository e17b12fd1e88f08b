"""Vector stores and what is attached to assistants, threads, messages and responses, as the real OpenAI SDK sees it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.server import running
from tests.contract.test_localapi_sdk_files import Clock, upload

HANDBOOK = b"""# Handbook

Employees get 25 days of paid leave per year. Unused days lapse on 31 March.

Remote work: up to three days a week, after agreement with the team.
"""
HTML = "<html><head><title>x</title></head><body><p>La <b>bibliothèque</b> est au nord.</p></body></html>"
KOREAN = "연차 휴가는 1년에 25일입니다.\n\n재택근무는 일주일에 사흘까지 할 수 있습니다.\n".encode()


@contextlib.asynccontextmanager
async def api(clock: Clock | None = None, **script: Any) -> AsyncIterator[AsyncOpenAI]:
    content = {"default": {"duration": 0}, **script}
    async with (
        running(Options(engine="script", clock=clock or Clock()), script=parse_script(content)) as server,
        AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client,
    ):
        yield client


async def ready(client: AsyncOpenAI, store_id: str) -> Any:
    async with asyncio.timeout(120):
        while True:
            store = await client.vector_stores.retrieve(store_id)
            if store.status != "in_progress":
                return store
            await asyncio.sleep(0.01)


async def test_a_store_lives_from_create_to_delete() -> None:
    async with api() as client:
        files = [await upload(client, "handbook.md", HANDBOOK), await upload(client, "휴가.txt", KOREAN)]
        made = await client.vector_stores.create(name="지식", file_ids=files, metadata={"a": "b"})
        assert (made.object, made.name, made.metadata, made.file_counts.total) == (
            "vector_store",
            "지식",
            {"a": "b"},
            2,
        )
        store = await ready(client, made.id)
        assert (store.status, store.file_counts.completed, store.file_counts.failed) == ("completed", 2, 0)
        assert store.usage_bytes == len(HANDBOOK) + len(KOREAN)
        listed = await client.vector_stores.files.list(made.id, order="asc")
        assert [file.id for file in listed.data] == files
        assert [one.id async for one in client.vector_stores.list()] == [made.id]
        changed = await client.vector_stores.update(made.id, name="more", metadata={"c": "d"})
        assert (changed.name, changed.metadata) == ("more", {"c": "d"})
        content = await client.vector_stores.files.content(files[1], vector_store_id=made.id)
        assert "재택근무" in content.data[0].text
        assert (await client.vector_stores.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.vector_stores.retrieve(made.id)
        assert len((await client.files.list()).data) == 2


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("How many days of leave do I get?", "handbook.md"),
        ("remote working", "handbook.md"),
        ("연차 휴가는 며칠인가요?", "휴가.txt"),
        ("재택근무", "휴가.txt"),
        ("昼休みは何時ですか", "案内.txt"),
        ("où est la bibliothèque", "plan.html"),
    ],
)
async def test_searching_finds_the_passage_in_every_language(question: str, found: str) -> None:
    texts = {
        "handbook.md": HANDBOOK,
        "휴가.txt": KOREAN,
        "案内.txt": "昼休みは正午から一時間です。".encode(),
        "plan.html": HTML.encode(),
        "noise.py": b"def leave(): return None\n",
    }
    async with api() as client:
        store = await client.vector_stores.create(file_ids=[await upload(client, *item) for item in texts.items()])
        await ready(client, store.id)
        page = await client.vector_stores.search(store.id, query=question, max_num_results=3)
        assert page.data[0].filename == found
        assert 0 < page.data[0].score <= 1
        assert [hit.score for hit in page.data] == sorted((hit.score for hit in page.data), reverse=True)
        assert (await client.vector_stores.search(store.id, query="zzz qqq")).data == []


async def test_attributes_filter_a_search() -> None:
    async with api() as client:
        store = await client.vector_stores.create()
        for year in (2024, 2025):
            file = await upload(client, f"{year}.txt", f"The budget of {year} is large.".encode())
            await client.vector_stores.files.create_and_poll(file, vector_store_id=store.id, attributes={"year": year})
        found = await client.vector_stores.search(
            store.id, query="budget", filters={"type": "eq", "key": "year", "value": 2025}
        )
        assert [hit.filename for hit in found.data] == ["2025.txt"]
        assert found.data[0].attributes == {"year": 2025}
        either: Any = {
            "type": "or",
            "filters": [{"type": "lt", "key": "year", "value": 2025}, {"type": "eq", "key": "x", "value": "y"}],
        }
        found = await client.vector_stores.search(store.id, query="budget", filters=either)
        assert [hit.filename for hit in found.data] == ["2024.txt"]
        updated = await client.vector_stores.files.update(file, vector_store_id=store.id, attributes={"year": 1})
        assert updated.attributes == {"year": 1}
        assert (
            await client.vector_stores.search(store.id, query=["budget"], ranking_options={"score_threshold": 1})
        ).data == []


async def test_files_that_cannot_be_indexed_say_why() -> None:
    async with api() as client:
        given = [
            await upload(client, "photo.xyz", b"abc"),
            await upload(client, "broken.pdf", b"%PDF-1.4 nonsense"),
            await upload(client, "binary.txt", b"a\0b"),
            await upload(client, "good.txt", b"fine"),
        ]
        store = await client.vector_stores.create()
        batch = await client.vector_stores.file_batches.create_and_poll(store.id, file_ids=given)
        assert (batch.status, batch.file_counts.failed, batch.file_counts.completed) == ("completed", 3, 1)
        failed = await client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed")
        codes = {file.id: file.last_error.code for file in failed.data if file.last_error}
        assert codes == {given[0]: "unsupported_file", given[1]: "invalid_file", given[2]: "invalid_file"}
        with pytest.raises(openai.NotFoundError, match=r"Files \[file-none\] were not found"):
            await client.vector_stores.files.create(store.id, file_id="file-none")


async def test_the_text_of_a_pdf_is_found() -> None:
    async with api() as client:
        report = await upload(client, "report.pdf", pdf("Profit rose by 12 percent"))
        store = await client.vector_stores.create(file_ids=[report])
        done = await ready(client, store.id)
        assert done.file_counts.completed == 1
        [hit] = (await client.vector_stores.search(store.id, query="profit")).data
        assert "Profit rose by 12 percent" in hit.content[0].text


def pdf(text: str) -> bytes:
    """A page with a line of text, written by hand."""
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources 6 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Font << /F1 5 0 R >> >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1,
        table,
        len(objects) + 1,
        len(out),
    )
    return out + end


async def test_a_script_lets_indexing_take_time_and_fail() -> None:
    clock = Clock()
    rules = [
        {"contains": "slow", "seconds": 60},
        {"contains": "bad", "seconds": 30, "error": {"code": "server_error", "message": "Out of order."}},
    ]
    async with api(clock, store_file=rules) as client:
        slow, bad = await upload(client, "slow.txt", b"alpha"), await upload(client, "bad.txt", b"beta")
        store = await client.vector_stores.create()
        batch = await client.vector_stores.file_batches.create(store.id, file_ids=[slow, bad])
        assert (batch.status, batch.file_counts.in_progress) == ("in_progress", 2)
        await asyncio.sleep(0.2)  # the real indexing is over, the prescribed one is not
        assert (await client.vector_stores.search(store.id, query="alpha")).data == []
        clock.advance(31)
        assert (await client.vector_stores.retrieve(store.id)).file_counts.failed == 1
        clock.advance(30)
        async with asyncio.timeout(120):
            await ready(client, store.id)
        file = await client.vector_stores.files.retrieve(bad, vector_store_id=store.id)
        assert (file.status, file.last_error and file.last_error.message) == ("failed", "Out of order.")
        assert len((await client.vector_stores.search(store.id, query="alpha")).data) == 1


async def test_a_batch_is_cancelled_and_a_store_expires() -> None:
    clock = Clock()
    async with api(clock, store_file=[{"contains": "slow", "seconds": 600}]) as client:
        slow, good = await upload(client, "slow.txt", b"alpha"), await upload(client, "good.txt", b"beta")
        store = await client.vector_stores.create(
            file_ids=[good], expires_after={"anchor": "last_active_at", "days": 1}
        )
        batch = await client.vector_stores.file_batches.create(store.id, file_ids=[slow])
        cancelled = await client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
        assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 1)
        await ready(client, store.id)
        assistant: Any = await client.beta.assistants.create(
            model="m",
            tools=[{"type": "file_search"}],
            tool_resources={"file_search": {"vector_store_ids": [store.id]}},
        )
        clock.advance(86_400)
        assert (await client.vector_stores.retrieve(store.id)).status == "expired"
        with pytest.raises(openai.BadRequestError, match="expired"):
            await client.vector_stores.search(store.id, query="beta")
        run: Any = await client.beta.threads.create_and_run(
            assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": "?"}]}
        )
        run = await client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
        assert (run.status, run.last_error.code) == ("failed", "server_error")
        assert store.id in run.last_error.message
        with pytest.raises(openai.BadRequestError, match="expired"):
            await client.responses.create(
                model="m", input="?", tools=[{"type": "file_search", "vector_store_ids": [store.id]}]
            )


async def test_a_file_leaves_a_store_alone_and_with_itself() -> None:
    async with api() as client:
        one, two = await upload(client, "one.txt", b"alpha"), await upload(client, "two.txt", b"beta")
        store = await client.vector_stores.create(file_ids=[one, two])
        await ready(client, store.id)
        assert (await client.vector_stores.files.delete(one, vector_store_id=store.id)).deleted
        assert (await client.vector_stores.search(store.id, query="alpha")).data == []
        assert (await client.files.retrieve(one)).id == one
        await client.files.delete(two)
        assert (await client.vector_stores.retrieve(store.id)).file_counts.total == 0


# What is attached


async def test_resources_and_attachments_reach_the_thread() -> None:
    async with api() as client:
        beta: Any = client.beta
        table, text = await upload(client, "t.csv", b"a\n1\n"), await upload(client, "n.txt", b"note")
        assistant = await beta.assistants.create(
            model="m",
            tools=[{"type": "code_interpreter"}, {"type": "file_search"}],
            tool_resources={
                "code_interpreter": {"file_ids": [table]},
                "file_search": {"vector_stores": [{"file_ids": [text]}]},
            },
        )
        [store_id] = assistant.tool_resources.file_search.vector_store_ids
        assert (await ready(client, store_id)).file_counts.completed == 1
        attachments = [
            {"file_id": table, "tools": [{"type": "code_interpreter"}]},
            {"file_id": text, "tools": [{"type": "file_search"}]},
        ]
        thread = await beta.threads.create(messages=[{"role": "user", "content": "Look.", "attachments": attachments}])
        thread = await beta.threads.retrieve(thread.id)
        assert thread.tool_resources.code_interpreter.file_ids == [table]
        [own] = thread.tool_resources.file_search.vector_store_ids
        store = await ready(client, own)
        assert (store.expires_after.days, store.file_counts.completed) == (7, 1)
        more = await upload(client, "m.txt", b"more")
        await beta.threads.messages.create(
            thread.id, role="user", content="And?", attachments=[{"file_id": more, "tools": [{"type": "file_search"}]}]
        )
        assert (await ready(client, own)).file_counts.completed == 2
        [message, _] = (await beta.threads.messages.list(thread.id)).data
        assert message.attachments[0].file_id == more


async def test_missing_files_and_stores_are_refused() -> None:
    async with api() as client:
        beta: Any = client.beta
        missing = "file-000000000000000000000000"
        attached = {"role": "user", "content": "x", "attachments": [{"file_id": missing, "tools": []}]}
        pictured = {"role": "user", "content": [{"type": "image_file", "image_file": {"file_id": missing}}]}
        code = {"code_interpreter": {"file_ids": [missing]}}
        for refused in (
            beta.assistants.create(model="m", tool_resources=code),
            beta.threads.create(tool_resources=code),
            beta.threads.create(messages=[attached]),
            beta.threads.create(messages=[pictured]),
            client.responses.create(
                model="m",
                input="x",
                tools=[{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [missing]}}],
            ),
            client.responses.create(
                model="m", input=[{"role": "user", "content": [{"type": "input_file", "file_id": missing}]}]
            ),
            client.responses.create(
                model="m",
                input=[
                    {"role": "user", "content": [{"type": "input_image", "file_id": missing, "detail": "auto"}]},
                ],
            ),
        ):
            with pytest.raises(openai.BadRequestError, match=missing):
                await refused
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(
                model="m", input="x", tools=[{"type": "file_search", "vector_store_ids": ["vs_none"]}]
            )
        with pytest.raises(openai.BadRequestError, match="container"):
            await client.responses.create(model="m", input="x", tools=[{"type": "code_interpreter"}])  # type: ignore[list-item]
        with pytest.raises(openai.BadRequestError, match="begins with 'file'"):
            await beta.threads.create(tool_resources={"code_interpreter": {"file_ids": ["x"]}})
        assert await _objects(client) == []


async def _objects(client: AsyncOpenAI) -> list[str]:
    return [one.id async for one in client.vector_stores.list()] + [one.id async for one in client.containers.list()]


async def test_pictures_and_files_in_messages() -> None:
    async with api() as client:
        beta: Any = client.beta
        picture = await upload(client, "p.png", b"\x89PNG", "vision")
        content = [
            {"type": "text", "text": "What is it?"},
            {"type": "image_file", "image_file": {"file_id": picture}},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        ]
        thread = await beta.threads.create(messages=[{"role": "user", "content": content}])
        [message] = (await beta.threads.messages.list(thread.id)).data
        assert [part.type for part in message.content] == ["text", "image_file", "image_url"]
        assert message.content[1].image_file.detail == "auto"
        with pytest.raises(openai.BadRequestError, match="valid URL"):
            await beta.threads.create(
                messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "nope"}}]}]
            )
        data = base64.b64encode(b"a,b\n").decode()
        parts: Any = [
            {"type": "input_text", "text": "What is it?"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": "auto"},
            {"type": "input_image", "file_id": picture, "detail": "auto"},
            {"type": "input_file", "filename": "a.csv", "file_data": f"data:text/csv;base64,{data}"},
        ]
        made = await client.responses.create(model="m", input=[{"role": "user", "content": parts}])
        assert made.status == "completed"
        for wrong in (
            {"type": "input_image", "image_url": "data:image/png;base64,%%%", "detail": "auto"},
            {"type": "input_image", "image_url": "data:text/plain;base64,YQ==", "detail": "auto"},
            {"type": "input_image", "detail": "auto"},
            {"type": "input_file", "file_data": "data:text/csv;base64,YQ=="},
            {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        ):
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(model="m", input=[{"role": "user", "content": [wrong]}])  # type: ignore[list-item,misc]


async def test_code_of_a_response_works_in_the_container_that_is_named() -> None:
    script = {"default": {"duration": 0, "code": [{"input": "1", "files": ["made.txt"]}]}}
    async with api(None, **script) as client:
        given = await upload(client, "t.csv", b"a\n1\n")
        auto: Any = {"type": "code_interpreter", "container": {"type": "auto", "file_ids": [given]}}
        first = await client.responses.create(model="m", input="x", tools=[auto])
        code: Any = first.output[0]
        paths = {file.path: file.source async for file in client.containers.files.list(code.container_id)}
        assert paths == {"/mnt/data/t.csv": "user", "/mnt/data/made.txt": "assistant"}
        second: Any = await client.responses.create(model="m", input="y", tools=[auto], previous_response_id=first.id)
        assert second.output[0].container_id == code.container_id
        named = await client.containers.create(name="mine")
        third: Any = await client.responses.create(
            model="m", input="z", tools=[{"type": "code_interpreter", "container": named.id}]
        )
        assert third.output[0].container_id == named.id
        await client.containers.delete(named.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(
                model="m", input="z", tools=[{"type": "code_interpreter", "container": named.id}]
            )
