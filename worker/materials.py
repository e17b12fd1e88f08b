"""The files of a question, from its record to its request: put off until they are ready, and made anew when gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from askq.assistants.model import Assistant
from askq.files.model import Attachment
from askq.ids import split_job_id
from askq.jobs import codec
from askq.jobs.model import Claim
from askq.jobs.objects import Kind, RemoteObject
from askq.jobs.store import Store
from worker import steps
from worker.library import Library, NotReady, Unavailable
from worker.needs import needs
from worker.protocols.base import NOTHING_GIVEN, Ask, CallError, Given, Gone, Limited, Protocol, Refused


class Materials:
    """What the engine asks of the library, and what follows for a job."""

    def __init__(self, store: Store, account: str, library: Library) -> None:
        self._store = store
        self._account = account
        self._library = library
        self._noted: set[tuple[str, str]] = set()

    async def given(
        self, claim: Claim, assistant: Assistant, *, earlier: Sequence[Attachment] = ()
    ) -> Given | steps.Decision:
        """The ids of all that a question may read, or what becomes of it while they are not there."""
        question = claim.question
        assert question is not None, "the start lane claims jobs with their questions"
        needed = needs(
            assistant,
            question.files,
            protocol=claim.protocol,
            earlier=earlier if claim.protocol == "responses" else (),
            in_conversation=question.thread is not None,
        )
        if needed is None:
            return NOTHING_GIVEN
        batch, _ = split_job_id(claim.id)
        go_on = assistant.on_failed_file == "continue"
        found = await self._library.give(needed, user=batch, go_on=go_on, job=claim.id)
        match found:
            case NotReady(note=note):
                return steps.waits_for_files(claim, note, _jitter())
            case Unavailable(code=code, message=message):
                return steps.without_files(claim, code, message)
        return found

    def held(self, claim: Claim, earlier: Sequence[Attachment] = ()) -> str | None:
        """The files of a conversation up to this question, as its record keeps them; None where the service remembers
        them, or there are none."""
        question = claim.question
        if question is None or question.thread is None or claim.protocol != "responses":
            return None
        own = [file for file in question.files if not file.is_image]
        return codec.dump_held(list(dict.fromkeys([*earlier, *own])))

    async def unread(
        self, claim: Claim, assistant: Assistant, ask: Ask, thread: str, protocol: Protocol
    ) -> steps.Decision | None:
        """What becomes of a question while the service reads the files of its message; None to go on. Raises
        CallError."""
        found = await protocol.unread(ask, thread)
        if found is None:
            return None
        stores = [id_ for id_ in found.stores if id_ not in ask.given.thread_stores]
        if new := [id_ for id_ in stores if (claim.id, id_) not in self._noted]:
            made = [RemoteObject(kind=Kind.VECTOR_STORE, id=id_, account=self._account) for id_ in new]
            await asyncio.to_thread(self._store.remember, claim.id, made)
            self._noted |= {(claim.id, id_) for id_ in new}
        decision = steps.unread(claim, found, assistant, self._names(claim, ask.given), _jitter())
        if decision is None:
            self._noted -= {(claim.id, id_) for id_ in stores}
        return decision

    @staticmethod
    def _names(claim: Claim, given: Given) -> dict[str, str]:
        """What the files of a message are called, by id."""
        assert claim.question is not None, "the start lane claims jobs with their questions"
        files = [one.file.name for one in claim.question.files if one.tool == "file_search" and one.file is not None]
        return dict(zip(given.row_search, files, strict=False))

    async def of_refusal(self, ask: Ask, error: CallError) -> CallError:
        """The error, or one that says "later" where it was refused for a file or store that is gone from the service:
        that is made anew. Raises CallError."""
        if not isinstance(error, (Refused, Gone)):
            return error
        named = ask.given.names(error.message)
        if named and await self._library.missing(named):
            return Limited("file_gone", f"a file is uploaded anew: {error.message}", retry_after=1.0)
        return error


def _jitter() -> float:
    return random.uniform(-1.0, 1.0)  # noqa: S311  nothing is secret about a jitter
