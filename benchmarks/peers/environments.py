"""Environments of the peers, made with uv in a cache folder outside the repository, and kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.manifest import Peer

_INSTALL_S = 600.0


class NotInstallable(Exception):
    """A peer whose environment could not be made, and why."""


def cache_folder() -> Path:
    """`ASKQ_PEERS_CACHE`, or the person's cache folder."""
    given = os.environ.get("ASKQ_PEERS_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "askq-peers"


def python_of(peer: Peer) -> str:
    """The interpreter of the peer's environment, made if need be; raises NotInstallable."""
    if not peer.requirements:
        return sys.executable
    wanted = "\n".join((sys.version, *peer.requirements))
    folder = cache_folder() / f"{peer.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    python, ready = folder / "bin" / "python", folder / "askq-peer-ready"
    if not ready.exists():
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        _uv("pip", "install", "--system-certs", "--python", str(python), *peer.requirements)
        ready.write_text(wanted, "utf-8")
    return str(python)


def _uv(*argv: str) -> None:
    try:
        done = subprocess.run(["uv", *argv], check=False, timeout=_INSTALL_S, capture_output=True, text=True)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotInstallable(str(exc)) from exc
    if done.returncode != 0:
        raise NotInstallable(done.stderr.strip()[-1000:])
