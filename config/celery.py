"""Celery's options, each with its reason. Measured facts are of Celery 5.7 and kombu 5.7 on the Redis transport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.broker import broker_of


def options(broker_url: str) -> Mapping[str, Any]:
    """The configuration of the application, worker and producer alike."""
    broker = broker_of(broker_url)
    return {
        "broker_url": broker.url,
        "broker_use_ssl": broker.use_ssl,
        # Answers rest in the job store; a result backend would double the CPU of every message and store them twice.
        "result_backend": None,
        "task_ignore_result": True,
        # A message is a hint: losing one costs a timer's tick. Late acknowledgement brings the hint of a killed
        # worker back sooner than that, and a chain may run twice without harm.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Hints wait in Redis and not in one worker's memory, where another could not take them.
        "worker_prefetch_multiplier": 1,
        # ETA tasks sit in a worker's memory and repeat beyond the visibility timeout: askq sends none, ever. This
        # limit stays off because its bookkeeping collapses the prefetch to 1 for good.
        "worker_eta_task_limit": None,
        "broker_transport_options": {
            # Far above a time slice; only hints are ever held.
            "visibility_timeout": 60,
            # The default looks for lost messages every 100 seconds.
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            # Without a timeout a publish may wait for a dead connection for ever.
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # One list per queue instead of four: askq uses no priorities.
            "priority_steps": [0],
            # Which service of Sentinel's, and how Sentinel itself is asked.
            **broker.transport_options,
        },
        "broker_connection_retry_on_startup": True,
        # The default gives up after 100 tries and ends the worker.
        "broker_connection_max_retries": None,
        "broker_pool_limit": 10,
        # Killing a running chain because a connection blinked would leave paid calls without an owner.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_disable_rate_limits": True,
        "accept_content": ["json"],
        "task_serializer": "json",
        # Flower's rows come from the jobs' own events; chain executions send none (their tasks say so).
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        # `REMAP_SIGTERM=SIGQUIT` deployments: finish the calls that are open, then go.
        "worker_soft_shutdown_timeout": 10.0,
        # A chain is one task for a few seconds of work: this recycles a process about every two hours.
        "worker_max_tasks_per_child": 4000,
        "worker_log_format": "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s",
        "worker_task_log_format": "%(asctime)s %(levelname)s %(processName)s %(task_name)s: %(message)s",
    }
