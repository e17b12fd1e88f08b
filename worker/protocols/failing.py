"""A protocol with a failpoint before and after each call: what an engine is given when failpoints are armed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from askq.assistants.model import Assistant
from askq.failpoints import hit
from askq.jobs.model import Answer
from askq.jobs.objects import Kind
from worker.protocols.base import (
    NOTHING_GIVEN,
    Ask,
    Before,
    Found,
    Given,
    Listing,
    Live,
    Protocol,
    Status,
    ToolOutput,
    Unread,
)
from worker.protocols.filing import Filing, Made, StoreSeen, Uploaded


class FailingProtocol:
    """Speaks another protocol, and may kill its process before a request is sent or when its reply is here."""

    def __init__(self, spoken: Protocol) -> None:
        self._spoken = spoken
        self.name = spoken.name
        self.lists_runs = spoken.lists_runs
        self.outputs_start_runs = spoken.outputs_start_runs
        self.resumes = spoken.resumes

    async def ensure_assistant(self, assistant: Assistant, given: Given = NOTHING_GIVEN) -> str | None:
        hit("ensure_assistant.before")
        made = await self._spoken.ensure_assistant(assistant, given)
        hit("ensure_assistant.after")
        return made

    async def prepare(self, ask: Ask, assistant_id: str | None) -> str:
        hit("prepare.before")
        made = await self._spoken.prepare(ask, assistant_id)
        hit("prepare.after")
        return made

    async def join(self, ask: Ask, before: Before) -> str:
        hit("join.before")
        mark = await self._spoken.join(ask, before)
        hit("join.after")
        return mark

    async def start(self, ask: Ask, thread_id: str, assistant_id: str | None) -> Status:
        hit("start.before")
        status = await self._spoken.start(ask, thread_id, assistant_id)
        hit("start.after")
        return status

    async def start_live(self, ask: Ask, thread_id: str, assistant_id: str | None) -> tuple[Status, Live | None]:
        hit("start_live.before")
        status, live = await self._spoken.start_live(ask, thread_id, assistant_id)
        hit("start_live.after")
        return status, live

    async def resume_live(self, thread_id: str, run_id: str, before: Live | None) -> Live | None:
        hit("resume_live.before")
        found = await self._spoken.resume_live(thread_id, run_id, before)
        hit("resume_live.after")
        return found

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

    async def unread(self, ask: Ask, thread_id: str) -> Unread | None:
        hit("index.before")
        found = await self._spoken.unread(ask, thread_id)
        hit("index.after")
        return found

    async def poll(self, thread_id: str, run_id: str) -> Status:
        hit("poll.before")
        status = await self._spoken.poll(thread_id, run_id)
        hit("poll.after")
        return status

    async def submit_tool_outputs(self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]) -> Status:
        hit("submit.before")
        status = await self._spoken.submit_tool_outputs(thread_id, run_id, outputs)
        hit("submit.after")
        return status

    async def submit_tool_outputs_live(
        self, thread_id: str, run_id: str, outputs: tuple[ToolOutput, ...]
    ) -> tuple[Status, Live | None]:
        hit("submit_live.before")
        status, live = await self._spoken.submit_tool_outputs_live(thread_id, run_id, outputs)
        hit("submit_live.after")
        return status, live

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

    async def listed(self, kind: Kind) -> list[Listing]:
        return await self._spoken.listed(kind)

    async def check(self) -> None:
        await self._spoken.check()


class FailingFiling(Filing):
    """May kill its process before a call about files is sent, or when its reply is here."""

    async def upload(self, path: Path, *, name: str, size: int, purpose: str) -> Uploaded:
        hit("upload.before")
        made = await super().upload(path, name=name, size=size, purpose=purpose)
        hit("upload.after")
        return made

    async def create_store(self, *, name: str, item: str) -> str:
        hit("store.create.before")
        made = await super().create_store(name=name, item=item)
        hit("store.create.after")
        return made

    async def fill_store(self, store_id: str, file_ids: Sequence[str]) -> None:
        hit("store.fill.before")
        await super().fill_store(store_id, file_ids)
        hit("store.fill.after")

    async def look(self, store_id: str) -> StoreSeen:
        hit("store.look.before")
        seen = await super().look(store_id)
        hit("store.look.after")
        return seen

    async def delete_store(self, store_id: str) -> bool:
        hit("store.delete.before")
        gone = await super().delete_store(store_id)
        hit("store.delete.after")
        return gone

    async def delete_file(self, file_id: str) -> bool:
        hit("file.delete.before")
        gone = await super().delete_file(file_id)
        hit("file.delete.after")
        return gone

    async def made(self, answer: Answer) -> tuple[list[Made], list[str]]:
        hit("made.before")
        found = await super().made(answer)
        hit("made.after")
        return found

    async def download(self, made: Made, write: Callable[[bytes], None], *, most: int) -> None:
        hit("download.before")
        await super().download(made, write, most=most)
        hit("download.after")
