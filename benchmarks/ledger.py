"""Every run a local API was ever asked for, read from the data it left."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any


def read_ledger(data: Path) -> list[dict[str, Any]]:
    """Read the ledger of a local API that has ended, by starting it once more on the same data."""
    argv = [sys.executable, "-m", "askq.localapi", "--port", "0", "--data", str(data), "--engine", "script"]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        base = json.loads(server.stdout.readline())["base_url"].removesuffix("/v1")
        runs: list[dict[str, Any]] = []
        while True:
            with urllib.request.urlopen(f"{base}/_askq/ledger?after={len(runs)}&limit=1000", timeout=10) as reply:
                page = json.load(reply)["data"]
            runs += page
            if len(page) < 1000:
                return runs
    finally:
        server.terminate()
        server.communicate(timeout=10)
