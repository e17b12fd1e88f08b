"""Death at every place: a process that submits, creates, polls, fetches, cancels, runs functions, deletes or forgets is
killed (SIGKILL) at each failpoint it comes to, in turn, and another goes on from Redis alone. Then every question has
ended as it should, with as many paid runs as it needs, and nothing is left.

Which places there are is not written down: each story is lived through once, and tells.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from askq.jobs.redis_store import RedisStore
from tests.acceptance import mortal
from tests.acceptance.deaths import MONEY, NOT_HERE, PLACES, SCRIPT, STORIES
from tests.acceptance.mortal import Order, Story
from tests.acceptance.processes import stopped
from tests.acceptance.stack import Stack, running_stack
from tests.chaos.checker import left_behind
from tests.parts import eventually

WANTED = os.environ.get("DEATHS")
"""`all`, or names of stories: every place they come to. Without it, those where money is at stake, in a few stories."""
PART, PARTS = (int(number) for number in os.environ.get("DEATHS_PART", "1/1").split("/"))
"""Which part of so many of those cases, for machines on which nothing may take long."""
_ORDINARY = ("answer-", "lost-assistants", "lost-responses", "unsent-")
_ALSO = ("doubt", "withdrawn", "zombie")
"""Told for two places each, which no other story comes to, and where money is at stake, too."""
_AT_ONCE = 6
_LONGEST_S = 150.0


class Houses:
    """Redis with a database for each of several lives at once, and processes that are forked quickly.

    Keys would hide that a run is not looked for, so the local API honours them only where there is no other way: on
    Responses, and there is one on which nothing can tell.
    """

    def __init__(self, stacks: Mapping[str, Stack]) -> None:
        self._stacks = stacks
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.acceptance.mortal"])
        self._free: queue.Queue[int] = queue.Queue()
        for number in range(1, 16):
            self._free.put(number)

    def told(self, story: Story, folder: Path) -> list[str]:
        """The places a story comes to."""
        notes = folder / "notes"
        problems, _ = self._try(story, folder, None, notes=notes)
        assert not problems, f"{story.name}, nobody died: {problems}"
        return notes.read_text("utf-8").splitlines()

    def problems(self, story: Story, folder: Path, dies_at: str) -> tuple[list[str], bool]:
        """What is wrong after somebody died there and another went on; whether anybody died there at all."""
        return self._try(story, folder, dies_at)

    def _try(
        self, story: Story, folder: Path, dies_at: str | None, notes: Path | None = None
    ) -> tuple[list[str], bool]:
        folder.mkdir()
        story = replace(story, assistant=replace(story.assistant, model=folder.name))
        stack = self._stacks[_house_of(story)]
        database = self._free.get()
        url = stack.redis_url.removesuffix("/0") + f"/{database}"
        store = RedisStore(url)
        try:
            common = Order(story=story, redis_url=url, base_url=stack.base_url, folder=folder)

            def begun(order: Order) -> BaseProcess:
                process = self._context.Process(target=mortal.live, args=(order,))
                process.start()
                return process

            def live(point: str | None, notes: Path | None = None) -> int | None:
                return _ended(begun(replace(common, dies_at=point, notes=notes)))

            def live_as_a_zombie(point: str | None) -> int | None:
                zombie = begun(replace(common, dies_at=point, stops_at=story.stopped))
                _until(lambda: _is_stopped(zombie), f"somebody stops at {story.stopped}")
                batch = (folder / "batch").read_text("utf-8")
                fences = [job.fence for job in store.jobs(batch)]
                another = begun(common)
                try:
                    _until(lambda: [job.fence for job in store.jobs(batch)] != fences, "another takes over")
                finally:
                    os.kill(zombie.pid or 0, signal.SIGCONT)
                    code, others = _ended(zombie), _ended(another)
                return code if others == 0 else others

            died = False
            for point in (*story.deaths, *([dies_at] if dies_at else ())):
                code = live(point) if story.stopped is None else live_as_a_zombie(point)
                died = code == -signal.SIGKILL
                if code not in (0, -signal.SIGKILL):
                    return [f"the life that was to end at {point} ended with {code}: {_log(folder)}"], died
                if point != dies_at and not died:
                    return [f"nobody came to {point}"], died
            code = live(None, notes)
            if code != 0:
                return [f"the last life ended with {code}: {_log(folder)}"], died
            return self._wrong(store, story, folder), died
        finally:
            with store._redis as client:
                client.flushdb()
            store.close()
            self._free.put(database)

    def _wrong(self, store: RedisStore, story: Story, folder: Path) -> list[str]:
        batch = (folder / "batch").read_text("utf-8")
        # Of runs that were deleted the ledger keeps little: the model's name tells the story.
        stack = self._stacks[_house_of(story)]
        paid = [entry for entry in stack.ledger() if entry["model"] == folder.name]
        found = [] if len(paid) == story.runs * len(story.rows) else [f"paid for {len(paid)} runs"]
        jobs = list(store.jobs(batch))
        if story.forgets:
            found += [f"left in the folder: {path}" for path in (folder / "files").rglob("*/*") if path.is_file()]
            found += [f"uploaded still: {name}" for name in _uploads(stack) if name.startswith(f"{folder.name} ")]
            return found + [f"remembered: {job}" for job in jobs]
        found += [
            f"not {story.ends}: {job.state} {job.error_code} {job.error_message} {job.note}"
            for job in jobs
            if job.state is not story.ends
        ]
        found += [f"counts {job.runs} runs" for job in jobs if job.runs != story.runs]
        found += [f"not for {story.code}: {job.error_code}" for job in jobs if story.code not in (None, job.error_code)]
        if len(jobs) != len(story.rows):
            found.append(f"{len(jobs)} jobs")
        diary = folder / "diary"
        begun = diary.read_text("utf-8").splitlines() if diary.exists() else []
        # Run again only by whoever takes over from one who died with it in hand.
        once = any(how.get("once") for how in (story.assistant.functions or {}).values())
        if len(begun) > (1 if once else 2) + story.crashes:
            found.append(f"functions were begun {len(begun)} times")
        return found + [f"left behind: {name}" for name in left_behind(store._redis, 30.0)]


def _house_of(story: Story) -> str:
    return "keyless" if story.keyless else story.assistant.protocol


def _ended(process: BaseProcess) -> int | None:
    """How a life has ended; None when it had to be ended."""
    process.join(_LONGEST_S)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _is_stopped(process: BaseProcess) -> bool:
    assert process.is_alive(), "it was to be stopped, and has ended"
    return stopped(process.pid or 0)


def _until(seen: Callable[[], bool], what: str) -> None:
    eventually(seen, seconds=_LONGEST_S, what=what, every=0.02)


def _uploads(stack: Stack) -> list[str]:
    """The names of all files the service has."""
    url = f"{stack.base_url}/files?purpose=assistants&limit=1000"
    request = urllib.request.Request(url, headers={"Authorization": "Bearer sk-test-mortal-0123456789"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return [file["filename"] for file in json.load(reply)["data"]]


def _log(folder: Path) -> str:
    log = folder / "died.log"
    return log.read_text("utf-8")[-3000:] if log.exists() else "it said nothing"


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[Houses]:
    with ExitStack() as parts:
        stacks: dict[str, Stack] = {}
        for house in {_house_of(story) for story in stories()}:
            (tmp_path / house).mkdir()
            made = running_stack(tmp_path / house, script=SCRIPT, keyed=house == "responses")
            stacks[house] = parts.enter_context(made)
        yield Houses(stacks)


def stories() -> list[Story]:
    if WANTED is None:
        return [story for story in STORIES if story.name.startswith(_ORDINARY) or story.name in _ALSO]
    return [story for story in STORIES if WANTED == "all" or story.name in WANTED.split(",")]


@pytest.mark.timeout(1200 if WANTED else 420)
def test_whoever_dies_wherever_nothing_is_lost_and_nothing_is_paid_twice(houses: Houses, tmp_path: Path) -> None:
    def told(story: Story) -> list[str]:
        return houses.told(story, tmp_path / story.name)

    def died(case: tuple[Story, str]) -> str | None:
        story, point = case
        problems, dead = houses.problems(story, tmp_path / f"{story.name} {point}", point)
        told_of = f"{story.name}, died at {point}: {'; '.join(problems) or 'as it should be'}"
        print(told_of if dead else f"{told_of} (nobody came there)", flush=True)  # noqa: T201  it takes a while
        wrong.extend(f"{story.name}, died at {point}: {problem}" for problem in problems)
        return point if dead else None

    wrong: list[str] = []
    tried: set[str] = set()
    explored = [story for story in stories() if not story.shows]
    cases = [(story, point) for story in stories() for point in story.shows]
    sure = {point for _, point in cases}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for story, points in zip(explored, pool.map(told, explored), strict=True):
            new = [point for point in points if point.startswith(MONEY) or (WANTED and point not in tried | sure)]
            tried.update(new)
            cases += [(story, point) for point in new]
        # By their names: which places a story comes to differs a little from time to time.
        cases = [case for case in cases if zlib.crc32(" ".join((case[0].name, case[1])).encode()) % PARTS == PART - 1]
        deaths = [point for point in pool.map(died, cases) if point is not None]
    print(f"{len(cases)} cases, {len(deaths)} deaths at {len(set(deaths))} places")  # noqa: T201  a measurement
    assert not wrong, "\n".join(wrong)
    # Some places are come to by chance; a paid call is always made.
    surely = {point for _, point in cases if point in sure or point.startswith(MONEY)}
    assert surely <= set(deaths)
    if WANTED == "all" and PARTS == 1:
        assert PLACES - set(deaths) <= NOT_HERE
    elif WANTED:
        print("never:", sorted(tried - set(deaths)))  # noqa: T201
