"""The tutor with files, as the real OpenAI SDK sees it: code that is really run, charts, tables, quotes."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from askq.localapi.options import Options
from askq.localapi.server import running
from tests.contract.test_localapi_sdk_files import PNG, upload
from tests.contract.test_localapi_sdk_stores import HANDBOOK, KOREAN, ready

ROWS = [
    ("female", 1, 38, 71.28),
    ("female", 1, 26, 7.92),
    ("female", 1, 35, 53.1),
    ("female", 0, 4, 16.7),
    ("male", 0, 22, 7.25),
    ("male", 0, 35, 8.05),
    ("male", 0, "", 8.46),
    ("male", 1, 54, 51.86),
    ("male", 0, 2, 21.08),
]
TITANIC = "Sex,Survived,Age,Fare\n" + "".join(f"{sex},{alive},{age},{fare}\n" for sex, alive, age, fare in ROWS)


MEANS = ["female: 37.25 (n = 4)", "male: 19.34 (n = 5)"]
AGES = ["0-9: 2", "20-29: 2", "30-39: 3", "50-59: 1", "(empty): 1"]
SURVIVORS = ["0-9: 0 of 2", "20-29: 1 of 2", "30-39: 2 of 3", "50-59: 1 of 1", "(empty): 0 of 1"]


@contextlib.asynccontextmanager
async def tutor() -> AsyncIterator[AsyncOpenAI]:
    async with (
        running(Options(engine="tutor")) as server,
        AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client,
    ):
        yield client


async def run(client: Any, thread_id: str, assistant_id: str) -> tuple[Any, list[Any]]:
    """The message of a run, and its steps."""
    made = await client.beta.threads.runs.create_and_poll(
        thread_id=thread_id, assistant_id=assistant_id, poll_interval_ms=20
    )
    assert made.status == "completed", made
    [message] = (await client.beta.threads.messages.list(thread_id, run_id=made.id)).data
    steps = (await client.beta.threads.runs.steps.list(made.id, thread_id=thread_id, order="asc")).data
    return message, steps


@pytest.mark.parametrize(
    ("question", "lines"),
    [
        ("What is the survival rate by sex?", ["female: 75.0% (n = 4)", "male: 20.0% (n = 5)"]),
        ("titanic.csv에서 성별 생존율을 구해 줘", ["female: 75.0% (n = 4)", "male: 20.0% (n = 5)"]),
        (
            "Show the average fare by sex as a bar chart and save it as CSV.",
            ["female: 37.25 (n = 4)", "male: 19.34 (n = 5)"],
        ),
        ("성별 평균 요금을 막대 그래프로 그리고 CSV로 저장해 줘", MEANS),
        (
            "Save the number of passengers per age group as CSV",
            AGES,
        ),
        ("연령대별 인원을 CSV로 저장해 줘", AGES),
        ("How many survived in each age group? Give me a CSV.", SURVIVORS),
        ("연령대별 생존자는 몇 명인가요? CSV로 저장해 줘", SURVIVORS),
        ("survival rate by age group", ["0-9: 0.0% (n = 2)", "30-39: 66.7% (n = 3)"]),
    ],
)
async def test_a_table_is_computed_on_both_protocols(question: str, lines: list[str]) -> None:
    async with tutor() as client:
        file = await upload(client, "titanic.csv", TITANIC.encode())
        beta: Any = client.beta
        assistant = await beta.assistants.create(
            model="m",
            tools=[{"type": "code_interpreter"}],
            tool_resources={"code_interpreter": {"file_ids": [file]}},
        )
        thread = await beta.threads.create(messages=[{"role": "user", "content": question}])
        message, [step, _] = await run(client, thread.id, assistant.id)
        call = step.step_details.tool_calls[0].code_interpreter
        text = message.content[-1].text
        assert "csv.DictReader" in call.input
        for line in lines:
            assert line in call.outputs[0].logs
            assert f"- {line}" in text.value
        wants_chart = "chart" in question or "그래프" in question
        assert [part.type for part in message.content] == (["image_file"] if wants_chart else []) + ["text"]
        if wants_chart:
            image = await client.files.content(message.content[0].image_file.file_id)
            assert image.content.startswith(PNG)
        if "CSV" in question:
            [made] = [one for one in text.annotations if one.text.endswith(".csv")]
            table = list(csv.reader(io.StringIO((await client.files.content(made.file_path.file_id)).text)))
            assert len(table) > 2

        response: Any = await client.responses.create(
            model="m",
            input=question,
            tools=[{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [file]}}],
            include=["code_interpreter_call.outputs"],
        )
        code, answer = response.output
        assert code.code == call.input
        assert all(line in code.outputs[0].logs for line in lines)
        for cited in answer.content[0].annotations:
            content = await client.containers.files.content.retrieve(cited.file_id, container_id=cited.container_id)
            assert len(content.content) > 20


@pytest.mark.parametrize(
    "question",
    [
        "How many did not survive by sex?",
        "성별로 생존하지 않은 사람은 몇 명인가요?",
        "How many survived by nationality?",
    ],
)
async def test_what_the_table_does_not_say_is_not_answered(question: str) -> None:
    async with tutor() as client:
        file = await upload(client, "titanic.csv", TITANIC.encode())
        response: Any = await client.responses.create(
            model="m",
            input=question,
            tools=[{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [file]}}],
        )
        assert "titanic.csv" in response.output_text
        assert [item.type for item in response.output] == ["message"]


async def test_a_later_question_goes_on_with_the_first_attachment() -> None:
    async with tutor() as client:
        file = await upload(client, "승객 명단.csv", TITANIC.encode())
        beta: Any = client.beta
        assistant = await beta.assistants.create(model="m", tools=[{"type": "code_interpreter"}])
        attachments = [{"file_id": file, "tools": [{"type": "code_interpreter"}]}]
        thread = await beta.threads.create(
            messages=[{"role": "user", "content": "What is the survival rate by sex?", "attachments": attachments}]
        )
        await run(client, thread.id, assistant.id)
        await beta.threads.messages.create(thread.id, role="user", content="Draw it as a bar chart.")
        message, _ = await run(client, thread.id, assistant.id)
        assert [part.type for part in message.content] == ["image_file", "text"]
        assert "female: 75.0%" in message.content[1].text.value
        await beta.threads.messages.create(thread.id, role="user", content="What is the meaning of life?")
        message, steps = await run(client, thread.id, assistant.id)
        assert len(steps) == 1
        assert "not a language model" in message.content[0].text.value


@pytest.mark.parametrize(
    ("question", "quote", "name"),
    [
        (
            "How many days of paid leave do employees get?",
            "Employees get 25 days of paid leave per year.",
            "handbook.md",
        ),
        ("연차 휴가는 며칠인가요?", "연차 휴가는 1년에 25일입니다.", "휴가.txt"),
    ],
)
async def test_a_store_is_quoted_with_its_citation(question: str, quote: str, name: str) -> None:
    async with tutor() as client:
        files = {n: await upload(client, n, c) for n, c in (("handbook.md", HANDBOOK), ("휴가.txt", KOREAN))}
        store = await client.vector_stores.create(file_ids=list(files.values()))
        await ready(client, store.id)
        beta: Any = client.beta
        assistant = await beta.assistants.create(
            model="m",
            tools=[{"type": "file_search"}],
            tool_resources={"file_search": {"vector_store_ids": [store.id]}},
        )
        thread = await beta.threads.create(messages=[{"role": "user", "content": question}])
        message, [step, _] = await run(client, thread.id, assistant.id)
        assert step.step_details.tool_calls[0].file_search.results[0].file_id == files[name]
        text = message.content[0].text
        assert quote in text.value
        assert text.annotations[0].file_citation.file_id == files[name]
        response: Any = await client.responses.create(
            model="m", input=question, tools=[{"type": "file_search", "vector_store_ids": [store.id]}]
        )
        search, answer = response.output
        assert (search.type, search.queries, search.results) == ("file_search_call", [question], None)
        assert quote in answer.content[0].text
        assert answer.content[0].annotations[0].filename == name
        lost: Any = await client.responses.create(
            model="m",
            input="Which planets have rings?",
            tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
        )
        assert "Nothing in the files fits" in lost.output_text
        await asyncio.sleep(0)


async def test_pictures_are_not_looked_at() -> None:
    async with tutor() as client:
        parts: Any = [
            {"type": "input_text", "text": "What is in it?"},
            {"type": "input_image", "image_url": "data:image/png;base64,eA==", "detail": "auto"},
        ]
        response = await client.responses.create(model="m", input=[{"role": "user", "content": parts}])
        assert "cannot look at pictures" in response.output_text
