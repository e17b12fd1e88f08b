"""The store in Redis with a failpoint before and after each step: what a process is given when failpoints are armed."""

from __future__ import annotations

from collections.abc import Sequence

from askq.failpoints import hit
from askq.jobs.library import Change, Item
from askq.jobs.limits import Bound, Heard, Permit, Scope
from askq.jobs.model import Added, Claim, Earlier, Lane, Move, NewBatch, NewJob, Outcome
from askq.jobs.objects import RemoteObject
from askq.jobs.redis_store import RedisStore


class FailingStore(RedisStore):
    """May kill its process at every step that another process would have to go on from."""

    def open_batch(self, new: NewBatch) -> tuple[str, bool]:
        hit("submit.open.before")
        found = super().open_batch(new)
        hit("submit.open.after")
        return found

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        hit("submit.add.before")
        found = super().add(batch, jobs)
        hit("submit.add.after")
        return found

    def seal(self, batch: str, total: int) -> None:
        hit("submit.seal.before")
        super().seal(batch, total)
        hit("submit.seal.after")

    def claim(self, lane: Lane, shards: Sequence[int], *, limit: int, lease_s: float) -> list[Claim]:
        hit("claim.before")
        found = super().claim(lane, shards, limit=limit, lease_s=lease_s)
        # Where nothing was claimed nothing can go wrong, and it happens often.
        if found:
            hit("claim.after")
        return found

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        hit("renew.before")
        found = super().renew(claims, lease_s=lease_s)
        hit("renew.after")
        return found

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        for move in moves:
            hit(f"commit.{move.name}.before")
        found = super().commit(moves, on_disk=on_disk)
        for move in moves:
            hit(f"commit.{move.name}.after")
        return found

    def follow(self, jobs: Sequence[tuple[str, str]]) -> list[Earlier | None]:
        hit("follow.before")
        found = super().follow(jobs)
        hit("follow.after")
        return found

    def witness(self, job: str, attempt: int, run_id: str) -> None:
        hit("witness.before")
        super().witness(job, attempt, run_id)
        hit("witness.after")

    def remember(self, owner: str, objects: Sequence[RemoteObject]) -> None:
        hit("remember.before")
        super().remember(owner, objects)
        hit("remember.after")

    def gone(self, owner: str, objects: Sequence[RemoteObject], *, deleted: bool = True) -> None:
        hit("gone.before")
        super().gone(owner, objects, deleted=deleted)
        hit("gone.after")

    def reserve(self, job: str, attempt: int, cost_usd: float) -> bool:
        hit("reserve.before")
        found = super().reserve(job, attempt, cost_usd)
        hit("reserve.after")
        return found

    def claim_items(self, account: str, *, limit: int, lease_s: float) -> list[Item]:
        hit("item.claim.before")
        found = super().claim_items(account, limit=limit, lease_s=lease_s)
        if found:
            hit("item.claim.after")
        return found

    def move_item(
        self, account: str, item: Item, change: Change, *, due_s: float | None, take_over: bool = False
    ) -> Outcome:
        hit("item.move.before")
        found = super().move_item(account, item, change, due_s=due_s, take_over=take_over)
        hit("item.move.after")
        return found

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        hit("permits.before")
        found = super().take_permits(scope, asks, bound=bound, window=window)
        if found.granted:
            hit("permits.after")
        return found

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        hit("limits.before")
        found = super().learn_limits(scope, heard)
        hit("limits.after")
        return found
