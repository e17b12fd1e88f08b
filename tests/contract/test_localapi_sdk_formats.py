"""Structured output as the real OpenAI SDK sees it, on both protocols."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from askq.localapi.options import Options
from askq.localapi.server import running
from tests.contract.localapi_sdk_stage import stage

SCHEMA: dict[str, Any] = {
    "name": "solution",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"x": {"type": "number"}, "explanation": {"type": "string"}},
        "required": ["x", "explanation"],
        "additionalProperties": False,
    },
}


async def test_formats_are_echoed_and_a_table_is_answered_as_json() -> None:
    async with stage({"answer": {"x": 1, "explanation": "{question}"}}) as it:
        text: Any = {"format": {"type": "json_schema", **SCHEMA}}
        response = await it.response_after(await it.respond("Why?", text=text))
        assert response.text is not None
        assert response.text.format is not None
        assert response.text.format.to_dict() == text["format"]
        assert json.loads(response.output_text) == {"x": 1, "explanation": "Why?"}
        form: Any = {"type": "json_schema", "json_schema": SCHEMA}
        run = await it.after(await it.run(response_format=form))
        assert run.response_format.to_dict() == form  # type: ignore[union-attr]
        assert json.loads((await it.texts(run))[0])["x"] == 1
        inherited = await it.beta.assistants.create(model="m", response_format={"type": "json_object"})
        thread = await it.thread("x")
        run = await it.beta.threads.runs.create(thread, assistant_id=inherited.id)
        assert run.response_format.type == "json_object"


async def test_a_refusal_is_a_part_of_its_own() -> None:
    async with stage({"refusal": True, "answer": "No."}) as it:
        response = await it.response_after(await it.respond())
        part = response.output[0].content[0]  # type: ignore[union-attr]
        assert (part.type, part.refusal, response.output_text) == ("refusal", "No.", "")  # type: ignore[union-attr]
        run = await it.after(await it.run())
        [message] = (await it.beta.threads.messages.list(run.thread_id, run_id=run.id)).data
        assert (message.content[0].type, message.content[0].refusal) == ("refusal", "No.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": None}, r"Missing required parameter: '.*\.name'"),
        ({"name": "not a name"}, "does not match pattern"),
        ({"schema": {"type": "objects"}}, "Invalid schema for response_format 'solution'"),
        ({"schema": {"type": "array"}}, "schema must be a JSON Schema of 'type: \"object\"'"),
        ({"schema": {"type": "object", "properties": {}}}, "'additionalProperties' is required to be supplied"),
    ],
)
async def test_a_wrong_form_is_refused_alike_on_both_protocols(changes: Any, words: str) -> None:
    async with stage() as it:
        wrong = {**SCHEMA, **changes}
        nested: Any = {"type": "json_schema", "json_schema": wrong}
        with pytest.raises(openai.BadRequestError, match=words):
            await it.respond(text={"format": {"type": "json_schema", **wrong}})
        with pytest.raises(openai.BadRequestError, match=words):
            await it.run(response_format=nested)
        with pytest.raises(openai.BadRequestError, match=words):
            await it.assistant(response_format=nested)
        assert await it.server.api.storage.ledger(0, 10) == []


async def test_an_unknown_form_is_refused() -> None:
    async with stage() as it:
        with pytest.raises(openai.BadRequestError, match="Invalid value: 'yaml'"):
            await it.respond(text={"format": {"type": "yaml"}})
        with pytest.raises(openai.BadRequestError, match=r"Unknown parameter: 'text\.shape'"):
            await it.respond(text={"shape": "round"})
        with pytest.raises(openai.BadRequestError, match="expected an object, but got a string"):
            await it.run(response_format="json")


class Solution(BaseModel):
    x: float
    explanation: str


class Poem(BaseModel):
    verses: list[int]
    poet: str


async def test_the_tutor_answers_in_the_form_that_was_asked_for_or_refuses() -> None:
    async with (
        asyncio.timeout(120),
        running(Options(engine="tutor")) as server,
        AsyncOpenAI(api_key="any", base_url=server.base_url, max_retries=0) as client,
    ):
        question = "Solve 3x + 11 = 14"
        solved = await client.responses.parse(model="m", input=question, text_format=Solution)
        assert solved.output_parsed is not None
        assert solved.output_parsed.x == 1
        assert "x = 1" in solved.output_parsed.explanation
        async with client.responses.stream(model="m", input=question, text_format=Solution) as stream:
            final = await stream.get_final_response()
        assert final.output_parsed == solved.output_parsed
        refused = await client.responses.parse(model="m", input=question, text_format=Poem)
        assert refused.output_parsed is None
        part = refused.output[-1].content[0]  # type: ignore[union-attr]
        assert part.type == "refusal"
        assert "nothing that I computed fits 'poet'" in part.refusal
