"""Calls whose failure is an answer: asking to cancel what has ended, deleting what is gone, reaching a bare server."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

from worker.protocols.base import Ambiguous, Blocked, Busy, Gone, Refused
from worker.protocols.wire import Reply

log = logging.getLogger(__name__)


async def cancelled(call: Awaitable[Reply], run_id: str) -> None:
    """Await a request to cancel. That it was refused is no error: the run ended first, or cannot be cancelled here,
    and the next poll tells. That it may not have arrived is one: it must be repeated."""
    try:
        await call
    except (Refused, Gone, Busy) as error:
        log.info("%s was not cancelled: %s", run_id, error)
    except Blocked as error:
        if error.code != "endpoint_gone":
            raise
        log.info("%s cannot be cancelled on this server: %s", run_id, error)


async def deleted(call: Awaitable[Reply], what: str) -> bool:
    """Await a deletion; whether it is gone. What is not there is deleted; a server that cannot delete keeps it as long
    as it pleases."""
    try:
        reply = await call
    except Gone:
        return True
    except Blocked as error:
        if error.code != "endpoint_gone":
            raise
        log.info("%s cannot be deleted on this server: %s", what, error)
        return False
    reply.require_deletion()
    return True


async def reached(call: Awaitable[Reply]) -> None:
    """Await the list of models. A server that has none is there all the same."""
    try:
        await call
    except Gone:
        return
    except (Ambiguous, Blocked) as error:
        if error.code not in ("endpoint_gone", "http_404"):
            raise
