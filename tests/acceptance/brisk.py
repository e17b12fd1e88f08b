"""A worker that audits every second: `celery -A tests.acceptance.brisk`."""

from worker.celery import app
from worker.timer import TimerStep

__all__ = ["app"]

TimerStep.audit_every_s = 1.0
