"""The engine of the present worker process: made at its first use after the fork, drained at its end."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from askq.jobs.store import Store
from worker.engine import Engine
from worker.tools.host import Host

log = logging.getLogger(__name__)

_DRAIN_S = 8.0
_PAID_S = 40.0
"""For creates that are open: longer than one call may take by default, and than a quick end is worth."""
_LEAVING_S = 60.0
"""However Celery fares, a worker that was told to end has ended after so long: it is longer than any drain."""
STUCK_EXIT = 75
"""Its exit code then (EX_TEMPFAIL): a supervisor is to start it again."""
_PR_SET_PDEATHSIG = 1

_lock = threading.Lock()
_build: Callable[[], Engine] | None = None
_engine: tuple[int, Engine] | None = None
_build_tools: Callable[[], tuple[Store, Host]] | None = None
_tools: tuple[int, Store, Host] | None = None
_node = "askq"


def build_with(build: Callable[[], Engine]) -> None:
    """Say how this program's processes make their engine."""
    global _build
    _build = build


def current_engine() -> Engine:
    """This process's engine."""
    global _engine
    with _lock:
        if _engine is None or _engine[0] != os.getpid():
            assert _build is not None, "create_app says how to build the engine"
            engine = _build()
            engine.call(engine.open())
            # What is there by now stays: a collector that looks at all of it again and again holds up every call.
            gc.collect()
            gc.freeze()
            _engine = (os.getpid(), engine)
        return _engine[1]


def build_tools_with(build: Callable[[], tuple[Store, Host]]) -> None:
    """Say how this program's processes make what runs functions."""
    global _build_tools
    _build_tools = build


def tools_host() -> tuple[Store, Host]:
    """What runs functions in this process, and the store it works on."""
    global _tools
    if _tools is None or _tools[0] != os.getpid():
        assert _build_tools is not None, "create_app says how to build it"
        _tools = (os.getpid(), *_build_tools())
    return _tools[1], _tools[2]


def name_node(name: str) -> None:
    """Note the worker's name, before its pool processes are forked."""
    global _node
    _node = name


def node_name() -> str:
    """The name of the worker this process belongs to: Flower files the jobs' rows under it."""
    return _node


def tie_to_parent() -> None:
    """Let the kernel end this pool process when its worker dies: an orphan would hold claims and answer nobody."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def leave_in_time() -> None:
    """See to it that this worker, which was told to end, does not hang: its supervisor would not start another.

    Celery has been seen to go on after a SIGTERM that came while it booted. Nothing is lost by an end of any kind.
    """

    def leave() -> None:
        time.sleep(_LEAVING_S)
        log.error("told to end %.0f s ago, and still there: this worker ends itself", _LEAVING_S)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(STUCK_EXIT)

    threading.Thread(target=leave, name="askq-leave", daemon=True).start()


def drain() -> None:
    """Finish the calls that are open, for a few seconds; the rest is found again by the next claim."""
    if _tools is not None and _tools[0] == os.getpid():
        _tools[2].close()
    if _engine is not None and _engine[0] == os.getpid():
        left = _engine[1].call(_engine[1].drain(_DRAIN_S, paid_s=_PAID_S))
        if left:
            log.warning("%d calls were still open at the end of this process", left)
