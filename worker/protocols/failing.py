"""A protocol with a failpoint before and after each call: what an engine is given when failpoints are armed."""

from __future__ import annotations

from askq.assistants.model import Assistant
from askq.failpoints import hit
from askq.jobs.model import Answer
from askq.jobs.objects import Kind
from worker.protocols.base import Ask, Found, Made, Protocol, Status


class FailingProtocol:
    """Speaks another protocol, and may kill its process before a request is sent or when its reply is here."""

    def __init__(self, spoken: Protocol) -> None:
        self._spoken = spoken
        self.name = spoken.name
        self.lists_runs = spoken.lists_runs

    async def ensure_assistant(self, assistant: Assistant) -> str | None:
        hit("ensure_assistant.before")
        made = await self._spoken.ensure_assistant(assistant)
        hit("ensure_assistant.after")
        return made

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        hit("prepare.before")
        made = await self._spoken.prepare(ask, assistant_id)
        hit("prepare.after")
        return made

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        hit("start.before")
        status = await self._spoken.start(ask, thread_id, assistant_id)
        hit("start.after")
        return status

    async def find_started(self, ask: Ask, thread_id: str) -> Found:
        hit("find.before")
        found = await self._spoken.find_started(ask, thread_id)
        hit("find.after")
        return found

    async def repeats_safely(self) -> bool:
        hit("probe.before")
        found = await self._spoken.repeats_safely()
        hit("probe.after")
        return found

    async def poll(self, thread_id: str, run_id: str) -> Status:
        hit("poll.before")
        status = await self._spoken.poll(thread_id, run_id)
        hit("poll.after")
        return status

    async def answer(self, thread_id: str, run_id: str, assistant: Assistant) -> Answer:
        hit("answer.before")
        found = await self._spoken.answer(thread_id, run_id, assistant)
        hit("answer.after")
        return found

    async def cancel(self, thread_id: str, run_id: str) -> None:
        hit("cancel.before")
        await self._spoken.cancel(thread_id, run_id)
        hit("cancel.after")

    async def delete(self, kind: Kind, id_: str) -> bool:
        hit("delete.before")
        found = await self._spoken.delete(kind, id_)
        hit("delete.after")
        return found

    async def made(self, kind: Kind) -> list[Made]:
        return await self._spoken.made(kind)

    async def check(self) -> None:
        await self._spoken.check()
