"""Files, containers and what code makes, as the real OpenAI SDK sees them, over a real socket."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.server import running
from tests.parts import Clock

PNG = b"\x89PNG\r\n\x1a\n"


@contextlib.asynccontextmanager
async def api(clock: Clock | None = None, **script: Any) -> AsyncIterator[AsyncOpenAI]:
    default = {"duration": 0, **script}
    options = Options(engine="script", clock=clock or Clock(), file_bytes=1 << 20)
    async with (
        running(options, script=parse_script({"default": default})) as server,
        AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client,
    ):
        yield client


async def upload(client: AsyncOpenAI, name: str, content: bytes, purpose: Any = "assistants") -> str:
    made = await client.files.create(file=(name, content), purpose=purpose)
    return made.id


async def run_of(client: Any, question: str = "Why?", **fields: Any) -> Any:
    assistant = await client.beta.assistants.create(model="m", **fields)
    run = await client.beta.threads.create_and_run(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": question}]}
    )
    return await client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)


async def responded(client: AsyncOpenAI, **fields: Any) -> Any:
    include: Any = ["code_interpreter_call.outputs", "file_search_call.results"]
    made = await client.responses.create(model="m", input="Why?", background=True, **fields)
    return await client.responses.retrieve(made.id, include=include)


@pytest.mark.parametrize("name", ["titanic.csv", "타이타닉 승객.csv", "données été.csv", 'a "b" c.csv', "データ.csv"])
async def test_a_file_keeps_its_name_and_its_bytes(name: str) -> None:
    async with api() as client:
        made = await client.files.create(file=(name, b"a,b\n1,2\n"), purpose="vision")
        assert (made.filename, made.bytes, made.purpose, made.status) == (name, 8, "vision", "processed")
        assert made.object == "file"
        assert made.id.startswith("file-")
        assert (await client.files.retrieve(made.id)).filename == name
        assert (await client.files.content(made.id)).content == b"a,b\n1,2\n"
        assert [file.id for file in (await client.files.list()).data] == [made.id]
        assert (await client.files.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            await client.files.retrieve(made.id)
        assert (await client.files.list()).data == []


async def test_uploads_are_checked() -> None:
    async with api() as client:
        with pytest.raises(openai.BadRequestError, match="empty"):
            await upload(client, "a.csv", b"")
        with pytest.raises(openai.BadRequestError, match="Supported values"):
            await upload(client, "a.csv", b"x", "nonsense")
        with pytest.raises(openai.APIStatusError, match="too large") as caught:
            await upload(client, "a.csv", b"x" * (1 << 20) + b"y")
        assert caught.value.status_code == 413
        with pytest.raises(openai.BadRequestError, match="jsonl"):
            await upload(client, "a.csv", b"x", "batch")
        secret = await upload(client, "a.csv", b"x")
        with pytest.raises(openai.BadRequestError, match="Not allowed to download files of purpose: assistants"):
            await client.files.content(secret)
        assert len((await client.files.list()).data) == 1


async def test_files_are_listed_by_purpose_and_expire() -> None:
    clock = Clock()
    async with api(clock) as client:
        kept = await upload(client, "a.txt", b"a", "user_data")
        soon = await client.files.create(
            file=io.BytesIO(b"b"), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert soon.expires_at == int(clock.now) + 3600
        assert [file.id for file in (await client.files.list(purpose="user_data")).data] == [kept]
        clock.advance(3601)
        assert [file.id for file in (await client.files.list()).data] == [kept]


CODE = [
    {
        "input": "print(1)",
        "logs": "1\n",
        "images": ["chart.png"],
        "files": [{"name": "요약.csv", "text": "sex,rate\nfemale,0.74\n"}],
    }
]


async def test_a_run_shows_pictures_and_points_to_files() -> None:
    async with api(code=CODE, answer="See [it](sandbox:/mnt/data/요약.csv).") as client:
        beta: Any = client.beta
        run = await run_of(client)
        steps = (await beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")).data
        assert [step.type for step in steps] == ["tool_calls", "message_creation"]
        call = steps[0].step_details.tool_calls[0].code_interpreter
        assert call.input == "print(1)"
        assert [output.type for output in call.outputs] == ["logs", "image"]
        [message] = (await beta.threads.messages.list(run.thread_id, run_id=run.id)).data
        picture, text = message.content
        assert picture.image_file.file_id == call.outputs[1].image.file_id
        assert (await client.files.content(picture.image_file.file_id)).content.startswith(PNG)
        [annotation] = text.text.annotations
        assert annotation.type == "file_path"
        assert text.text.value[annotation.start_index : annotation.end_index] == annotation.text
        assert annotation.text == "sandbox:/mnt/data/요약.csv"
        made = await client.files.retrieve(annotation.file_path.file_id)
        assert (made.filename, made.purpose) == ("요약.csv", "assistants_output")
        assert (await client.files.content(made.id)).text == "sex,rate\nfemale,0.74\n"
        assert [attachment.file_id for attachment in message.attachments] == [made.id]


async def test_a_response_has_its_files_in_a_container() -> None:
    clock = Clock()
    async with api(clock, code=CODE, answer="See [it](sandbox:/mnt/data/요약.csv).") as client:
        response = await responded(client)
        code, message = response.output
        assert code.type == "code_interpreter_call"
        assert code.outputs[0].logs == "1\n"
        assert code.outputs[1].url.startswith("data:image/png;base64,iVBORw0KGgo")
        [annotation] = message.content[0].annotations
        assert annotation.type == "container_file_citation"
        assert (annotation.container_id, annotation.filename) == (code.container_id, "요약.csv")
        assert message.content[0].text[annotation.start_index : annotation.end_index] == "sandbox:/mnt/data/요약.csv"
        files = client.containers.files
        content = await files.content.retrieve(annotation.file_id, container_id=code.container_id)
        assert content.text == "sex,rate\nfemale,0.74\n"
        listed = (await files.list(code.container_id)).data
        assert sorted(file.path for file in listed) == ["/mnt/data/chart.png", "/mnt/data/요약.csv"]
        assert {file.source for file in listed} == {"assistant"}
        with pytest.raises(openai.NotFoundError):
            await client.files.retrieve(annotation.file_id)
        clock.advance(20 * 60 + 1)
        with pytest.raises(openai.NotFoundError, match="expired"):
            await files.content.retrieve(annotation.file_id, container_id=code.container_id)
        assert (await client.containers.retrieve(code.container_id)).status == "expired"
        bare = await client.responses.retrieve(response.id)
        assert bare.output[0].outputs is None


async def test_a_container_may_go_at_once() -> None:
    async with api(code=CODE, container_gone=0) as client:
        response = await responded(client)
        container = response.output[0].container_id
        with pytest.raises(openai.NotFoundError):
            await client.containers.files.list(container)


async def test_containers_by_hand() -> None:
    clock = Clock()
    async with api(clock) as client:
        given = await upload(client, "a.csv", b"x,y\n")
        made = await client.containers.create(
            name="mine", file_ids=[given], expires_after={"anchor": "last_active_at", "minutes": 5}
        )
        assert (made.object, made.status, made.name) == ("container", "running", "mine")
        file = await client.containers.files.create(made.id, file=("b.txt", b"hello"))
        assert (file.path, file.source, file.bytes) == ("/mnt/data/b.txt", "user", 5)
        other = await client.containers.files.create(made.id, file_id=given)
        assert other.path == "/mnt/data/a.csv"
        assert (await client.containers.files.retrieve(file.id, container_id=made.id)).id == file.id
        names = [one.path async for one in client.containers.files.list(made.id, order="asc")]
        assert names == ["/mnt/data/b.txt", "/mnt/data/a.csv"]
        await client.containers.files.delete(file.id, container_id=made.id)
        assert len((await client.containers.files.list(made.id)).data) == 1
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            await client.containers.create(name="x", file_ids=["file-none"])
        assert [one.id async for one in client.containers.list()] == [made.id]
        clock.advance(5 * 60)
        assert (await client.containers.retrieve(made.id)).status == "expired"
        await client.containers.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.containers.retrieve(made.id)


async def test_searches_and_citations() -> None:
    prescribed = {
        "search": [{"queries": ["leave"], "results": [{"file": "handbook.txt", "text": "25 days", "score": 0.9}]}],
        "citations": [{"file": "handbook.txt", "after": "25 days"}],
        "answer": "You get 25 days of leave.",
    }
    async with api(**prescribed) as client:
        run = await run_of(client)
        beta: Any = client.beta
        wanted = ["step_details.tool_calls[*].file_search.results[*].content"]
        [found, _] = (
            await beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc", include=wanted)
        ).data
        [result] = found.step_details.tool_calls[0].file_search.results
        assert (result.file_name, result.score, result.content[0].text) == ("handbook.txt", 0.9, "25 days")
        [found, _] = (await beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")).data
        assert found.step_details.tool_calls[0].file_search.results[0].content is None
        [message] = (await beta.threads.messages.list(run.thread_id, run_id=run.id)).data
        [annotation] = message.content[0].text.annotations
        value = message.content[0].text.value
        assert value == "You get 25 days【0:0†handbook.txt】 of leave."
        assert value[annotation.start_index : annotation.end_index] == annotation.text
        assert annotation.file_citation.file_id == result.file_id

        response = await responded(client)
        search, answer = response.output
        assert (search.type, search.queries, search.results[0].text) == ("file_search_call", ["leave"], "25 days")
        [citation] = answer.content[0].annotations
        assert (citation.type, citation.index, citation.filename) == ("file_citation", 15, "handbook.txt")
        assert answer.content[0].text == "You get 25 days of leave."


async def test_a_container_and_a_store_expire_on_demand() -> None:
    async with api() as client:
        container = await client.containers.create(name="c")
        store = await client.vector_stores.create()
        root = str(client.base_url).removesuffix("/v1/")
        for path in (f"/_askq/containers/{container.id}/expire", f"/_askq/vector_stores/{store.id}/expire"):
            await client.post(f"{root}{path}", cast_to=object)
        assert (await client.containers.retrieve(container.id)).status == "expired"
        assert (await client.vector_stores.retrieve(store.id)).status == "expired"
        tool: Any = {"type": "code_interpreter", "container": container.id}
        with pytest.raises(openai.BadRequestError, match="Container is expired"):
            await client.responses.create(model="m", input="x", tools=[tool])
