"""The Python client: submit lists, wait, read answers. Reading needs neither celery nor openai."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from askq.assistants import file as assistants
from askq.assistants.model import ProtocolName
from askq.closing import Closing
from askq.errors import ConfigError, InputError, NotFound
from askq.jobs.model import BatchStatus, Job
from askq.jobs.store import Store
from config.settings import Settings, SettingsError, load
from producer.batch import Batch
from producer.parts import Parts
from producer.questions import open_items, open_list
from producer.questions.reading import QUESTION_MARKS
from producer.submit import Submission, submit


class Client(Closing):
    """Access to one store. Without a `redis_url` the settings decide, and without any the folder's embedded Redis.

    A worker must run somewhere for questions to be answered: `askq up`, `askq worker`, or the compose file.
    """

    def __init__(
        self, redis_url: str | None = None, *, settings: Settings | None = None, store: Store | None = None
    ) -> None:
        try:
            given = settings or load()
        except SettingsError as error:
            raise ConfigError(str(error)) from error
        self._settings = given if redis_url is None else dataclasses.replace(given, redis_url=redis_url)
        self._parts = Parts(self._settings)
        self._store = store or self._parts.store()
        self._nudge = store is None

    def submit(
        self,
        questions: str | Path | Iterable[str | Mapping[str, object]],
        *,
        assistant: str | None = None,
        protocol: ProtocolName | None = None,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Store a list (a file's path, or questions as texts or mappings) and return at once.

        The same idempotency key adds what is missing of the list and nothing else. Raises InputError, AssistantError
        and StoreError; nothing is queued then.
        """
        settings = self._settings
        if isinstance(questions, str) and _reads_like_a_question(questions):
            raise InputError(
                f"a text is the path of a list, and there is no file {questions!r}",
                remedy="To ask a single question, write it as a list of one: submit([question]).",
            )
        if not settings.allow_unsafe_redis:
            self._store.health().require_safe()
        opened = (
            open_list(questions, max_rows=settings.max_rows, max_question_bytes=settings.max_question_bytes)
            if isinstance(questions, str | Path)
            else open_items(questions, max_rows=settings.max_rows, max_question_bytes=settings.max_question_bytes)
        )
        with opened:
            tools_of = self._parts.tools_of(assistant, protocol)
            summary = opened.attach(folder=self._parts.files(), tools_of=tools_of).check()
            submission = Submission(
                questions=opened,
                summary=summary,
                assistant=self._parts.assistant(assistant, protocol),
                others=self._parts.named_assistants(summary.assistants, protocol, file=opened.name),
                name=name,
                metadata=metadata,
                idempotency_key=idempotency_key,
            )
            submitted = submit(self._store, submission, folder=self._parts.files(), begun=self._wake_workers)
        return Batch(self._store, submitted.batch)

    def _wake_workers(self) -> None:
        if self._nudge:
            self._parts.nudge()

    def batch(self, id: str) -> Batch:  # noqa: A002  what everybody calls it
        """The batch of this id. Raises NotFound."""
        return Batch(self._store, id)

    def batches(self, *, limit: int = 20) -> list[BatchStatus]:
        """The newest batches, newest first."""
        return self._store.batches(limit=limit)

    def job(self, id: str) -> Job:  # noqa: A002
        """The job of this id. Raises NotFound."""
        job = self._store.job(id)
        if job is None:
            raise NotFound(f"there is no job {id}", remedy="A job's id is `<batch>.<row id>`.")
        return job

    def assistants(self) -> list[str]:
        """Names of the assistants that can be asked."""
        return assistants.names(self._settings.assistants_dir)

    def close(self) -> None:
        """Close the connections and leave the embedded parts."""
        self._store.close()
        self._parts.close()


def _reads_like_a_question(text: str) -> bool:
    return (" " in text or text.endswith(QUESTION_MARKS)) and not Path(text).suffix and not Path(text).exists()
