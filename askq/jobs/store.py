"""The job store's interface: what asking, reading and working need of it.

`RedisStore` keeps the truth; `MemoryStore` is the stand-in for unit tests. One contract suite holds both to this
text. Every method is synchronous, may block for a round trip, and raises only `StoreError`s; the worker calls it
from a thread in batches, so that no connection is ever shared between cancelled tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from askq.jobs.calls import Calls
from askq.jobs.health import Health
from askq.jobs.library import Change, Item, Wish
from askq.jobs.limits import Bound, Heard, Permit, Scope, Wait
from askq.jobs.live import LiveEntry, Piece
from askq.jobs.model import (
    Added,
    BatchStatus,
    Claim,
    Earlier,
    Job,
    Lane,
    Move,
    NewBatch,
    NewJob,
    Node,
    Outcome,
    Pause,
    State,
)
from askq.jobs.objects import Entry, Receipt, RemoteObject, Tombstone
from askq.jobs.took import NO_RUNS, Counts

if TYPE_CHECKING:
    # Most programs audit nothing, and need not import what an audit finds.
    from askq.jobs.books import Books


class Reader(Protocol):
    """What those need who only look: batches, jobs and workers."""

    def batch(self, batch: str) -> BatchStatus | None:
        """One batch with its counters."""

    def batches(self, *, limit: int = 20) -> list[BatchStatus]:
        """The newest batches, newest first."""

    def find_batches(self, prefix: str) -> list[str]:
        """Ids of batches that begin with a prefix, newest first, at most 10."""

    def job(self, job: str) -> Job | None:
        """One whole job."""

    def jobs(self, batch: str, *, states: Collection[State] | None = None) -> Iterator[Job]:
        """The jobs of a batch in input order, read in pages: memory does not grow with the batch."""

    def dead_letters(self) -> dict[str, float]:
        """Jobs given up because workers died on them, and when (Unix seconds), as long as their records last."""

    def nodes(self) -> list[Node]:
        """The workers that are alive."""

    def close(self) -> None:
        """Close the connections."""


class Store(Reader, Protocol):
    """Records, schedule, leases and counters."""

    # -- asking ------------------------------------------------------------------------------------------

    def save_assistant(self, digest: str, definition: str) -> None:
        """Keep the definition (JSON) of an assistant under its content hash."""

    def assistant(self, digest: str) -> str | None:
        """The definition kept under this hash."""

    def open_batch(self, new: NewBatch) -> tuple[str, bool]:
        """The id of a new batch and True; or, under a known idempotency key, the old id and False."""

    def batch_under(self, idempotency_key: str) -> str | None:
        """The id of the batch opened under this key, if there is one."""

    def add(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        """Add rows: each becomes a queued job, due at once, unless its id is there already. One that follows another in
        a conversation (`NewJob.after`, added before or with it) is due when that has ended.

        A row that is there with another question, model or assistant is a conflict: it is left as it was. A row whose
        job has ended and expired since is there already: nothing is asked, or paid for, twice.
        """

    def compare(self, batch: str, jobs: Sequence[NewJob]) -> Added:
        """What `add` would do, without doing it."""

    def seal(self, batch: str, total: int) -> None:
        """Say that all rows of a batch were submitted, and how many there are. StoreError if there is no such batch.

        When it returns, the whole batch is on the server's disk (see `commit`): from then on it is a promise.
        """

    def retry(self, jobs: Sequence[str], ends: Collection[State]) -> list[Outcome]:
        """Queue ended jobs once more, because a person asks again: those whose end is among `ends`.

        `MOVED`; `ALREADY` when a job has not ended; `NOT_YOURS` when it has ended in another way; `MISSING` when its
        record has expired.
        """

    def cancel(self, jobs: Sequence[str]) -> list[Outcome]:
        """A person wants these jobs to end. `ALREADY`: it has ended, or was told before.

        One that is queued and in nobody's hands ends at once, whether or not the account may be called; for any other
        the wish is noted, and whoever claims it next carries it out.
        """

    # -- working -----------------------------------------------------------------------------------------

    def claim(self, lane: Lane, shards: Sequence[int], *, limit: int, lease_s: float) -> list[Claim]:
        """Lease up to `limit` due jobs of these shards, earliest first within a shard, each under a new fence."""

    def renew(self, claims: Sequence[tuple[str, int]], *, lease_s: float) -> list[str]:
        """Extend the leases of `(job, fence)` pairs; returns the jobs that are no longer ours.

        A job is ours until another claims it, or until a move of our own gives it back (`MoveRule.keeps_claim`): a
        renewal that comes after that move must not touch the due time the move has set.
        """

    def give_back(self, claims: Sequence[tuple[str, int]], *, delay_s: float) -> int:
        """Return claimed jobs untouched, due again after `delay_s`; how many were still ours.

        The claim does not count: nobody has worked on them.
        """

    def commit(self, moves: Sequence[Move], *, on_disk: bool = False) -> list[Outcome]:
        """Make transitions, each atomically; the outcomes in the same order. Whoever waits for one (`Move.wakes`) is
        made due before it.

        `on_disk`: return when the server has them, and everything written before them, on its disk. Not even a power
        cut takes back what a paid call is built on. A server that cannot tell is believed (`Health.confirms`).
        """

    def follow(self, jobs: Sequence[tuple[str, str]]) -> list[Earlier | None]:
        """What is known of each job, for the one that follows it in its conversation: `(job, row id that follows)`.
        None for a job that has expired. One that has not ended will make that row due when it does.
        """

    def wake(self, jobs: Sequence[str]) -> None:
        """Make queued jobs due now: what they wait for has ended. No more than a hint."""

    def witness(self, job: str, attempt: int, run_id: str) -> None:
        """Leave the id of a run created by an execution that has lost its lease.

        Changes no state: it is evidence for the execution that now looks for the run of this attempt.
        """

    def next_due(self, lane: Lane) -> float | None:
        """Seconds until the earliest job of a lane is due, negative when overdue; None when the lane is empty."""

    def now(self) -> float:
        """The store's clock (Unix seconds), by which anything is told that belongs to no shard."""

    def clocks(self) -> Sequence[float]:
        """The clock of each shard: the only one that says when a job of it is due. Where shards are on different
        servers, these may differ by as much as those do."""

    def set_back(self, seconds: float, shards: Sequence[int]) -> bool:
        """The clock of these shards was set back by so much: let their schedule follow. True for the first of many
        who say so."""

    # -- live logs ---------------------------------------------------------------------------------------

    def tell(self, job: str, teller: str, run: str, pieces: Sequence[Piece], *, relieves: bool = False) -> Outcome:
        """Add to a job's live log. One may tell at a time, until it has said nothing for a few seconds, or another
        `relieves` it, who knows more of the run.

        `ALREADY`: the job has ended. `NOT_YOURS`: another tells, or the job has another run than this. Without pieces
        nothing is added; the teller keeps, or takes, the right to tell.
        """

    def listen(self, job: str, after: str | None, *, wait_s: float) -> list[LiveEntry]:
        """The entries of a live log after one (None = from the first there is), oldest first; none when none came for
        `wait_s` seconds, of which it waits one at most."""

    def told(self, job: str) -> bool:
        """Whether somebody tells the job's live log at present."""

    def hurry(self, job: str, run: str, *, final: str = "", attempt: int = 0) -> Outcome:
        """This run has ended: make its job due now. `NOT_YOURS` while somebody has the job in hand, `ALREADY` when the
        run is no longer polled.

        `final` is kept for whoever polls it: what the run has ended with, for a service that shows it to nobody. It
        stays even where the record does not know the run of that `attempt` (any more): the id is then left as a
        witness, and the answer is `NOT_YOURS` until it is adopted.
        """

    # -- sharing the work --------------------------------------------------------------------------------

    def enlist(self, lane: Lane, execution: str, *, ttl_s: float) -> int:
        """Register a chain execution as alive for `ttl_s`; how many of its kind are alive."""

    def discharge(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        """Take an execution off the register and give back its shards."""

    def release(self, lane: Lane, execution: str, shards: Sequence[int]) -> None:
        """Give back leases on shards."""

    def hold(self, lane: Lane, execution: str, shards: Sequence[int], *, ttl_s: float) -> list[int]:
        """Take or renew leases on shards; those now held."""

    def hint(self, lane: Lane, *, ttl_s: float) -> bool:
        """Whether the caller may send the message that starts a chain.

        One may be on its way at a time: until an execution enlists, or for `ttl_s`. So a stuck pool does not let
        the queue grow.
        """

    def running(self, lane: Lane) -> int:
        """How many chain executions of a kind are alive."""

    # -- budgets -----------------------------------------------------------------------------------------

    def set_budget(self, batch: str, limit_usd: float) -> None:
        """Bound what a batch may cost from now on."""

    def reserve(self, job: str, attempt: int, cost_usd: float, *, covers_earlier: bool = False) -> bool:
        """Put aside what an attempt may cost at worst; False when the batch's budget does not have it.

        `covers_earlier`: the amount holds what earlier attempts have cost too, and takes the place of what they put
        aside. Asking again for the same attempt puts nothing more aside. True where the batch has no budget.
        """

    def settle(self, job: str, attempt: int, cost_usd: float | None) -> None:
        """Replace what was put aside for an attempt by what it has cost; None = nobody knows: all of it."""

    def reconcile_budget(self, batch: str, *, only: str | None = None) -> int:
        """Settle what is put aside for jobs that have ended (or for one of them); how many there were.

        The record says what a job has cost. Where it does not, all that was put aside counts, unless the attempt is
        known never to have been made.
        """

    def asked_again(self, job: str, attempt: int) -> int:
        """Note that an attempt is to be made though one before it may have been paid for; how many of those the batch
        has had since it was last resumed, this one included. The same attempt counts once."""

    # -- limits ------------------------------------------------------------------------------------------

    def take_permits(self, scope: Scope, asks: Sequence[float], *, bound: Bound, window: int) -> Permit:
        """Permits for calls, in their order: as many as the account grants now, and how long the next one takes.

        `asks` are the tokens of each call; `window` is how many calls may be open at once where nothing is known.
        """

    def learn_limits(self, scope: Scope, heard: Heard) -> Permit:
        """Take notice of what replies said. It holds for every worker."""

    def look_limits(self, scope: Scope) -> Permit:
        """What the account grants now, without taking it."""

    def waits(self) -> list[Wait]:
        """The scopes in which calls wait for a permit."""

    def took(self, digest: str, more: Counts = NO_RUNS) -> Counts:
        """Count runs of an assistant by how long they took (`askq.jobs.took`); all counts of it."""

    def waiting(self, lane: Lane) -> int:
        """How many jobs a lane holds."""

    # -- remote objects (askq.jobs.objects) --------------------------------------------------------------

    def remember(self, owner: str, objects: Sequence[RemoteObject]) -> None:
        """Put objects on record before they are used. The owner is a job, a batch or a thing; one that is on record
        stays as it is. Threads and runs of a job need not be told: its moves say them.

        When it returns, they are on the server's disk (see `commit`).
        """

    def objects(self, owner: str) -> list[Entry]:
        """What is on record of an owner; of a job, its present thread and run too."""

    def share(self, thing: str, user: str) -> list[RemoteObject]:
        """A batch or job begins to use a thing; the thing's objects that it may use. None of them: make it."""

    def unshare(self, thing: str, user: str, *, receipt: str | None = None) -> bool:
        """A batch or job uses a thing no more; True when it was the last, and the thing's objects are buried."""

    def uses(self, user: str) -> list[str]:
        """The things a batch or job uses."""

    def users(self, thing: str) -> list[str]:
        """Who uses a thing."""

    def bury(
        self, owner: str, objects: Sequence[RemoteObject] = (), *, after_s: float = 0.0, receipt: str | None = None
    ) -> int:
        """Put objects on record down for deletion (none named: all of the owner's); how many there are.

        Whatever is to be kept: policy is applied by the moves that end a job.
        """

    def tombstones(self, *, limit: int, lease_s: float) -> list[Tombstone]:
        """Lease objects that are due for deletion, of at most so many owners, earliest first within a shard."""

    def gone(self, owner: str, objects: Sequence[RemoteObject], *, deleted: bool = True) -> None:
        """The service has said that these are deleted, or that there are no such objects: they leave the record. So do
        those that are given up because the service cannot delete them; then they are not `deleted`."""

    def not_gone(self, owner: str, object_: RemoteObject, why: str, *, again_s: float) -> None:
        """The service would not, or could not be reached: the tombstone stays, due again in so many seconds."""

    # -- forgetting (askq.jobs.forgetting) --------------------------------------------------------------

    def begin_forgetting(self, what: str) -> None:
        """Note that a batch or job is to be forgotten. It goes on until it is done, whoever dies meanwhile."""

    def forgetting(self) -> list[str]:
        """Batches and jobs that are being forgotten."""

    def job_ids(self, batch: str) -> Iterator[str]:
        """The ids of all rows of a batch, those whose records have expired included."""

    def forget(self, jobs: Sequence[str], what: str) -> list[Outcome]:
        """Erase jobs that have ended, whole, and bury their remote objects, whatever was to be kept.

        `what` is the batch or the job that is forgotten. `NOT_YOURS`: it has not ended. `MISSING`: nothing of it is
        there.
        """

    def erase(self, what: str) -> None:
        """The last step of forgetting: of a batch, everything that is not about a single job goes, and its remote
        objects are buried; so are those of things that nobody else uses."""

    def receipt(self, what: str) -> Receipt | None:
        """What was forgotten of a batch or job so far; None if nothing was."""

    def ask_inventory(self) -> str:
        """Ask the workers what of askq's there is at the service; the token of the answer."""

    def take_inventory(self) -> str | None:
        """The token of an inventory that somebody has asked for: from now on it is the caller's to answer."""

    def give_inventory(self, token: str, found: str) -> None:
        """Answer it (JSON); the answer is kept for some minutes."""

    def inventory(self, token: str) -> str | None:
        """The answer, when it is there."""

    def compact(self) -> str | None:
        """Have the server write its files anew, so that what was erased is not in them any more, and wait for it; why
        that was not possible, or None."""

    def home(self) -> str:
        """What tells the askq of this store from others on the same account: it marks what it makes there."""

    def next_tombstone(self) -> float | None:
        """Seconds until an object is due for deletion, negative when overdue; None when none is buried."""

    def all_buried(self) -> Iterator[Tombstone]:
        """Every object that waits to be deleted, due or not."""

    def unowned(self) -> Iterator[Tombstone]:
        """Every object on record that is not to be deleted and has nobody any more: its job or batch is not there, or
        nobody uses the thing. A look at every owner there is."""

    # -- the library (askq.jobs.library) -----------------------------------------------------------------

    def want(
        self,
        account: str,
        wishes: Sequence[Wish],
        *,
        again: bool = False,
        only_known: bool = False,
        kept: bool = False,
    ) -> list[Item | None]:
        """The items somebody needs, as they are now; one that is not there is put down to be made.

        `again`: what had failed is tried anew. `only_known`: nothing is put down; None for what is not there. A record
        nobody has asked for in a long time expires, unless it is to be `kept`.
        """

    def items(self, account: str, names: Collection[str] | None = None) -> list[Item]:
        """The items of these names that are there, or all of an account's, oldest first."""

    def claim_items(self, account: str, *, limit: int, lease_s: float) -> list[Item]:
        """Lease items that are to be worked on, earliest first, each under a new fence."""

    def move_item(
        self, account: str, item: Item, change: Change, *, due_s: float | None, take_over: bool = False
    ) -> Outcome:
        """Change an item under the fence it was read with; due again in so many seconds, or at rest (None).

        `take_over`: whoever has claimed it meanwhile commits nothing any more.
        """

    def drop_item(self, account: str, item: Item) -> Outcome:
        """Forget an item: nothing of it is at the service."""

    def next_item(self, account: str) -> float | None:
        """Seconds until an item is due, negative when overdue; None when none is."""

    # -- accounts and nodes ------------------------------------------------------------------------------

    def pause(
        self, account: str, code: str, message: str, *, probe_after_s: float, protocol: str | None = None
    ) -> None:
        """Do not call an account (or one protocol of it) until it is probed or resumed."""

    def resume(self, account: str, *, protocol: str | None = None) -> bool:
        """End a pause; True when there was one. Of a batch (its id for the account), what was asked again is counted
        anew."""

    def pauses(self) -> list[Pause]:
        """All pauses in force."""

    def probe(self, account: str, *, again_after_s: float, protocol: str | None = None) -> bool:
        """Whether the caller may try one call on a paused account now (one caller per interval may)."""

    def return_probe(self, account: str, *, protocol: str | None = None) -> None:
        """The caller's probe brought nothing, because no call was made: anybody may try now."""

    def remote_assistant(self, account: str, digest: str) -> str | None:
        """The id of the remote assistant object made for a definition on an account."""

    def save_remote_assistant(self, account: str, digest: str, remote: str) -> str:
        """Keep that id unless one is kept already; the id that is now on record."""

    def drop_remote_assistant(self, account: str, digest: str, remote: str) -> None:
        """Forget that id, if it is the one on record: the service does not know it any more."""

    def beat(self, node: Node, *, ttl_s: float) -> None:
        """Say that a worker is alive for the next `ttl_s` seconds."""

    def health(self) -> Health:
        """How the server is set up."""

    def tidy(self, *, keep_s: float) -> int:
        """Let what is kept of finished batches end after `keep_s` (retention); how many were marked.

        Jobs end by themselves, so long after their own end as the store was told at its making.
        """

    def calls(self) -> Calls:
        """The function calls of jobs."""

    def books(self) -> Books:
        """What an audit reads and repairs (`askq.jobs.auditor`)."""
