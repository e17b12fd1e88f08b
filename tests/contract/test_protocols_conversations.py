"""Several questions in one thread or conversation, against the local API: joined, remembered, and told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from askq.jobs.objects import Kind
from tests.contract.test_protocols import SECONDS, Stage, ask, name, stage
from worker.protocols.base import Ambiguous, Ask, Before, Busy, Gone, RunState, Search

__all__ = ["name"]

QUOTING = "{earlier_count} before: {earlier}; now: {question}"
LISTED = "/threads/[^/]+/messages|/conversations/[^/]+/items"


async def first(it: Stage, text: str = "Why?") -> Before:
    """A conversation with one question that has been answered."""
    it.asked = ask(job_id="b_1.r0", text=text)
    status = await it.ended()
    assert status.state is RunState.DONE
    return Before(thread_id=it.thread, run_id=status.run_id, joined="", answered=True)


async def joined(it: Stage, before: Before, job: str, text: str) -> Ask:
    """A question that has joined."""
    asked = ask(job_id=job, text=text)
    return replace(asked, joined=await it.protocol.join(asked, before))


async def found_after(it: Stage, name: str, end: str) -> str:
    """The question's run, which is found when it has ended: by its id, or by an answer that ends like this."""
    run = await it.start(it.asked)
    it.clock.now += SECONDS
    found = await it.protocol.find_started(it.asked, it.thread)
    if name == "assistants":
        assert found.run_ids == (run.run_id,)
    else:
        assert found.answer is not None
        assert str(found.answer.text).endswith(end)
    return run.run_id


async def test_a_question_that_joins_remembers_what_was_said(name: str) -> None:
    async with stage(name, answer=QUOTING) as it:
        before = await first(it)
        it.asked = await joined(it, before, "b_1.r1", "그다음은?")
        status = await it.ended(it.asked)
        assert (await it.answer(status)).text == "1 before: Why?; now: 그다음은?"
        assert await it.paid() == ["b_1.r0", "b_1.r1"]


async def test_who_joins_twice_is_there_once(name: str) -> None:
    """Whoever added the question may have died before anybody knew."""
    async with stage(name, answer=QUOTING) as it:
        before = await first(it)
        for _ in range(3):
            it.asked = await joined(it, before, "b_1.r1", "And then?")
        status = await it.ended(it.asked)
        assert (await it.answer(status)).text == "1 before: Why?; now: And then?"


async def test_nobody_joins_while_a_run_is_at_work(name: str) -> None:
    async with stage(name) as it:
        it.asked = ask(job_id="b_1.r0")
        run = await it.start()
        before = Before(thread_id=it.thread, run_id=run.run_id, joined="", answered=True)
        with pytest.raises(Busy if name == "assistants" else Ambiguous):
            await it.protocol.join(ask(job_id="b_1.r1", text="Next?"), before)


async def test_the_same_words_asked_again_are_another_question(name: str) -> None:
    async with stage(name, answer=QUOTING) as it:
        before = await first(it, "And again")
        it.asked = await joined(it, before, "b_1.r1", "And again")
        await it.protocol.ensure_assistant(it.asked.assistant)
        found = await it.protocol.find_started(it.asked, it.thread)
        assert found.search is (Search.NOT_STARTED if name == "assistants" else Search.UNKNOWN)
        await found_after(it, name, "1 before: And again; now: And again")


async def test_a_later_question_finds_its_own_run_and_so_does_an_earlier_one(name: str) -> None:
    async with stage(name, answer=QUOTING) as it:
        before = await first(it)
        for number in (1, 2, 3):
            it.asked = await joined(it, before, f"b_1.r{number}", f"turn {number}")
            run_id = await found_after(it, name, f"now: turn {number}")
            before = Before(thread_id=it.thread, run_id=run_id, joined=it.asked.joined or "", answered=True)


async def test_a_question_that_failed_is_added_again_when_others_came_after_it(name: str) -> None:
    async with stage(name, answer=QUOTING) as it:
        before = await first(it)
        failed = await joined(it, before, "b_1.r1", "failed")
        before = Before(thread_id=it.thread, run_id=before.run_id, joined=failed.joined or "", answered=False)
        later = await joined(it, before, "b_1.r2", "later")
        await it.ended(later)
        before = Before(thread_id=it.thread, run_id=before.run_id, joined=later.joined or "", answered=False)
        it.asked = await joined(it, before, "b_1.r1", "failed")
        status = await it.ended(it.asked)
        assert str((await it.answer(status)).text).endswith("now: failed")


async def test_a_conversation_that_does_not_show_the_last_turn_is_not_gone_on_with() -> None:
    async with stage("responses", answer=QUOTING) as it:
        before = await first(it)
        second = await joined(it, before, "b_1.r1", "second")
        before = replace(before, joined=second.joined or "")
        with pytest.raises(Ambiguous, match="does not show"):
            await it.protocol.join(ask(job_id="b_1.r2", text="third"), before)


async def test_a_thread_that_is_gone_is_told_as_gone(name: str) -> None:
    async with stage(name) as it:
        before = await first(it)
        assert await it.protocol.delete(Kind.CONVERSATION if name == "responses" else Kind.THREAD, it.thread)
        with pytest.raises(Gone):
            await it.protocol.join(ask(job_id="b_1.r1", text="Next?"), before)


async def test_a_list_that_is_none_is_no_proof_that_the_question_is_missing(name: str) -> None:
    async with stage(name) as it:
        before = await first(it)
        it.server.api.faults.add({"method": "GET", "path": LISTED, "times": 1, "kind": "html_200"})
        with pytest.raises(Ambiguous):
            await it.protocol.join(ask(job_id="b_1.r1", text="Next?"), before)
