"""Conversations of the local API, as the real OpenAI SDK sees them over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.localapi_sdk_stage import Stage, it

__all__ = ["it"]


async def test_a_conversation_lives_from_create_to_delete(it: Stage) -> None:
    items: Any = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    made = await it.client.conversations.create(items=items, metadata={"job": "1"})
    assert made.id.startswith("conv_")
    assert await it.client.conversations.retrieve(made.id) == made
    changed = await it.client.conversations.update(made.id, metadata={"job": "2"})
    assert changed.metadata == {"job": "2"}
    added = await it.client.conversations.items.create(made.id, items=[{"role": "user", "content": "More"}])
    assert len(added.data) == 1
    listed = [item async for item in it.client.conversations.items.list(made.id, order="asc", limit=2)]
    assert [item.content[0].text for item in listed if item.type == "message"] == ["Hello", "Hi", "More"]  # type: ignore[union-attr]
    assert (await it.client.conversations.items.list(made.id)).data[0].id == listed[-1].id
    one = await it.client.conversations.items.retrieve(str(listed[0].id), conversation_id=made.id)
    assert one == listed[0]
    left = await it.client.conversations.items.delete(str(listed[0].id), conversation_id=made.id)
    assert left.id == made.id
    with pytest.raises(openai.NotFoundError, match="not found in conversation"):
        await it.client.conversations.items.retrieve(str(listed[0].id), conversation_id=made.id)

    gone = await it.client.conversations.delete(made.id)
    assert (gone.deleted, gone.object) == (True, "conversation.deleted")
    with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{made.id}' not found"):
        await it.client.conversations.retrieve(made.id)
    assert it.server.api.store.counts()["item"] == 2, "items outlive their conversation, as at OpenAI"


async def test_at_most_twenty_items_at_once(it: Stage) -> None:
    items: Any = [{"role": "user", "content": "x"}] * 21
    with pytest.raises(openai.BadRequestError, match="maximum length 20"):
        await it.client.conversations.create(items=items)
    made = await it.client.conversations.create(items=items[:20])
    with pytest.raises(openai.BadRequestError, match="maximum length 20"):
        await it.client.conversations.items.create(made.id, items=items)
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'items'"):
        await it.client.conversations.items.create(made.id, items=[])


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "does not support references to items"),
        ({"role": "robot", "content": "x"}, "Invalid value: 'robot'"),
        ({"content": "x"}, "Missing required parameter: 'input\\[0\\].type'"),
        ({"type": "function_call_output", "output": "x"}, "Missing required parameter: 'call_id'"),
        ({"type": "function_call_output", "call_id": "c" * 65, "output": "x"}, "maximum length 64"),
        ({"type": "function_call", "call_id": "c"}, "Missing required parameter: 'name'"),
    ],
)
async def test_a_wrong_item_is_refused(it: Stage, item: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await it.respond([item])
