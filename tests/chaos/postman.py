"""Who stands between Celery and its queues: messages get lost, multiplied, delayed, reordered and forged."""

from __future__ import annotations

import base64
import json
import pickle
import random
import threading
import time
from collections import Counter
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from askq.names import QUEUE_POLL, QUEUE_START

_QUEUES = (QUEUE_START, QUEUE_POLL)
_COPIES = 6
_MOST_QUEUED = 200
"""What is multiplied is bounded."""


class Postman:
    """Takes messages out of the queues as a worker would, only faster, and treats them badly."""

    def __init__(self, port: int, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._redis = redis.Redis(port=port, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))
        self._pick = random.Random(seed)
        self._deck: list[str] = []
        self._held: list[tuple[float, str, bytes]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="postman", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the postman does not end"
        self._redis.close()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                self._round()
            except redis.RedisError:
                time.sleep(0.05)

    def _round(self) -> None:
        now = time.monotonic()
        for due, queue, message in [held for held in self._held if held[0] <= now]:
            self._redis.lpush(queue, message)
            self._held.remove((due, queue, message))
        # In line with the workers, who wait in the same way: the one who has waited longest is served.
        taken: Any = self._redis.brpop(list(_QUEUES), timeout=0.5)
        if taken is not None:
            self._treat(taken[0].decode(), taken[1])
        if self._pick.random() < 0.05:
            self._forget_unacknowledged()

    def _treat(self, queue: str, message: bytes) -> None:
        if not self._deck:
            self._deck = list(KINDS)
            self._pick.shuffle(self._deck)
        match what := self._deck.pop():
            case "lose":
                pass
            case "multiply":
                copies = min(_COPIES, max(1, _MOST_QUEUED - self._redis.llen(queue)))
                self._redis.lpush(queue, *[message] * copies)
            case "delay":
                self._held.append((time.monotonic() + self._pick.uniform(0.5, 6.0), queue, message))
            case "reorder":
                self._redis.rpush(queue, message)
                waiting = self._redis.lrange(queue, 0, -1)
                self._pick.shuffle(waiting)
                for moved in waiting:
                    # Counted from the end workers take from: taken out there and put back at the other.
                    if self._redis.lrem(queue, -1, moved):  # type: ignore[arg-type]  # bytes are values, too
                        self._redis.lpush(queue, moved)
            case forgery:
                self._redis.lpush(queue, _FORGERIES[forgery](message), message)
        self.done[f"message: {what}"] += 1

    def _forget_unacknowledged(self) -> None:
        for tag in self._redis.hkeys("unacked"):
            if self._pick.random() < 0.5:
                self._redis.hdel("unacked", tag)
                self._redis.zrem("unacked_index", tag)
                self.done["message: forget that it is unacknowledged"] += 1


def _with_arguments(message: bytes) -> bytes:
    envelope = json.loads(message)
    body = json.dumps([["b_forged.q1", 7], {"job": "b_forged.q1", "state": "completed"}, {}])
    envelope["body"] = base64.b64encode(body.encode()).decode()
    return json.dumps(envelope).encode()


def _of_another_task(message: bytes) -> bytes:
    return _changed(message, headers={"task": "askq.pay_again"})


def _pickled(message: bytes) -> bytes:
    envelope = json.loads(message) | {"content-type": "application/x-python-serialize"}
    envelope["body"] = base64.b64encode(pickle.dumps([[], {}, {}])).decode()
    return json.dumps(envelope).encode()


def _changed(message: bytes, *, headers: dict[str, Any]) -> bytes:
    envelope = json.loads(message)
    envelope["headers"] |= headers
    return json.dumps(envelope).encode()


_FORGERIES = {
    "forge arguments": _with_arguments,
    "forge another task": _of_another_task,
    "forge a pickle": _pickled,
}
KINDS = ("lose", "multiply", "delay", "reorder", *_FORGERIES)
