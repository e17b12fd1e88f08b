"""The store in Redis with a failpoint before and after each step: what a process is given when failpoints are armed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from askq.failpoints import hit
from askq.jobs.calls import CallClaim, CallResult, Calls, KeptCall, Recorded
from askq.jobs.library import Change, Item, Wish
from askq.jobs.limits import Bound, Heard, Permit, Scope
from askq.jobs.live import Piece
from askq.jobs.model import Added, Claim, Earlier, Lane, Move, NewBatch, NewJob, Outcome, State
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

    def retry(self, jobs: Sequence[str], ends: Collection[State]) -> list[Outcome]:
        hit("retry.before")
        found = super().retry(jobs, ends)
        hit("retry.after")
        return found

    def hint(self, lane: Lane, *, ttl_s: float) -> bool:
        hit("hint.before")
        found = super().hint(lane, ttl_s=ttl_s)
        # Only then a message follows.
        if found:
            hit("hint.after")
        return found

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
        if not jobs:
            return []
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

    def share(self, thing: str, user: str) -> list[RemoteObject]:
        hit("share.before")
        found = super().share(thing, user)
        hit("share.after")
        return found

    def unshare(self, thing: str, user: str, *, receipt: str | None = None) -> bool:
        hit("unshare.before")
        found = super().unshare(thing, user, receipt=receipt)
        hit("unshare.after")
        return found

    def bury(
        self, owner: str, objects: Sequence[RemoteObject] = (), *, after_s: float = 0.0, receipt: str | None = None
    ) -> int:
        hit("bury.before")
        found = super().bury(owner, objects, after_s=after_s, receipt=receipt)
        hit("bury.after")
        return found

    def gone(self, owner: str, objects: Sequence[RemoteObject], *, deleted: bool = True) -> None:
        hit("gone.before")
        super().gone(owner, objects, deleted=deleted)
        hit("gone.after")

    def tell(self, job: str, teller: str, run: str, pieces: Sequence[Piece], *, relieves: bool = False) -> Outcome:
        hit("tell.before")
        found = super().tell(job, teller, run, pieces, relieves=relieves)
        hit("tell.after")
        return found

    def hurry(self, job: str, run: str, *, final: str = "", attempt: int = 0) -> Outcome:
        hit("hurry.before")
        found = super().hurry(job, run, final=final, attempt=attempt)
        hit("hurry.after")
        return found

    def reserve(self, job: str, attempt: int, cost_usd: float, *, covers_earlier: bool = False) -> bool:
        hit("reserve.before")
        found = super().reserve(job, attempt, cost_usd, covers_earlier=covers_earlier)
        hit("reserve.after")
        return found

    def settle(self, job: str, attempt: int, cost_usd: float | None) -> None:
        hit("settle.before")
        super().settle(job, attempt, cost_usd)
        hit("settle.after")

    def want(
        self,
        account: str,
        wishes: Sequence[Wish],
        *,
        again: bool = False,
        only_known: bool = False,
        kept: bool = False,
    ) -> list[Item | None]:
        hit("item.want.before")
        found = super().want(account, wishes, again=again, only_known=only_known, kept=kept)
        hit("item.want.after")
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

    def drop_item(self, account: str, item: Item) -> Outcome:
        hit("item.drop.before")
        found = super().drop_item(account, item)
        hit("item.drop.after")
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

    def calls(self) -> Calls:
        return FailingCalls(super().calls())


class FailingCalls:
    """The function calls, likewise."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.next_due = calls.next_due
        self.waiting = calls.waiting
        self.enlist = calls.enlist
        self.discharge = calls.discharge
        self.running = calls.running
        self.hint = calls.hint

    def look(self, job: str) -> Sequence[KeptCall]:
        hit("call.look.before")
        found = self._calls.look(job)
        hit("call.look.after")
        return found

    def claim(self, *, limit: int, lease_s: float) -> list[CallClaim]:
        hit("call.claim.before")
        found = self._calls.claim(limit=limit, lease_s=lease_s)
        if found:
            hit("call.claim.after")
        return found

    def begin(self, claim: CallClaim) -> Recorded:
        hit("call.begin.before")
        found = self._calls.begin(claim)
        hit("call.begin.after")
        return found

    def renew(self, claim: CallClaim, *, lease_s: float) -> Recorded:
        return self._calls.renew(claim, lease_s=lease_s)

    def finish(self, claim: CallClaim, result: CallResult, *, on_disk: bool = False) -> Recorded:
        hit("call.finish.before")
        found = self._calls.finish(claim, result, on_disk=on_disk)
        hit("call.finish.after")
        return found

    def again(self, claim: CallClaim, *, crashed: bool, delay_s: float) -> Recorded:
        hit("call.again.before")
        found = self._calls.again(claim, crashed=crashed, delay_s=delay_s)
        hit("call.again.after")
        return found
