"""One time slice of the chain that runs functions: claim a call, run it, put its output on record, and so on.

It runs in a pool of its own, so that a function that hangs holds up no polls. What is on record is never run again; a
call whose process was killed is claimed anew when its lease ends.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable

from askq.assistants.model import Assistant
from askq.errors import StoreError
from askq.failpoints import hit
from askq.jobs.calls import CallClaim, CallResult, Recorded
from askq.jobs.store import Store
from worker.tools.host import Aborted, Crashed, Host, refusal

log = logging.getLogger(__name__)

_TTL_S = 6.0
_NAP_S = 0.05
_WORTH_WAITING_S = 1.0
_RETRY_S = 0.3
_PATIENCE_S = 120.0
"""How long an output waits for a store that does not answer: it is lost with this process, and the call run again."""


class Slice:
    """Runs calls in one process. `lease_s` is what a killed process's calls wait."""

    def __init__(self, store: Store, host: Host, *, lease_s: float) -> None:
        self._store = store
        self._calls = store.calls()
        self._host = host
        self._lease_s = lease_s
        self._assistants: dict[str, Assistant] = {}
        self._execution = f"{os.uname().nodename}/{os.getpid()}/{uuid.uuid4().hex[:8]}"

    def work(self, *, slice_s: float) -> bool:
        """Run calls until the slice is over or nothing is due soon; whether there is more to do right away."""
        until = time.monotonic() + slice_s
        hit("chain.begin")
        if self._calls.enlist(self._execution, ttl_s=_TTL_S) > wanted_executions(self._store):
            self._calls.discharge(self._execution)
            return False
        keeper = _Keeper(self._store, self._execution, lease_s=self._lease_s)
        try:
            while time.monotonic() < until:
                asked_at = time.monotonic()
                claims = self._calls.claim(limit=1, lease_s=self._lease_s)
                for claim in claims:
                    with keeper.holding(claim, asked_at):
                        self._advance(claim, keeper)
                if not claims:
                    due = self._calls.next_due()
                    if due is None or due > min(_WORTH_WAITING_S, until - time.monotonic()):
                        return False
                    time.sleep(max(_NAP_S, due))
            due = self._calls.next_due()
            return due is not None and due <= _WORTH_WAITING_S
        finally:
            keeper.close()
            hit("chain.end")
            self._calls.discharge(self._execution)

    def _advance(self, claim: CallClaim, keeper: _Keeper) -> None:
        assistant = self._assistant(claim.assistant_digest)
        result = refusal(claim, assistant)
        if result is not None or assistant is None:
            self._finish(claim, result or CallResult(output="", error="unknown_function"))
            return
        once = bool((assistant.functions or {})[claim.wanted.name].get("once"))
        if once and not self._begin(claim, keeper):
            return
        if not keeper.fresh():
            # Another may have it by now. Nothing was begun.
            self._calls.again(claim, crashed=False, delay_s=0.0)
            return
        hit("call.run.before")
        found = self._host.run(claim, assistant, keeper.ours)
        hit("call.run.after")
        match found:
            case CallResult():
                if found.error == "unavailable":
                    log.error("%s: %s cannot be run: %s", claim.job, claim.wanted.name, found.output)
                self._finish(claim, found, on_disk=once)
            case Crashed():
                log.warning("%s: the process of %s is gone: %s", claim.job, claim.wanted.name, found.by)
                self._stored(lambda: self._calls.again(claim, crashed=True, delay_s=_RETRY_S))
            case Aborted():
                log.info("%s: nobody waits for %s any more", claim.job, claim.wanted.name)

    def _begin(self, claim: CallClaim, keeper: _Keeper) -> bool:
        return keeper.fresh() and self._calls.begin(claim) is Recorded.DONE

    def _finish(self, claim: CallClaim, result: CallResult, *, on_disk: bool = False) -> None:
        if self._stored(lambda: self._calls.finish(claim, result, on_disk=on_disk)) is Recorded.STALE:
            log.warning("%s: the output of %s came too late", claim.job, claim.wanted.name)

    def _stored(self, change: Callable[[], Recorded]) -> Recorded:
        """Make a change, however long the store takes: what a function has done must not be done again for that."""
        until = time.monotonic() + _PATIENCE_S
        wait = 0.1
        while True:
            try:
                return change()
            except StoreError as error:
                if time.monotonic() > until:
                    raise
                log.warning("an output waits for the store: %s", error.message)
                time.sleep(wait)
                wait = min(2 * wait, 2.0)

    def _assistant(self, digest: str) -> Assistant | None:
        if digest not in self._assistants:
            definition = self._store.assistant(digest)
            if definition is None:
                return None
            self._assistants[digest] = Assistant.from_json(definition)
        return self._assistants[digest]


def wanted_executions(store: Store) -> int:
    """How many executions may run functions at a time: one per pool process that is there for it."""
    return max(1, sum(node.tools for node in store.nodes()))


class _Keeper:
    """Renews, from a thread, the lease of the call in hand and the execution's own entry in the register."""

    def __init__(self, store: Store, execution: str, *, lease_s: float) -> None:
        self._calls = store.calls()
        self._execution = execution
        self._lease_s = lease_s
        self._claim: CallClaim | None = None
        self._lost = False
        self._fresh_until = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="askq-tools", daemon=True)
        self._thread.start()

    def holding(self, claim: CallClaim, asked_at: float) -> _Holding:
        """Hold a call that was claimed at this monotonic time."""
        with self._lock:
            self._claim, self._lost = claim, False
            self._fresh_until = asked_at + self._lease_s
        return _Holding(self)

    def drop(self) -> None:
        """Hold it no more."""
        with self._lock:
            self._claim = None

    def fresh(self) -> bool:
        """Whether the call is ours for certain: some of its lease is left."""
        with self._lock:
            return self._claim is not None and time.monotonic() < self._fresh_until

    def ours(self) -> bool:
        """Whether nobody has said that the call is not ours any more. A store that does not answer for a while is no
        reason to kill what runs: its output may still be the first."""
        with self._lock:
            return not self._lost

    def _keep(self) -> None:
        while not self._over.wait(self._lease_s / 4):
            with self._lock:
                claim = self._claim
            asked_at = time.monotonic()
            try:
                self._calls.enlist(self._execution, ttl_s=max(_TTL_S, self._lease_s))
                found = None if claim is None else self._calls.renew(claim, lease_s=self._lease_s)
            except StoreError as error:
                log.warning("the lease of a function call could not be renewed: %s", error.message)
                continue
            with self._lock:
                if claim is not None and self._claim is claim:
                    self._lost = found is not Recorded.DONE
                    self._fresh_until = 0.0 if self._lost else asked_at + self._lease_s

    def close(self) -> None:
        """Renew nothing any more."""
        self._over.set()
        self._thread.join()


class _Holding:
    def __init__(self, keeper: _Keeper) -> None:
        self._keeper = keeper

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._keeper.drop()
