"""Failpoints as the suite uses them: which go off how often, and what their log says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

_KILLS: Mapping[str, float] = {
    # Passed by every worker all the time.
    "timer.tick": 0.003,
    "claim.*": 0.002,
    "renew.*": 0.02,
    "chain.*": 0.01,
    "reschedule.*": 0.01,
    "hint.*": 0.005,
    # Passed many times a second by every run that is watched.
    "tell.*": 0.002,
    # Passed a few times by every job.
    "poll.*": 0.003,
    "commit.poll.*": 0.003,
    "commit.defer.*": 0.01,
    # Passed only where something has gone wrong before, or at odd ends.
    "find.*": 0.02,
    "commit.adopt.*": 0.03,
    "commit.void.*": 0.03,
    "commit.doubt.*": 0.03,
    "commit.cut.*": 0.03,
    "commit.fail.*": 0.03,
    "commit.cancel.*": 0.03,
    "commit.expire.*": 0.03,
    "probe.*": 0.1,
    "cancel.*": 0.04,
    "witness.*": 0.1,
    # Passed a few times in a whole experiment: a file is uploaded once.
    "upload.*": 0.15,
    # By every look of a question that waits for its file.
    "item.want.*": 0.002,
    "share.*": 0.002,
    "item.*": 0.02,
    "store.*": 0.05,
    "index.*": 0.01,
    "made.*": 0.03,
    "download.*": 0.02,
    "file.keep.*": 0.02,
    # Passed once for each object that is deleted, and for each list that is forgotten.
    "delete.*": 0.05,
    "gone.*": 0.05,
    "file.delete.*": 0.1,
    "store.delete.*": 0.1,
    "unshare.*": 0.05,
    "bury.*": 0.05,
    "forget.*": 0.2,
    # Passed once by every process.
    "ensure_assistant.*": 0.03,
    # Passed once by every job.
    "*": 0.012,
}
"""Pattern → probability; the first that matches decides. Rarer places get a larger share."""


FORGETTING = ("delete.*", "gone.*", "file.delete.*", "store.delete.*", "unshare.*", "bury.*", "forget.*")
"""Places that only those pass who forget."""


def environment(
    log: Path,
    seed: int,
    *,
    kills: float = 0.0,
    stops: Mapping[str, float] | None = None,
    only: Collection[str] = tuple(_KILLS),
) -> dict[str, str]:
    """Variables that arm a process: kills at `only` these places, with a factor for all of their shares, and SIGSTOPs,
    which come first."""
    rules = [f"{pattern}=stop:{share}" for pattern, share in (stops or {}).items()]
    if kills:
        rules += [f"{name}=kill:{min(1.0, share * kills):.5f}" for name, share in _KILLS.items() if name in only]
    return {
        "ASKQ_FAILPOINTS": ",".join(rules),
        "ASKQ_FAILPOINTS_SEED": str(seed),
        "ASKQ_FAILPOINTS_LOG": str(log),
    }


def fired(log: Path) -> dict[str, Counter[str]]:
    """Action → how often it was taken at which place, as processes wrote it down before they took it."""
    found: dict[str, Counter[str]] = {"kill": Counter(), "stop": Counter()}
    if log.exists():
        for line in log.read_text("utf-8").splitlines():
            _, _, name, action = line.split()
            found[action][name] += 1
    return found
