"""Forgetting under kills, restarts of Redis and faults of deletions.

Lists with files, stores and conversations are answered in peace, some beside others that share files and assistants
with them. Then trouble begins, and they are forgotten: nothing of them may remain, and nothing else may be missing.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from askq.assistants.model import ProtocolName
from askq.errors import StoreError
from askq.jobs.model import State
from askq.jobs.objects import Kind
from tests.acceptance.stack import Process
from tests.chaos import failpoints, faults, questions
from tests.chaos.profiles import legs
from tests.chaos.profiles.files import wrong_files
from tests.chaos.profiles.legs import Leg
from tests.chaos.report import Report
from tests.chaos.world import Strike, World
from tests.parts import contents

CANARY = "forgotten7c1"
"""Stands in every question of what is forgotten, in its answers, and in files that only those have."""
_HURRY_S = 2.0
_ROOM_S = 15.0
_PATHS = {
    Kind.ASSISTANT: "assistants",
    Kind.THREAD: "threads",
    Kind.CONVERSATION: "conversations",
    Kind.RESPONSE: "responses",
    Kind.FILE: "files",
    Kind.VECTOR_STORE: "vector_stores",
    Kind.CONTAINER: "containers",
}
_HEADERS = {"Authorization": "Bearer sk-test-canary-0123456789", "OpenAI-Beta": "assistants=v2"}


@dataclass(frozen=True, slots=True)
class Size:
    files: int
    """Questions with a file for code interpreter, per list."""
    searches: int
    """Questions with a file for file search, likewise."""
    talks: int
    turns: int
    at_work: int
    """Questions whose runs are at work when they are forgotten."""
    later: int
    """Questions that are asked meanwhile, about files that others let go of, per protocol."""
    workers: int
    strikes: int
    kills: float
    """Factor of the failpoints' shares."""
    often: int
    """How often a fault goes off at most."""
    settle_s: float
    least_kills: int
    least_faults: int


SIZES = {
    "short": Size(2, 1, 1, 2, 1, 1, 1, 4, 0.15, 1, 150, 3, 4),
    "full": Size(10, 4, 5, 3, 5, 8, 2, 24, 0.7, 5, 150, 30, 30),
}


@dataclass(slots=True)
class Made:
    """What lists have at the service: id → kind and the owner under whom it is on record."""

    objects: dict[str, tuple[Kind, str]] = field(default_factory=dict)

    def kinds(self) -> Counter[str]:
        """How many of each kind."""
        return Counter(str(kind) for kind, _ in self.objects.values())


class Commands:
    """`askq forget`, once per protocol, told again whenever it was killed or has failed."""

    def __init__(self, world: World, batches: Mapping[ProtocolName, list[str]]) -> None:
        self._world = world
        self.running = [
            world.stack.command(f"forget-{protocol}", "forget", "--yes", "--json", *ids, settings=world.settings)
            for protocol, ids in batches.items()
        ]
        self.done: set[str] = set()

    def tick(self) -> None:
        """Start again what has not come to its end."""
        for command in self.running:
            if command.alive or command.name in self.done:
                continue
            if command.child is not None and command.child.returncode == 0:
                self.done.add(command.name)
            else:
                command.start()

    def kill(self) -> bool:
        """SIGKILL one."""
        alive = [command for command in self.running if command.alive]
        if not alive:
            return False
        self._world.crew.kills.append(0.0)
        self._world.pick.choice(alive).kill()
        self._world.done["kill of askq forget"] += 1
        return True

    def stop(self) -> None:
        """No more of them."""
        for command in self.running:
            command.kill()


