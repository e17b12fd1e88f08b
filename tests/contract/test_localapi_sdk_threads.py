"""Threads and messages of the local API, as the real OpenAI SDK sees them over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.localapi_sdk_stage import BETA, Stage, it

__all__ = ["it"]


async def test_a_thread_lives_from_create_to_delete(it: Stage) -> None:
    made = await it.beta.threads.create(metadata={"job": "1"}, tool_resources={"code_interpreter": {"file_ids": []}})
    assert made.id.startswith("thread_")
    assert await it.beta.threads.retrieve(made.id) == made
    changed = await it.beta.threads.update(made.id, metadata={"job": "2"})
    assert changed.metadata == {"job": "2"}
    assert changed.tool_resources == made.tool_resources
    gone = await it.beta.threads.delete(made.id)
    assert (gone.deleted, gone.object) == (True, "thread.deleted")
    with pytest.raises(openai.NotFoundError, match=f"No thread found with id '{made.id}'"):
        await it.beta.threads.retrieve(made.id)


async def test_deleting_a_thread_deletes_its_messages_and_runs(it: Stage) -> None:
    run = await it.run()
    await it.beta.threads.delete(run.thread_id)
    with pytest.raises(openai.NotFoundError):
        await it.poll(run)
    counts = {**it.server.api.store.counts(), **it.server.api.works.counts()}
    assert (counts["thread"], counts["message"], counts["run"]) == (0, 0, 0)


async def test_threads_conversations_and_responses_cannot_be_listed(it: Stage) -> None:
    for path, headers in (("/threads", BETA), ("/responses", {}), ("/conversations", {})):
        with pytest.raises(openai.APIStatusError) as refused:
            await it.client.get(path, cast_to=object, options={"headers": headers})
        assert refused.value.status_code in (404, 405)
        assert refused.value.type == "invalid_request_error"


async def test_messages_live_from_create_to_delete(it: Stage) -> None:
    thread_id = await it.thread("first")
    second = await it.beta.threads.messages.create(
        thread_id,
        role="user",
        content=[
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}},
        ],
        metadata={"a": "b"},
    )
    assert second.id.startswith("msg_")
    assert (second.role, second.status, second.run_id) == ("user", "completed", None)
    assert [part.type for part in second.content] == ["text", "image_url"]
    assert await it.beta.threads.messages.retrieve(second.id, thread_id=thread_id) == second
    changed = await it.beta.threads.messages.update(second.id, thread_id=thread_id, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}

    newest_first = await it.beta.threads.messages.list(thread_id)
    assert newest_first.data[0].id == second.id
    oldest_first = await it.beta.threads.messages.list(thread_id, order="asc")
    assert oldest_first.data[0].content[0].text.value == "first"

    gone = await it.beta.threads.messages.delete(second.id, thread_id=thread_id)
    assert (gone.deleted, gone.object) == (True, "thread.message.deleted")
    with pytest.raises(openai.NotFoundError, match=f"No message found with id '{second.id}'"):
        await it.beta.threads.messages.retrieve(second.id, thread_id=thread_id)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": ""}, "empty string"),
        ({"role": "user", "content": []}, "empty array"),
        ({"role": "user", "content": "x" * 256_001}, "maximum length 256000"),
        ({"role": "robot", "content": "x"}, "Supported values are: 'user', 'assistant'"),
        ({"role": "user", "content": [{"type": "smell"}]}, "Invalid value: 'smell'"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "with the field it names"),
        ({"role": "user"}, "Missing required parameter: 'content'"),
        ({"role": "user", "content": "x", "colour": "red"}, "Unknown parameter: 'colour'"),
    ],
)
async def test_a_wrong_message_is_refused_and_no_thread_is_left(it: Stage, message: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        await it.beta.threads.create(messages=[message])
    assert it.server.api.store.counts()["thread"] == 0
