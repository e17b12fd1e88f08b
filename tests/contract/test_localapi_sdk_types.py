"""Every event and every object of the local API, held against the types of the OpenAI SDK.

The SDK itself does not look: it builds its models from whatever comes. Here each event is validated by the model of its
name, and nothing may be in it that the model does not know.
"""

# ruff: noqa: ASYNC110  # the state that is waited for is another's

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any, get_args

import aiohttp
import pytest
from openai import BaseModel
from openai.types import FileDeleted, FileObject, VectorStore, VectorStoreDeleted
from openai.types.beta import Assistant, AssistantStreamEvent, Thread
from openai.types.beta.threads import Message, Run
from openai.types.beta.threads.runs import RunStep
from openai.types.container_create_response import ContainerCreateResponse
from openai.types.containers import FileCreateResponse
from openai.types.conversations import Conversation, ConversationItem
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.vector_stores import VectorStoreFile, VectorStoreFileBatch
from pydantic import TypeAdapter

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.server import Server, running
from tests.contract.test_localapi_sdk_stores import HANDBOOK
from tests.contract.test_localapi_sdk_tutor import TITANIC

HEADERS = {"Authorization": "Bearer k", "OpenAI-Beta": "assistants=v2"}
ADD: Any = {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}
NOT_IN_THE_SDK = {"store", "reasoning_effort", "description"}
"""Of responses, assistants and stores: what the service itself gives, and the SDK's types leave out."""
INCLUDE = "include[]=code_interpreter_call.outputs&include[]=file_search_call.results"

TWO_CALLS = [{"name": "add", "arguments": {"a": 1}}, {"name": "add", "arguments": "{}"}]
MADE: Any = {"images": ["a.png"], "files": [{"name": "t.csv", "text": "a"}]}
HIT = {"file": "a.txt", "score": 0.5, "text": "words"}
SCRIPTS: dict[str, Any] = {
    "text": {"answer": "The answer is 42, 정말로."},
    "nothing": {"answer": ""},
    "refusal": {"refusal": True, "answer": "I would rather not say."},
    "calls": {"calls": [TWO_CALLS], "answer": "Two."},
    "code": {"code": [{"input": "print(1)", "logs": "1\n", **MADE}], "answer": "See sandbox:/mnt/data/t.csv"},
    "search": {"search": [{"queries": ["q"], "results": [HIT]}], "answer": "So it says."},
    "several messages": {"answer": ["One.", "Two."]},
    "failed": {"status": "failed", "error": {"code": "server_error", "message": "Broken."}},
    "incomplete": {"status": "incomplete", "partial": "Half an"},
}


class Stage:
    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        async with self.http.request(method, self.server.base_url + path, json=body, **options) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
            return answer

    async def upload(self, name: str, content: bytes) -> str:
        form = aiohttp.FormData({"purpose": "assistants"})
        form.add_field("file", content, filename=name)
        async with self.http.post(f"{self.server.base_url}/files", data=form) as reply:
            made: str = exact(FileObject, await reply.json()).id
            return made

    async def told(self, method: str, path: str, body: Any = None) -> list[tuple[str, Any]]:
        """The events of a stream, as they are sent."""
        async with self.http.request(method, self.server.base_url + path, json=body) as reply:
            assert reply.status == 200, await reply.text()
            blocks = (await reply.text()).strip().split("\n\n")
        found = []
        for block in filter(None, blocks):
            name, data = block.split("\n")
            said = data.removeprefix("data: ")
            found.append((name.removeprefix("event: "), said if said == "[DONE]" else json.loads(said)))
        return found


@contextlib.asynccontextmanager
async def stage(engine: str = "tutor", rule: dict[str, Any] | None = None) -> AsyncIterator[Stage]:
    script = parse_script({"default": {"duration": 0.02}, "rule": [] if rule is None else [rule]})
    async with (
        asyncio.timeout(120),
        running(Options(engine=engine), script=script if engine == "script" else None) as server,
        aiohttp.ClientSession(headers=HEADERS) as http,
    ):
        yield Stage(server, http)