def run(size: Size, seed: int, folder: Path) -> Report:
    report, problems = Report(), Problems()

    def storm(world: World, leg: Leg) -> None:
        world.forgets = True
        _answer_all(world, leg, size)
        batches = {protocol: _batches(world, f"{CANARY}-{protocol}") for protocol in leg.protocols}
        kept, gone = _made(world, _batches(world, "kept")), _made(world, chain.from_iterable(batches.values()))
        gone.objects = {id_: about for id_, about in gone.objects.items() if id_ not in kept.objects}
        assert set(Kind) - {Kind.ASSISTANT} <= {kind for kind, _ in gone.objects.values()}, gone.kinds()
        rows = sum(row.key.startswith(CANARY) for row in questions.read(world.file))

        # Somebody has deleted some of it already: the service says 404 then.
        # Of a conversation its items would stay, which nobody could delete then.
        others = sorted(id_ for id_, (kind, _) in gone.objects.items() if kind is not Kind.CONVERSATION)
        for id_ in world.pick.sample(others, 3):
            _delete(world, gone.objects[id_][0], id_)
        for name, rules in faults.DELETIONS.items():
            world.arm(name, *(faults.at(rule, 0.3, times=size.often) for rule in rules))
        world.label = "kept-"
        for protocol in leg.protocols:
            # Asked while the same files are let go of by others.
            world.attach(protocol, size.later, "code_interpreter")
        commands = Commands(world, batches)
        world.meanwhile += [commands.tick, Hurry(world, gone).tick]

        def look(world: World) -> bool:
            problems.lost += _lost(world, gone)
            return True

        strikes: list[Strike] = [
            *(lambda world: commands.kill(), lambda world: world.crew.kill_child()),
            *(lambda world: world.server.kill(0.2) and look(world), lambda world: world.crew.kill_group()),
            *(lambda world: commands.kill(), lambda world: world.crew.kill_main()),
        ]
        world.release(1)
        for number in range(size.strikes):
            # Spread over all that is to be deleted: counted and not timed.
            enough = len(gone.objects) - len(gone.objects) * number // (size.strikes + 1)
            world.wait(partial(_is_down_to, world, gone, enough), seconds=size.settle_s, what="deletions go on")
            # Whoever is to be struck may just have ended by itself.
            strike = partial(strikes[number % len(strikes)], world)
            world.wait(strike, seconds=size.settle_s, what="somebody is struck")
        look(world)
        world.meanwhile.pop(0)
        commands.stop()
        world.calm()
        world.wait(partial(_kept_have_ended, world), seconds=size.settle_s, what="what is kept is answered")
        receipts = [receipt for ids in batches.values() for receipt in _finish(world, ids, size.settle_s)]
        problems.receipts += _wrong_receipts(receipts, gone, rows)
        # The local API makes room in its file a moment later.
        until = time.monotonic() + _ROOM_S
        while (left := _left(world, gone)) and time.monotonic() < until:
            world.live(0.5)
        problems.left += left
        problems.missing += [f"{kind} {id_}" for id_, (kind, _) in kept.objects.items() if not _has(world, kind, id_)]
        # From here on only what was kept is looked for.
        rest = [row for row in questions.read(world.file) if not row.key.startswith(CANARY)]
        world.file.write_text("", "utf-8")
        questions.write(world.file, rest)
        problems.wrong += wrong_files(world)

    options = {
        "run_s": (0.2, 0.6),
        "kills": size.kills,
        "workers": size.workers,
        "places": failpoints.FORGETTING,
        "timeout_s": 40.0,
    }
    for verdict in legs.each((legs.MIXED,), seed, folder, storm, **options):
        report += verdict
    report.lost += len(problems.lost)
    report.left_behind += len(problems.left)
    report.wrong += len(problems.missing) + len(problems.wrong)
    report.miscounted += len(problems.receipts)
    report.problems += problems.told()
    report.need("kills", report.kills, size.least_kills)
    report.need("Redis restarts", report.redis_restarts, 1)
    report.need("kills of askq forget", report.strikes["kill of askq forget"], 1)
    report.need("faults of deletions", sum(report.fault_kinds.values()), size.least_faults)
    return report


@dataclass(slots=True)
class Problems:
    """What was found wrong."""

    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)

    def told(self) -> list[str]:
        """All of it, in words."""
        return [
            *(f"on no record, and at the service: {what}" for what in self.lost),
            *(f"not forgotten: {what}" for what in self.left),
            *(f"deleted, though it is another's: {what}" for what in self.missing),
            *self.wrong,
            *(f"receipt: {what}" for what in self.receipts),
        ]


def _answer_all(world: World, leg: Leg, size: Size) -> None:
    """Lists that are kept, lists that will be forgotten, and some whose runs are still at work then."""
    only = world.stack.folder / "only"
    only.mkdir()
    for file in world.attached.iterdir():
        (only / file.name).write_text(f"{file.read_text('utf-8')}{CANARY},{CANARY}\n", "utf-8")
    for protocol in leg.protocols:
        for label, folder in (("kept-", world.attached), (f"{CANARY}-", world.attached), (f"{CANARY}-", only)):
            world.label = label
            world.attach(protocol, size.files, "code_interpreter", folder=folder)
            world.attach(protocol, size.searches, "file_search", folder=folder)
            if folder is world.attached:
                world.converse(protocol, size.talks, size.turns)
    world.release(0)
    world.wait(world.ended, seconds=120, what="all lists are answered")
    world.label = f"{CANARY}-"
    for protocol in leg.protocols:
        world.ask(protocol, size.at_work, kinds=("slow",))
    world.release(0)

    def at_work() -> bool:
        counts = [world.stack.status(batch).counts for batch in _batches(world, CANARY)]
        return not world.feeding and not any(count[State.QUEUED] or count[State.STARTING] for count in counts)

    world.wait(at_work, seconds=90, what="the last runs are at work")


def _batches(world: World, label: str) -> list[str]:
    keys = dict.fromkeys(row.key for row in questions.read(world.file))
    found = [world.stack.store.batch_under(key) for key in keys if key.startswith(label)]
    return [batch for batch in found if batch is not None]


def _kept_have_ended(world: World) -> bool:
    return not world.feeding and all(world.stack.status(batch).done for batch in _batches(world, "kept"))


def _made(world: World, batches: Iterable[str]) -> Made:
    store, found = world.stack.store, Made()

    def note(owner: str) -> None:
        for entry in store.objects(owner):
            found.objects.setdefault(entry.object.id, (entry.object.kind, owner))
        for thing in store.uses(owner):
            note(thing)

    for batch in batches:
        note(batch)
        for job in store.jobs(batch):
            note(job.id)
    return found


