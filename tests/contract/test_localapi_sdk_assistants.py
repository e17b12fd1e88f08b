"""Assistants of the local API, as the real OpenAI SDK sees them over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.localapi_sdk_stage import BETA, Stage, ids, it

__all__ = ["it"]


async def test_an_assistant_lives_from_create_to_delete(it: Stage) -> None:
    made = await it.beta.assistants.create(
        model="gpt-test",
        name="Math Tutor",
        description="Teaches.",
        instructions="Be kind.",
        tools=[{"type": "code_interpreter"}],
        metadata={"a": "1"},
        temperature=0.5,
    )
    assert made.id.startswith("asst_")
    assert (made.name, made.model, made.instructions, made.temperature) == (
        "Math Tutor",
        "gpt-test",
        "Be kind.",
        0.5,
    )
    assert made.tools[0].type == "code_interpreter"
    assert made.created_at == int(it.clock.now)

    changed = await it.beta.assistants.update(made.id, name="Algebra Tutor", metadata={"b": "2"})
    assert (changed.name, changed.metadata, changed.instructions) == ("Algebra Tutor", {"b": "2"}, "Be kind.")
    assert await it.beta.assistants.retrieve(made.id) == changed

    gone = await it.beta.assistants.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "assistant.deleted")
    with pytest.raises(openai.NotFoundError, match=f"No assistant found with id '{made.id}'"):
        await it.beta.assistants.retrieve(made.id)


async def test_assistants_are_listed_in_pages_newest_first(it: Stage) -> None:
    made = [await it.assistant() for _ in range(5)]
    first = await it.beta.assistants.list(limit=2)
    assert ids(first.data) == [made[4], made[3]]
    assert first.has_more
    assert [each.id async for each in it.beta.assistants.list(limit=2)] == made[::-1]
    assert [each.id async for each in it.beta.assistants.list(limit=2, order="asc")] == made
    assert ids((await it.beta.assistants.list(before=made[2], limit=1)).data) == [made[3]]


async def test_a_list_refuses_wrong_paging(it: Stage) -> None:
    for limit in (0, 101):
        with pytest.raises(openai.BadRequestError, match="from 1 to 100"):
            await it.beta.assistants.list(limit=limit)
    with pytest.raises(openai.BadRequestError, match="'asc' and 'desc'"):
        await it.beta.assistants.list(order="sideways")
    with pytest.raises(openai.NotFoundError, match="No item found with id 'asst_none'"):
        await it.beta.assistants.list(after="asst_none")


async def test_an_assistant_needs_a_model_and_keeps_to_the_limits(it: Stage) -> None:
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'model'") as refused:
        await it.client.post("/assistants", body={}, cast_to=object, options={"headers": BETA})
    assert (refused.value.code, refused.value.param) == ("missing_required_parameter", "model")
    for fields, words in (
        ({"name": "n" * 257}, "maximum length 256"),
        ({"description": "d" * 513}, "maximum length 512"),
        ({"instructions": "i" * 256_001}, "maximum length 256000"),
        ({"tools": [{"type": "code_interpreter"}] * 129}, "array too long"),
        ({"temperature": 2.5}, "decimal above maximum value"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            await it.assistant(**fields)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({f"key {n}": "v" for n in range(17)}, "at most 16 properties, but got an object with 17"),
        ({"k" * 65: "v"}, "maximum length 64"),
        ({"k": "v" * 513}, "maximum length 512"),
        ({"k": 1}, "Invalid type for 'metadata.k': expected a string, but got an integer"),
    ],
)
async def test_metadata_has_limits(it: Stage, metadata: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await it.beta.threads.create(metadata=metadata)
    with pytest.raises(openai.BadRequestError, match=words):
        await it.client.conversations.create(metadata=metadata)


async def test_metadata_at_the_limits_is_kept(it: Stage) -> None:
    metadata = {f"{n:>064}": "v" * 512 for n in range(16)}
    assert (await it.beta.threads.create(metadata=metadata)).metadata == metadata
