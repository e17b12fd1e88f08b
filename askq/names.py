"""Names that are wire: changing one breaks messages and records already written."""

from __future__ import annotations

START = "askq.start"
"""Task: prepares threads, adds the messages and creates runs."""

POLL = "askq.poll"
"""Task: polls runs until their status leaves queued and in_progress, then collects the answers."""

TOOLS = "askq.tools"
"""Task: runs the functions that runs have asked for."""

JOB = "askq.job"
"""The task name Flower shows for a job; no Celery message ever carries it."""

QUEUE_START = "askq.start"
QUEUE_POLL = "askq.poll"
QUEUE_TOOLS = "askq.tools"