def _is_down_to(world: World, gone: Made, most: int) -> bool:
    """Whether no more than so many are still to be deleted. What is kept grows meanwhile."""
    store = world.stack.store
    known = {
        entry.object.id for owner in {owner for _, owner in gone.objects.values()} for entry in store.objects(owner)
    }
    known |= {stone.object.id for stone in store.all_buried()}
    return len(known & gone.objects.keys()) <= most


class Hurry:
    """Has what was refused, or taken by somebody who has died, tried again soon: as whoever tells `askq forget` once
    more has it. Without that there are pauses of half a minute."""

    def __init__(self, world: World, gone: Made) -> None:
        self._store = world.stack.store
        self._gone = gone
        self._next = time.monotonic() + _HURRY_S

    def tick(self) -> None:
        """Now and then."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _HURRY_S
        with contextlib.suppress(StoreError):
            for stone in self._store.all_buried():
                if stone.entry.receipt is not None and stone.object.id in self._gone.objects:
                    self._store.bury(stone.owner, [stone.object])


def _lost(world: World, gone: Made) -> list[str]:
    """What is at the service and on no record any more: nobody will delete it."""
    store = world.stack.store
    known = {owner: {entry.object.id for entry in store.objects(owner)} for _, owner in gone.objects.values()}
    unknown = [(kind, id_) for id_, (kind, owner) in gone.objects.items() if id_ not in known[owner]]
    # A conversation is on record for each of its questions, of which `owner` is the first.
    buried = {stone.object.id for stone in store.all_buried()}
    return [f"{kind} {id_}" for kind, id_ in unknown if id_ not in buried and _has(world, kind, id_)]


def _finish(world: World, batches: list[str], seconds: float) -> list[Mapping[str, object]]:
    """The receipts, once all is gone; told again it hurries."""
    # The same folder of files, and no failpoints: it is what goes on with an end that nobody was left to reach.
    name, settings = f"receipt-{batches[0][-6:]}", {"ASKQ_FILES": str(world.files.root)}
    command = world.stack.command(name, "forget", "--yes", "--json", *batches, settings=settings)
    world.wait(lambda: not command.alive, seconds=seconds, what="all is forgotten")
    receipts = _receipts(command)
    assert command.child is not None
    assert command.child.returncode == 0, f"askq forget: {command.tail()}"
    return receipts


def _receipts(command: Process) -> list[Mapping[str, object]]:
    text = command.log.read_text("utf-8")
    found = json.loads(text[text.index("\n[" if "\n[" in text else "[") :])
    return list(found)


def _wrong_receipts(receipts: Iterable[Mapping[str, object]], gone: Made, rows: int) -> list[str]:
    deleted: Counter[str] = Counter()
    counted, wrong = 0, []
    for receipt in receipts:
        told, many = receipt["deleted"], receipt["questions"]
        assert isinstance(told, dict)
        assert isinstance(many, int)
        deleted.update(told)
        counted += many
        wrong += [] if receipt["complete"] else [f"incomplete: {receipt}"]
    if counted != rows:
        wrong.append(f"{counted} questions are told of {rows}")
    if deleted != gone.kinds():
        wrong.append(f"{dict(deleted)} are told, {dict(gone.kinds())} there were")
    return wrong


def _left(world: World, gone: Made) -> list[str]:
    """Where anything of it still is."""
    store, stack = world.stack.store, world.stack
    found = [f"{kind} {id_}" for id_, (kind, _) in gone.objects.items() if _has(world, kind, id_)]
    found += [f"tombstone {stone.object.name}" for stone in store.all_buried() if stone.object.id in gone.objects]
    found += [f"on record without an owner: {stone.object.name}" for stone in store.unowned()]
    if CANARY in json.dumps(stack.ledger()):
        found.append("the ledger")
    for folder in (stack.folder / "redis", stack.folder / "localapi", stack.folder / "home", world.files.root):
        for path, content in contents(folder):
            if CANARY.encode() in content:
                found.append(str(path.relative_to(stack.folder)))
    with stack.client() as client:
        # A dump is compressed, and the file of appended commands may begin with one.
        client.config_set("rdbcompression", "no")
        client.save()
    if CANARY.encode() in (stack.folder / "redis" / "dump.rdb").read_bytes():
        found.append("a dump of Redis")
    found += [f"partial {path}" for path in world.files.partial()]
    return found


def _has(world: World, kind: Kind, id_: str) -> bool:
    request = urllib.request.Request(f"{world.stack.base_url}/{_PATHS[kind]}/{id_}", headers=_HEADERS)
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False


def _delete(world: World, kind: Kind, id_: str) -> None:
    address = f"{world.stack.base_url}/{_PATHS[kind]}/{id_}"
    with urllib.request.urlopen(urllib.request.Request(address, headers=_HEADERS, method="DELETE"), timeout=10):
        pass
