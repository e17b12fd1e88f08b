"""The producer's one word to Celery: there is work. Everything else it says to the store."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError

from askq.names import QUEUE_START, START
from config.celery import options


def nudge(broker_url: str) -> str | None:
    """Start a chain now instead of at the next tick of a worker's timer; why that failed, or None.

    The jobs are stored already, so a broker that does not answer costs half a second and nothing else.
    """
    app = Celery("askq", set_as_current=False)
    app.conf.update(options(broker_url))
    try:
        app.send_task(START, queue=QUEUE_START, ignore_result=True, expires=30.0, retry=False)
    except (OperationalError, OSError) as error:
        return str(error)
    except (LookupError, ValueError, ImportError) as error:
        # An address that Celery does not understand, or a transport that it does not have. The first is not repeated:
        # what stands in the wrong place of it may be its password.
        return "CELERY_BROKER_URL is not an address" if isinstance(error, ValueError) else str(error.args[0])
    finally:
        app.close()
    return None