def exact(kind: Any, value: Any) -> Any:
    """The value as this type of the SDK; with every field it must have, and none that it does not know."""
    made = _validator(kind).validate_python(value)
    unknown = list(_unknown(made, ""))
    assert unknown == [], unknown
    return made


@functools.cache
def _validator(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _unknown(value: Any, where: str) -> AsyncIterator[str] | Any:
    if isinstance(value, BaseModel):
        yield from (f"{where}.{name}" for name in value.model_extra or () if name not in NOT_IN_THE_SDK)
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for at, one in enumerate(value):
            yield from _unknown(one, f"{where}[{at}]")


def _by(key: str, union: Any) -> dict[str, Any]:
    kinds = get_args(get_args(union)[0])
    return {name: kind for kind in kinds for name in get_args(kind.model_fields[key].annotation)}


OF_RESPONSES = _by("type", ResponseStreamEvent)
OF_RUNS = _by("event", AssistantStreamEvent)


def checked_response(events: list[tuple[str, Any]], *, first: int = 0) -> Response:
    """The response a stream ends with. Every event is of the SDK's type and has its number; each item is opened, said
    and closed, one after the other, and the last event has them all."""
    for number, (name, data) in enumerate(events):
        assert (data["type"], data["sequence_number"]) == (name, first + number)
        exact(OF_RESPONSES[name], data)
    done: list[Any] = []
    opened = ""
    deltas: dict[str, str] = {}
    for name, data in events:
        if name == "response.output_item.added":
            assert data["output_index"] == len(done)
            assert data["item"]["status"] == "in_progress"
            opened, deltas = data["item"]["id"], {}
        elif name == "response.output_item.done":
            assert (data["output_index"], data["item"]["id"]) == (len(done), opened)
            done.append(data["item"])
            opened = ""
        elif "item_id" in data:
            assert (data["output_index"], data["item_id"]) == (len(done), opened), name
            kind = f"{name.removesuffix('.delta').removesuffix('.done')}{data.get('content_index', '')}"
            if name.endswith(".delta"):
                deltas[kind] = deltas.get(kind, "") + data["delta"]
            elif kind in deltas:
                whole = next(data[key] for key in ("text", "arguments", "code", "refusal") if key in data)
                assert deltas.pop(kind) == whole
        else:
            assert opened == "", f"{name} between the events of an item"
    assert (opened, deltas) == ("", {})
    assert [name for name, _ in events if name.startswith("response.") and name.count(".") == 1][-1] == events[-1][0]
    last = events[-1][1]["response"]
    assert last["output"] == done
    return exact(Response, last)  # type: ignore[no-any-return]


def checked_run(events: list[tuple[str, Any]]) -> Run:
    """The run a stream ends with. Every event is of the SDK's type; each step is created, told and ended, one after the
    other, and what was told piece by piece is what there is in the end."""
    assert events[-1] == ("done", "[DONE]")
    events = events[:-1]
    for name, data in events:
        exact(OF_RUNS[name], {"event": name, "data": data})
    step = message = ""
    said = ""
    for name, data in events:
        match name.removeprefix("thread."):
            case "run.step.created":
                assert step == ""
                step = data["id"]
            case "run.step.in_progress" | "run.step.delta":
                assert data["id"] == step
            case "run.step.completed" | "run.step.failed" | "run.step.expired":
                assert step in ("", data["id"]), "of this leg, or of the one before it"
                step = ""
            case "message.created":
                assert message == ""
                message, said = data["id"], ""
            case "message.in_progress":
                assert data["id"] == message
            case "message.delta":
                assert data["id"] == message
                said += "".join(part.get("text", {}).get("value", "") for part in data["delta"]["content"])
            case "message.completed" | "message.incomplete":
                assert data["id"] == message
                assert said == "".join(part["text"]["value"] for part in data["content"] if part["type"] == "text")
                message = ""
    name, last = events[-1]
    assert (message, name) == ("", f"thread.run.{last['status']}")
    assert (step != "") == (last["status"] == "requires_action"), "its step waits, too"
    return exact(Run, last)  # type: ignore[no-any-return]


@pytest.mark.parametrize("named", SCRIPTS)
async def test_every_event_of_a_response_is_of_the_sdks_type(named: str) -> None:
    async with stage("script", SCRIPTS[named]) as it:
        tools = [{"type": "function", **ADD}, {"type": "code_interpreter", "container": {"type": "auto"}}]
        asked = {"model": "m", "input": "Why?", "stream": True, "tools": tools, "metadata": {"a": "b"}}
        include = {"include": ["code_interpreter_call.outputs", "file_search_call.results"]}
        for more in ({"background": True}, {"background": True, **include}, {"background": False, **include}):
            events = await it.told("POST", "/responses", {**asked, **more})
            response = checked_response(events)
            assert events[1][0] == ("response.queued" if more["background"] else "response.in_progress")
            # Told once more, and from the middle, it is the same.
            query = f"/responses/{response.id}?stream=true&{INCLUDE if 'include' in more else ''}"
            if more["background"]:
                assert await it.told("GET", query) == events
                assert await it.told("GET", f"{query}&starting_after=3") == events[4:]
            looked_at = await it.ask("GET", f"/responses/{response.id}?{INCLUDE if 'include' in more else ''}")
            assert looked_at == events[-1][1]["response"]
        calls = [item for item in response.output if item.type == "function_call"]
        if calls:
            outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "3"} for call in calls]
            more = {"previous_response_id": response.id, "input": outputs}
            assert checked_response(await it.told("POST", "/responses", {**asked, **more})).output_text == "Two."


