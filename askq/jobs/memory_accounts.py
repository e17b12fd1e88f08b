"""Accounts in the store in memory: the twin of redis_accounts.py."""

from __future__ import annotations

from askq.jobs.memory_state import MemoryState
from askq.jobs.model import Pause


class MemoryAccounts(MemoryState):
    """What `MemoryStore` knows of accounts."""

    def pause(
        self, account: str, code: str, message: str, *, probe_after_s: float, protocol: str | None = None
    ) -> None:
        with self._lock:
            now, known = self._clock(), self._pauses.get((account, protocol))
            self._pauses[account, protocol] = Pause(
                account=account,
                code=code,
                message=message,
                since=known.since if known is not None and known.code == code else now,
                probe_at=now + probe_after_s,
                protocol=protocol,
            )
            self._probes[account, protocol] = now + probe_after_s

    def resume(self, account: str, *, protocol: str | None = None) -> bool:
        with self._lock:
            self._probes.pop((account, protocol), None)
            self._again.pop(account, None)
            return self._pauses.pop((account, protocol), None) is not None

    def pauses(self) -> list[Pause]:
        return list(self._pauses.values())

    def probe(self, account: str, *, again_after_s: float, protocol: str | None = None) -> bool:
        with self._lock:
            now = self._clock()
            if self._probes.get((account, protocol), now) > now:
                return False
            self._probes[account, protocol] = now + again_after_s
            return True

    def return_probe(self, account: str, *, protocol: str | None = None) -> None:
        with self._lock:
            self._probes.pop((account, protocol), None)

    def remote_assistant(self, account: str, digest: str) -> str | None:
        return self._remote.get((account, digest))

    def save_remote_assistant(self, account: str, digest: str, remote: str) -> str:
        return self._remote.setdefault((account, digest), remote)

    def drop_remote_assistant(self, account: str, digest: str, remote: str) -> None:
        with self._lock:
            if self._remote.get((account, digest)) == remote:
                del self._remote[account, digest]
