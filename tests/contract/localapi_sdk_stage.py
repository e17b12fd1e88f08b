"""A local API with scripted answers on a stage: its server, the real OpenAI SDK, and a clock that is the test's."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.beta.threads import Run
from openai.types.responses import Response

from askq.localapi.engines.script_file import parse_script
from askq.localapi.options import Options
from askq.localapi.server import Server, running
from tests.parts import Clock

SECONDS = 10.0
"""Duration of every scripted run; the clock is the test's."""
BETA = {"OpenAI-Beta": "assistants=v2"}
TWO_ROUNDS = {
    "calls": [
        [{"name": "add", "arguments": {"a": 1}}, {"name": "sub", "arguments": "not json"}],
        [{"name": "mul", "arguments": {}}],
    ],
    "answer": "Six.",
}
"""The answer to a question that is asked with functions: it calls them twice."""


class Stage:
    """A server, a client of it, and the server's clock."""

    def __init__(self, server: Server, client: AsyncOpenAI, clock: Clock) -> None:
        self.server = server
        self.client = client
        self.clock = clock

    @property
    def beta(self) -> Any:
        return self.client.beta

    async def assistant(self, **fields: Any) -> str:
        made = await self.client.beta.assistants.create(model="gpt-test", **fields)
        return made.id

    async def thread(self, *questions: str) -> str:
        messages: Any = [{"role": "user", "content": question} for question in questions]
        return (await self.client.beta.threads.create(messages=messages)).id

    async def run(self, question: str = "Why?", **fields: Any) -> Run:
        thread_id = await self.thread(question)
        made: Run = await self.beta.threads.runs.create(thread_id, assistant_id=await self.assistant(), **fields)
        return made

    async def poll(self, run: Run) -> Run:
        got: Run = await self.client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
        return got

    async def after(self, run: Run, seconds: float = SECONDS) -> Run:
        self.clock.advance(seconds)
        return await self.poll(run)

    async def texts(self, run: Run) -> list[str]:
        page = await self.client.beta.threads.messages.list(run.thread_id, run_id=run.id, order="asc")
        return [part.text.value for message in page.data for part in message.content if part.type == "text"]

    async def respond(self, question: Any = "Why?", **fields: Any) -> Response:
        asked: dict[str, Any] = {"model": "gpt-test", "input": question, "background": True}
        asked.update(fields)
        made = await self.client.responses.create(**asked)
        assert isinstance(made, Response)
        return made

    async def response_after(self, response: Response, seconds: float = SECONDS, **fields: Any) -> Response:
        self.clock.advance(seconds)
        got = await self.client.responses.retrieve(response.id, **fields)
        assert isinstance(got, Response)
        return got


@contextlib.asynccontextmanager
async def stage(*rules: dict[str, Any], default: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Stage]:
    clock = Clock()
    prescribed: dict[str, Any] = {"duration": SECONDS}
    prescribed.update(default or {})
    script = parse_script({"default": prescribed, "rule": list(rules)})
    async with (
        running(Options(engine="script", clock=clock, **options), script=script) as server,
        AsyncOpenAI(api_key="any-key", base_url=server.base_url, max_retries=0) as client,
    ):
        yield Stage(server, client, clock)


@pytest.fixture
async def it() -> AsyncIterator[Stage]:
    """A server that answers whatever it is asked."""
    async with stage() as made:
        yield made


def ids(objects: Iterable[Any]) -> list[str]:
    """Their ids, in order."""
    return [thing.id for thing in objects]