@pytest.mark.parametrize("named", SCRIPTS)
async def test_every_event_of_a_run_is_of_the_sdks_type(named: str) -> None:
    async with stage("script", SCRIPTS[named]) as it:
        body = {"model": "m", "tools": [{"type": "function", "function": ADD}, {"type": "code_interpreter"}]}
        assistant = exact(Assistant, await it.ask("POST", "/assistants", body))
        asked: Any = {
            "assistant_id": assistant.id,
            "stream": True,
            "thread": {"messages": [{"role": "user", "content": "Why?"}]},
        }
        events = await it.told("POST", "/threads/runs", asked)
        assert [name for name, _ in events[:4]] == [
            "thread.created",
            "thread.run.created",
            "thread.run.queued",
            "thread.run.in_progress",
        ]
        run = checked_run(events)
        path = f"/threads/{run.thread_id}/runs/{run.id}"
        if run.required_action is not None:
            calls = run.required_action.submit_tool_outputs.tool_calls
            outputs = [{"tool_call_id": call.id, "output": "3"} for call in calls]
            run = checked_run(
                await it.told("POST", f"{path}/submit_tool_outputs", {"tool_outputs": outputs, "stream": True})
            )
        await _checked_objects_of_run(it, run, path)


async def _checked_objects_of_run(it: Stage, run: Run, path: str) -> None:
    assert exact(Run, await it.ask("GET", path)) == run
    exact(Thread, await it.ask("GET", f"/threads/{run.thread_id}"))
    for message in (await it.ask("GET", f"/threads/{run.thread_id}/messages"))["data"]:
        exact(Message, message)
    query = "include[]=step_details.tool_calls[*].file_search.results[*].content"
    for step in (await it.ask("GET", f"{path}/steps?{query}"))["data"]:
        exact(RunStep, step)


