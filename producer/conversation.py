"""A conversation that is held with a person: a batch with one thread, whose questions are added one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Self

from askq.assistants.model import Assistant
from askq.errors import InputError
from askq.files.folder import Folder
from askq.ids import job_id
from askq.jobs.forgetting import keeps_files_of
from askq.jobs.model import Job, NewBatch, NewJob, Question
from askq.jobs.objects import assistant_thing, content_thing
from askq.jobs.store import Store
from producer.submit import files_of

THREAD = "chat"
_KIND = "askq_kind"
"""Metadata of the batch: that it is a conversation of this sort."""


class Conversation:
    """Adds questions, each after the one before. What is added is in the store: whoever comes later may go on."""

    def __init__(self, store: Store, assistant: Assistant, *, folder: Folder | None = None) -> None:
        # A question that was cancelled, or failed, must not end the conversation: a person decides that.
        self.assistant = dataclasses.replace(assistant, on_failure="skip")
        self.batch: str | None = None
        """None until something was asked."""
        self.asked = 0
        self._store = store
        self._folder = folder
        self._noted: set[str] = set()

    @classmethod
    def resume(cls, store: Store, batch: str, *, folder: Folder | None = None) -> Self:
        """Go on with one that was begun before. Raises InputError for a batch of another kind."""
        status = store.batch(batch)
        jobs = list(store.jobs(batch))
        definition = None if not jobs else store.assistant(jobs[-1].assistant_digest)
        if status is None or status.metadata.get(_KIND) != THREAD or definition is None:
            raise InputError(
                f"batch {batch} is no conversation that could go on",
                remedy="`askq chat` begins one; `askq show` and `askq results` show any batch.",
            )
        found = cls(store, Assistant.from_json(definition), folder=folder)
        found.batch, found.asked = batch, len(jobs)
        # Its last question may have been added by somebody who was killed before saying that it is all.
        store.seal(batch, found.asked)
        return found

    @property
    def jobs(self) -> Sequence[Job]:
        """Its questions, oldest first."""
        return [] if self.batch is None else list(self._store.jobs(self.batch))

    def ask(self, question: Question) -> str:
        """Add a question; the id of its job. Its place in the conversation is given here. Raises StoreError; the same
        call again adds it once."""
        if self.batch is None:
            self.batch, _ = self._store.open_batch(
                NewBatch(
                    name=None,
                    assistant=self.assistant.name,
                    protocol=self.assistant.protocol,
                    metadata={_KIND: THREAD},
                )
            )
        self._note(self.batch, question)
        new = NewJob(
            question=dataclasses.replace(
                question, row_id=_row(self.asked), index=self.asked, thread=THREAD, stream=True
            ),
            assistant=self.assistant.name,
            assistant_digest=self.assistant.digest,
            protocol=self.assistant.protocol,
            after=_row(self.asked - 1) if self.asked else None,
        )
        self._store.add(self.batch, [new])
        self._store.seal(self.batch, self.asked + 1)
        self.asked += 1
        return job_id(self.batch, new.question.row_id)

    def _note(self, batch: str, question: Question) -> None:
        """Note whom and what the conversation uses, before it does: whoever forgets it is to know."""
        if self.assistant.digest not in self._noted:
            self._store.share(assistant_thing(self.assistant.digest), batch)
            self._store.save_assistant(self.assistant.digest, self.assistant.to_json())
            self._noted.add(self.assistant.digest)
        sent = {file.sha256 for file in files_of(self.assistant)}
        sent |= {file.file.sha256 for file in question.files if file.file is not None}
        if sent - self._noted and self._folder is not None:
            keeps_files_of(self._store, self._folder, batch)
        for sha256 in sent - self._noted:
            self._store.share(content_thing(sha256), batch)
            self._noted.add(sha256)


def _row(number: int) -> str:
    return f"q{number + 1:04d}"
