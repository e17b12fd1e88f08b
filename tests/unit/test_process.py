"""What a worker does when nothing else ends it."""

from __future__ import annotations

import subprocess
import sys

from worker.process import STUCK_EXIT

_HANGS = """
import time
from worker import process
process._LEAVING_S = 0.2
process.leave_in_time()
time.sleep(120)
"""


def test_a_worker_that_hangs_when_it_was_told_to_end_ends_itself_and_says_where_it_hung() -> None:
    ended = subprocess.run([sys.executable, "-c", _HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == STUCK_EXIT
    assert "Current thread" in ended.stderr
    assert 'File "<string>"' in ended.stderr