async def test_the_tutors_events_and_objects_are_of_the_sdks_types() -> None:
    """Real code, a chart, a search and function calls, on both protocols, with all that they leave behind."""
    async with stage() as it:
        table, handbook = await it.upload("titanic.csv", TITANIC.encode()), await it.upload("handbook.md", HANDBOOK)
        store = exact(VectorStore, await it.ask("POST", "/vector_stores", {"name": "s"}))
        exact(VectorStoreFile, await it.ask("POST", f"/vector_stores/{store.id}/files", {"file_id": handbook}))
        batch = await it.ask("POST", f"/vector_stores/{store.id}/file_batches", {"file_ids": [handbook]})
        exact(VectorStoreFileBatch, batch)
        while exact(VectorStore, await it.ask("GET", f"/vector_stores/{store.id}")).status != "completed":
            await asyncio.sleep(0.02)
        tools: list[Any] = [{"type": "code_interpreter"}, {"type": "file_search"}]
        tools.append({"type": "function", "function": SWITCH})
        resources = {"code_interpreter": {"file_ids": [table]}, "file_search": {"vector_store_ids": [store.id]}}
        made = await it.ask("POST", "/assistants", {"model": "m", "tools": tools, "tool_resources": resources})
        assistant = exact(Assistant, made)
        container = {"type": "auto", "file_ids": [table]}
        flat = [
            {"type": "code_interpreter", "container": container},
            {"type": "file_search", "vector_store_ids": [store.id]},
            {"type": "function", **SWITCH},
        ]
        conversation = exact(Conversation, await it.ask("POST", "/conversations", {}))
        include = ["code_interpreter_call.outputs", "file_search_call.results"]
        for question in QUESTIONS:
            thread = {"messages": [{"role": "user", "content": question}]}
            asked: Any = {"assistant_id": assistant.id, "stream": True, "thread": thread}
            run = checked_run(await it.told("POST", "/threads/runs", asked))
            await _checked_objects_of_run(it, run, f"/threads/{run.thread_id}/runs/{run.id}")
            body = {"model": "m", "input": question, "stream": True, "tools": flat, "include": include}
            response = checked_response(await it.told("POST", "/responses", {**body, "conversation": conversation.id}))
            outputs = [
                {"type": "function_call_output", "call_id": item.call_id, "output": "done"}
                for item in response.output
                if item.type == "function_call"
            ]
            if outputs:
                more = {**body, "input": outputs, "conversation": conversation.id}
                assert "done" in checked_response(await it.told("POST", "/responses", more)).output_text
        items = (await it.ask("GET", f"/conversations/{conversation.id}/items?limit=100"))["data"]
        assert {exact(ConversationItem, item).type for item in items} >= {"message", "function_call"}
        for one in (await it.ask("GET", "/containers"))["data"]:
            exact(ContainerCreateResponse, one)
            for file in (await it.ask("GET", f"/containers/{one['id']}/files"))["data"]:
                exact(FileCreateResponse, file)
        exact(VectorStoreDeleted, await it.ask("DELETE", f"/vector_stores/{store.id}"))
        exact(FileDeleted, await it.ask("DELETE", f"/files/{handbook}"))


SWITCH: Any = {
    "name": "switch",
    "description": "Switch a device. When it is hot, switch on the fan.",
    "parameters": {
        "type": "object",
        "properties": {"device": {"type": "string", "enum": ["fan"]}, "action": {"type": "string", "enum": ["on"]}},
        "required": ["device", "action"],
        "additionalProperties": False,
    },
}
QUESTIONS = [
    "Solve 3x + 11 = 14",
    "Show the average fare by sex as a bar chart and save it as CSV.",
    "How many days of paid leave do employees get?",
    "It is hot.",
    "What is the meaning of life?",
]


def test_the_sdk_has_the_events_that_are_known_here() -> None:
    """So that a new release that splits or renames them is seen."""
    assert {"response.created", "response.output_text.delta", "error"} <= set(OF_RESPONSES)
    assert {"thread.created", "thread.run.step.delta", "error"} <= set(OF_RUNS)
    assert not set(itertools.chain(OF_RESPONSES)) & set(OF_RUNS) - {"error"}
