"""A server that is nearly full takes no new list, tells so before anything is written, and goes on with what it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from askq.assistants.model import Assistant
from askq.errors import StoreFull
from askq.jobs.health import Health
from askq.jobs.model import State
from producer.questions import open_items
from producer.submit import Submission, Submitted, submit
from tests.contract.store_stage import RedisStage, answer_all, status_of

ASSISTANT = Assistant(name="t", protocol="responses", model="gpt-test")


def asked(stage: RedisStage, rows: int, *, total: int | None = None) -> Submitted:
    """The same command each time; the first `rows` of a list."""
    with open_items([f"Question {row}" for row in range(total or rows)]) as questions:
        wanted = Submission(
            questions=questions,
            summary=questions.check(),
            assistant=ASSISTANT,
            others={},
            idempotency_key="key",
            limit=rows,
        )
        return submit(stage.store, wanted)


@pytest.fixture
def full(alone: RedisStage) -> Iterator[RedisStage]:
    """A server that may use a tenth more memory than it does, with a list of three that was submitted before."""
    asked(alone, 3)
    # So much that what connections take and give back meanwhile is nothing beside it.
    alone.raw.setrange("ballast", 8 << 20, b"x")
    used = alone.raw.info("memory")["used_memory"]
    alone.raw.config_set("maxmemory", used + used // 10)
    yield alone
    alone.raw.config_set("maxmemory", 0)
    alone.raw.delete("ballast")


def test_a_server_that_is_nearly_full_takes_nothing_new_and_goes_on_with_what_it_has(full: RedisStage) -> None:
    store = full.store
    (before,) = store.batches()
    with open_items(["Another question"]) as questions:
        other = Submission(questions=questions, summary=questions.check(), assistant=ASSISTANT, others={})
        with pytest.raises(StoreFull, match="too full for new questions") as refused:
            submit(store, other)
        assert refused.value.exit_code == 1
        assert "Nothing was queued" in str(refused.value)
        assert store.batches() == [before], "nothing is half done"
        # The command that goes on with a list that is there adds nothing, and is not refused.
        assert asked(full, 3).already == 3
        with pytest.raises(StoreFull):
            asked(full, 5, total=5)
        assert status_of(store, before.id).total == 3
        answer_all(store, before.id)
        assert status_of(store, before.id).counts[State.COMPLETED] == 3
        full.raw.config_set("maxmemory", 0)
        assert submit(store, other).added == 1


def test_each_of_several_servers_must_have_room() -> None:
    roomy = Health(version="7", append_only=True, eviction="noeviction", used_memory=10, max_memory=100, name="a:1")
    tight = dataclasses.replace(roomy, used_memory=81, name="b:2")
    dataclasses.replace(roomy, servers=(roomy, dataclasses.replace(tight, replica=True))).require_room()
    dataclasses.replace(tight, max_memory=0).require_room()
    dataclasses.replace(roomy, used_memory=80).require_room()
    with pytest.raises(StoreFull, match="b:2 is too full"):
        dataclasses.replace(roomy, servers=(roomy, tight)).require_room()
