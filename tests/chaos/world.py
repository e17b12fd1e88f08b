"""One experiment: real parts, workers that are kept running, rows that keep coming, and trouble.

A profile makes a `World`, lets it be struck for a while, lets it settle and takes the verdict.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from askq.assistants.model import Assistant, ProtocolName
from askq.errors import StoreError
from askq.files.folder import Folder
from askq.names import QUEUE_TOOLS
from askq.tools.describe import Described, describe
from producer.questions import open_items
from producer.submit import Submission, submit
from tests.acceptance.stack import Stack
from tests.chaos import failpoints, house, questions
from tests.chaos.checker import check
from tests.chaos.crew import Crew
from tests.chaos.diary import check_calls
from tests.chaos.faults import Rule
from tests.chaos.questions import PLAIN, Asked
from tests.chaos.report import Report
from tests.chaos.server import Server
from tests.chaos.tape import Tape

_STEP_S = 0.05
_PATIENCE_S = 240.0
QUICK = {"ASKQ_LEASE_S": "4", "ASKQ_CALL_TIMEOUT_S": "4"}
"""Settings for parts that measure no recovery: shorter waits, more trouble in the same time."""

Strike = Callable[["World"], bool]


class World:
    """See `world`."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        keyed: bool,
        workers: int,
        settings: Mapping[str, str],
        kills: float,
        stops: Mapping[str, float],
        run_s: tuple[float, float],
        timeout_s: float,
        blind: bool,
        tools: int,
        places: Collection[str] | None,
        watched: bool,
    ) -> None:
        self.watched = watched
        self.submitted: list[tuple[str, Asked]] = []
        """Batch and row of all that was submitted so far."""
        self.pick = random.Random(seed)
        self.keyed = keyed
        self.timeout_s = timeout_s
        self.done: Counter[str] = Counter()
        self.began = time.monotonic()
        self.file = folder / "asked.jsonl"
        self.file.touch()
        self.stack = Stack(folder, script=questions.script(run_s), keyed=keyed)
        if blind:
            self.stack.forbid_config()
        self.server = Server(self.stack, lambda: self._tick())
        self.tape = Tape(self.stack.redis_port)
        self._log = folder / "failpoints.log"
        self.attached = folder / "attached"
        self.attached.mkdir()
        for which in range(questions.FILES):
            (self.attached / f"표 {which}.csv").write_text(f"row,value\n{which},{which}\n", "utf-8")
            (self.attached / f"글 {which}.md").write_text(f"# Text {which}\n\ntext {which}\n", "utf-8")
        self.files = Folder(folder / "files")
        self._settings = {"ASKQ_FILES": str(self.files.root), **settings}
        if kills or stops:
            only = {} if places is None else {"only": places}
            self._settings |= failpoints.environment(self._log, seed, kills=kills, stops=stops, **only)
        # Longer than the leases on jobs and on shards, so that somebody else has them when the sleeper wakes up.
        self.crew = Crew([], self.pick, sleep_s=max(4.0, float(settings.get("ASKQ_LEASE_S", 6.0))) + 2.0)
        self.diary = folder / "diary.tsv"
        self._functions = _functions() if tools else None
        self.hire(workers)
        for number in range(tools):
            settings = self._settings | {house.DIARY: str(self.diary)}
            self.crew.workers.append(self.stack.worker(f"tools{number}", settings, queues=QUEUE_TOOLS))
        self._waves: list[tuple[float, str, list[Asked]]] = []
        self._open: list[tuple[str, list[Asked]]] = []
        self._keys = 0
        self.label = ""
        """What the keys of lists begin with from now on; it stands in all of their questions."""
        self.forgets = False
        """Whether there are runs in the ledger of which everything else was erased."""
        self.meanwhile: list[Callable[[], None]] = []
        """What is to be done all the time, beside keeping the workers running."""
        self._armed: dict[str, str] = {}
        self._counted: Counter[str] = Counter()

    @property
    def settings(self) -> Mapping[str, str]:
        """What processes are told."""
        return self._settings

    def hire(self, workers: int) -> None:
        """Start workers."""
        for number in range(len(self.crew.workers), len(self.crew.workers) + workers):
            self.crew.workers.append(self.stack.worker(f"w{number}", self._settings))

    def fired(self) -> dict[str, Counter[str]]:
        """Failpoints that went off: action → name → how often."""
        return failpoints.fired(self._log)

    def disarm(self) -> None:
        """Replace every worker by one without failpoints."""
        self.crew.wake_all()
        for worker in self.crew.workers:
            worker.env = {name: value for name, value in (worker.env or {}).items() if "FAILPOINTS" not in name}
        self.crew.kill_all()

    # -- rows ----------------------------------------------------------------------------------------------

    def ask(self, protocol: ProtocolName, count: int, *, waves: int = 1, kinds: Sequence[str] = (PLAIN,)) -> None:
        """Have `count` rows asked, in so many lists of which each is submitted when it is released."""
        for wave in range(waves):
            key = self._next_key(protocol)
            numbers = range(wave * count // waves, (wave + 1) * count // waves)
            rows = [Asked.of(key, number, protocol, kinds[number % len(kinds)]) for number in numbers]
            questions.write(self.file, rows)
            self._waves.append((wave / waves, key, rows))

    def converse(self, protocol: ProtocolName, count: int, turns: int) -> None:
        """Have `count` conversations of so many questions asked, as one list in which they are interleaved."""
        key = self._next_key(protocol)
        talks = [Asked.talk(key, number, turns, protocol) for number in range(count)]
        rows = [talk[turn] for turn in range(turns) for talk in talks]
        questions.write(self.file, rows)
        self._waves.append((0.0, key, rows))

    def attach(
        self, protocol: ProtocolName, count: int, tool: str, *, waves: int = 1, folder: Path | None = None
    ) -> None:
        """Have `count` rows asked with a file each, for this tool; `folder`: other files of the same names."""
        for wave in range(waves):
            key = self._next_key(protocol)
            numbers = range(wave * count // waves, (wave + 1) * count // waves)
            rows = [Asked.with_file(key, number, protocol, folder or self.attached, tool) for number in numbers]
            questions.write(self.file, rows)
            self._waves.append((wave / waves, key, rows))

    def _next_key(self, protocol: ProtocolName) -> str:
        self._keys += 1
        return f"{self.label}{protocol}-{self._keys}"

    def release(self, share: float) -> None:
        """Submit the lists whose turn it is when this share of an experiment is over."""
        self._open += [(key, rows) for turn, key, rows in self._waves if turn <= share]
        self._waves = [wave for wave in self._waves if wave[0] > share]

    def assistant(self, protocol: ProtocolName, tool: str | None = None) -> Assistant:
        """Who answers."""
        tools = () if tool is None else ({"type": tool},)
        plain = Assistant(name="chaos", protocol=protocol, model="gpt-test", timeout_s=self.timeout_s, tools=tools)
        if self._functions is None:
            return plain
        function, how = self._functions.tool, self._functions.how
        return dataclasses.replace(plain, tools=(function,), functions={function["name"]: how})

    def submit(self, key: str, rows: Sequence[Asked]) -> None:
        """What `askq submit --idempotency-key` does. Raises StoreError; the same call then adds the rest."""
        with open_items([row.item() for row in rows]) as listed:
            tool = rows[0].tool
            summary = listed.attach(folder=self.files, tools_of=lambda _: {tool} if tool else ()).check()
            assistant = self.assistant(rows[0].protocol, tool)
            wanted = Submission(
                questions=listed,
                summary=summary,
                assistant=assistant,
                others={},
                idempotency_key=key,
                # Somebody watches every third list: its runs are made with streams.
                stream=self.watched or int(key.rpartition("-")[2]) % 3 == 0,
            )
            batch = submit(self.stack.store, wanted, folder=self.files).batch
        self.submitted += [(batch, row) for row in rows]

    def _feed(self) -> None:
        while self._open:
            try:
                self.submit(*self._open[0])
            except StoreError:
                self.done["submit refused, to be repeated"] += 1
                return
            self._open.pop(0)

    # -- time ----------------------------------------------------------------------------------------------

    def live(self, seconds: float) -> None:
        """Let time pass. When a strike falls is the experiment; no verdict hangs on it."""
        until = time.monotonic() + seconds
        while True:
            self._tick()
            self._feed()
            if time.monotonic() >= until:
                return
            time.sleep(min(_STEP_S, max(0.0, until - time.monotonic())))

    def pause(self, seconds: float) -> None:
        """Let time pass without submitting anything: a submission waits for the disk."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._tick()
            time.sleep(_STEP_S)

    def _tick(self) -> None:
        self.crew.tick()
        for each in self.meanwhile:
            each()

    def spread(self, seconds: float) -> None:
        """Let time pass, and release the lists evenly over it."""
        began = time.monotonic()
        while (share := (time.monotonic() - began) / seconds) < 1:
            self.release(share)
            self.live(0.2)
        self.release(1)

    def suffer(self, strikes: Mapping[Strike, int], *, times: int, every: tuple[float, float]) -> None:
        """Strike so often at random moments, and release the lists evenly over the strikes.

        Counted and not timed: a slow machine makes it last longer, not weaker. Dealt like cards, each strike so many
        times a round: chance decides the order, and leaves none out.
        """
        struck = missed = 0
        deck: list[Strike] = []
        until = time.monotonic() + _PATIENCE_S
        while struck < times:
            assert time.monotonic() < until, f"{struck} of {times} strikes within {_PATIENCE_S:g} s"
            # A blow that finds nobody waits for more work, which would otherwise wait for it.
            self.release((struck + missed / 10) / times)
            self.live(self.pick.uniform(*every))
            if not deck:
                deck = [strike for strike, number in strikes.items() for _ in range(number)]
                self.pick.shuffle(deck)
            if deck[-1](self):
                deck.pop()
                struck += 1
            else:
                missed += 1
                deck.insert(0, deck.pop())
        self.release(1)

    def suffer_through(self, strikes: Mapping[Strike, int], *, times: int, patience_s: float) -> None:
        """Strike so often, spread over all of the work: each time another share of the jobs has ended."""
        deck: list[Strike] = []
        rows = questions.read(self.file)
        keys = {row.key for row in rows}
        for strike in range(times):
            enough = 0.95 * len(rows) * strike / times
            self.wait(partial(self._have_ended, keys, enough), seconds=patience_s, what="work goes on")
            struck = False
            while not struck:
                if not deck:
                    deck = [each for each, number in strikes.items() for _ in range(number)]
                    self.pick.shuffle(deck)
                struck = deck.pop()(self)
                self.live(_STEP_S)

    def _have_ended(self, keys: Collection[str], enough: float) -> bool:
        statuses = [self.stack.status(batch) for key in keys if (batch := self.stack.store.batch_under(key))]
        return sum(status.total - status.pending for status in statuses) >= enough

    def begin(self) -> None:
        """Release the first lists, and wait until work is under way."""
        self.release(0)
        self.wait(lambda: len(self.stack.ledger()) > 3, seconds=60, what="runs are created")

    def wait(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Live until a condition holds; fail loudly when it does not."""
        until = time.monotonic() + seconds
        while not self._holds(condition):
            assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
            self.live(_STEP_S)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except StoreError:
            return False

    @property
    def feeding(self) -> bool:
        """Whether there are lists still to be submitted."""
        return bool(self._waves or self._open)

    def ended(self) -> bool:
        """Whether every list was submitted and every job has ended."""
        if self.feeding:
            return False
        batches = [self.stack.store.batch_under(key) for key in {row.key for row in questions.read(self.file)}]
        return all(batch is not None and self.stack.status(batch).done for batch in batches)

    def persist(self, seconds: float) -> None:
        """Let trouble at the API go on while work does, for so long at most."""
        until = time.monotonic() + seconds
        while not self._holds(self.ended) and time.monotonic() < until:
            self.live(0.2)

    def settle(self, seconds: float) -> None:
        """End all trouble and let the work come to its end; what has not ended by then is counted as stuck."""
        self.release(1)
        self.calm()
        self.persist(seconds)

    # -- the API -------------------------------------------------------------------------------------------

    def arm(self, kind: str, *rules: Rule) -> None:
        """Put rules of the local API in force, under a name by which what they did is counted."""
        made = self.stack.admin("faults", {"faults": [rule | {"seed": self.pick.randrange(1 << 31)} for rule in rules]})
        self._armed |= {rule["id"]: kind for rule in made["data"]}

    def slow_calls(self, *, creates_s: float, reads_s: float) -> None:
        """Let calls take a while, as they do at a real service: no fault, and not counted as one."""
        for method, seconds in (("POST", creates_s), ("GET", reads_s)):
            self.stack.admin("faults", {"kind": "delay", "method": method, "path": ".", "seconds": seconds})

    def fault_kinds(self) -> Counter[str]:
        """How often each kind has gone off."""
        found = Counter(self._counted)
        for rule in self.stack.admin("faults")["data"]:
            if rule["id"] in self._armed:
                found[self._armed[rule["id"]]] += rule["hits"]
        return +found

    def calm(self) -> None:
        """No more trouble."""
        self.crew.wake_all()
        self._counted = self.fault_kinds()
        for rule in self._armed:
            self.stack.admin(f"faults/{rule}", method="DELETE")
        self._armed = {}

    # -- verdict -------------------------------------------------------------------------------------------

    def verdict(self) -> Report:
        """What the ledger, the store and the producer's file say, and what was done."""
        self.tape.close()
        ledger = [entry for entry in self.stack.ledger() if entry["metadata"] or not self.forgets]
        report = check(self.file, self.stack.store, ledger, self.server.client, keyed=self.keyed)
        if self._functions is not None:
            batches = {self.stack.store.batch_under(key) for key in {row.key for row in questions.read(self.file)}}
            jobs = [job for batch in batches if batch is not None for job in self.stack.store.jobs(batch)]
            check_calls(report, self.diary, jobs)
        fired = self.fired()
        report.points += fired["kill"] + fired["stop"]
        report.kills += len(self.crew.kills) + fired["kill"].total()
        if fired["stop"]:
            report.strikes["stop at a failpoint"] += fired["stop"].total()
        report.redis_restarts += self.server.done["SIGKILL of Redis"]
        report.strikes += self.done + self.crew.done + self.server.done
        report.fault_kinds += self.fault_kinds()
        if self.crew.by_itself:
            report.strikes["worker ended by itself"] += self.crew.by_itself
        report.overstayed += len(self.crew.overstayed)
        report.problems += [f"overstayed: {text}" for text in self.crew.overstayed]
        report.stale_commits += self.tape.stale_attempted
        report.stale_accepted += self.tape.stale_accepted
        report.wall_s += time.monotonic() - self.began
        return report


def _functions() -> Described:
    (found,) = describe(["house:work"], [Path(house.__file__).parent])
    assert found.problem is None, found.problem
    return found


@contextmanager
def world(
    folder: Path,
    *,
    seed: int,
    keyed: bool = False,
    workers: int = 2,
    settings: Mapping[str, str] = QUICK,
    kills: float = 0.0,
    stops: Mapping[str, float] | None = None,
    run_s: tuple[float, float] = (0.5, 3.0),
    timeout_s: float = 20.0,
    blind: bool = False,
    tools: int = 0,
    places: Collection[str] | None = None,
    watched: bool = False,
) -> Iterator[World]:
    """Parts of its own in a folder of its own; all of them end with it.

    `kills` and `stops` arm failpoints (`tests.chaos.failpoints`), `kills` at all places or at some. `run_s` is how long
    runs take, `timeout_s` the assistant's deadline (and how long an uncertain create is waited for). With `blind` askq
    may not look at the settings of Redis, so that it does not see how a stopped disk is played. `tools` is how many
    workers run functions, of which the assistant then has one. With `watched` every question is asked with a stream,
    and not only some.
    """
    folder.mkdir(parents=True)
    made = World(
        folder,
        seed=seed,
        keyed=keyed,
        workers=workers,
        settings=settings,
        kills=kills,
        stops=stops or {},
        run_s=run_s,
        timeout_s=timeout_s,
        blind=blind,
        tools=tools,
        places=places,
        watched=watched,
    )
    try:
        yield made
    finally:
        made.tape.close()
        made.server.client.close()
        made.stack.close()
