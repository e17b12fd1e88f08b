"""A Redis Cluster as the stores speak to it: nearly as if it were one server.

redis-py's client knows where each slot is, and learns it anew when that changes. Its pipeline is not used: after a
node has gone it repeats each command alone, with the pauses of each, and it can say neither which server has executed
a command nor ask that server anything.

What differs from one server: a pipeline is carried out node by node, in its order within a node, and a transaction is
whole within a slot. Callers say what must come before what (`RedisWire._in_order`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.cluster import ClusterNode
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterDownError,
    ExecAbortError,
    MaxConnectionsError,
    MovedError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from askq.jobs import keys
from askq.jobs.records import encoded

_GONE = (redis.ConnectionError, redis.TimeoutError, ClusterDownError, TryAgainError)
_REFUSED = (AuthenticationError, MaxConnectionsError)
_REDIRECTIONS = 5
_PAUSE_S = 0.1
"""Before what failed is tried once more, on whatever nodes there are then."""
_KEYLESS = frozenset({"TIME", "INFO", "WAIT", "WAITAOF"})
_MARKS = 100_000
"""So many names are tried to find one that a node has: enough where a node has more than a slot or two."""


@dataclass(slots=True)
class Step:
    """One command of a pipeline: where it goes, and what came back."""

    args: tuple[Any, ...]
    options: dict[str, Any]
    slot: int
    node: ClusterNode | None = None
    asking: bool = False
    reply: Any = None
    told: Any = None
    """What the server that gave the reply said to the question asked after it."""


class ClusterRedis(redis.Redis):
    """The nodes of a cluster behind the methods of one client.

    Raises what that does, redis.ConnectionError when no node answers, each asked twice at most.
    """

    def __init__(self, nodes: Sequence[tuple[str, int]], options: Mapping[str, Any]) -> None:
        # For its commands. The pool that comes along is never used.
        super().__init__()
        self._seeds = nodes
        self._options = dict(options)
        self._lock = threading.Lock()
        self._nodes: redis.RedisCluster | None = None
        self._marks: dict[str, str] = {}

    # -- what one server's client has -------------------------------------------------------------------

    def execute_command(self, *args: Any, **options: Any) -> Any:
        (step,) = self.send([(args, options)])
        if isinstance(step.reply, Exception):
            raise step.reply
        return step.reply

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> ClusterPipeline:  # noqa: FBT001, FBT002  the client's signature
        return ClusterPipeline(self, transaction=transaction)

    def close(self) -> None:
        super().close()
        if self._nodes is not None:
            self._nodes.close()

    # -- what a cluster has beside --------------------------------------------------------------------

    def owner(self, key: str) -> redis.Redis:
        """The client of the node that has a key."""
        return self._client(self._node(key_slot(encoded(key))))

    def servers(self) -> list[tuple[str, str, redis.Redis]]:
        """Address, role (`primary` or `replica`) and client of each node."""
        self._refresh()
        return [(node.name, str(node.server_type), self._client(node)) for node in self._known().get_nodes()]

    def marks(self) -> list[str]:
        """A key of every node that has any, by which the node can be written to."""
        return [self.mark(node) for node in self._known().get_primaries()]

    def mark(self, node: ClusterNode) -> str:
        """A key that this node has."""
        known = self._marks.get(node.name)
        if known is not None and self._node(key_slot(known.encode())).name == node.name:
            return known
        for number in range(_MARKS):
            name = keys.disk_mark(number)
            if self._node(key_slot(name.encode())).name == node.name:
                self._marks[node.name] = name
                return name
        # It has lost its slots since it answered: whoever writes this key finds another server there.
        return keys.disk_mark(0)

    def send(
        self,
        commands: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        *,
        whole: bool = False,
        follow: bool = True,
        question: tuple[Any, ...] | None = None,
    ) -> list[Step]:
        """Carry out commands where their keys are; errors are replies.

        `whole`: those of one slot together or not at all. `follow`: to where a slot has gone meanwhile. `question`
        goes to each server after the commands.
        """
        steps = [self._step(args, options) for args, options in commands]
        todo, repeats = steps, 1
        for _ in range(_REDIRECTIONS):
            self._round(todo, whole=whole, question=question)
            gone = [s for s in todo if isinstance(s.reply, _GONE) and not isinstance(s.reply, _REFUSED)]
            again = [s for s in todo if s in gone or isinstance(s.reply, AskError)]
            if gone:
                if repeats == 0:
                    break
                repeats -= 1
                time.sleep(_PAUSE_S)
                self._refresh()
            for step in again:
                self._redirect(step)
            if not again or not follow:
                break
            todo = again
        return steps

    def _step(self, args: tuple[Any, ...], options: dict[str, Any]) -> Step:
        key = options.pop("at", None)
        if key is None:
            at = 3 if args[0] in ("EVAL", "EVALSHA") else 1
            # What needs no key is about the clock: that of the node by which permits and pauses are timed.
            key = keys.WAITS if args[0] in _KEYLESS else args[at]
        return Step(args=args, options=options, slot=key_slot(encoded(key) if isinstance(key, str) else key))

    def _redirect(self, step: Step) -> None:
        step.node, step.asking = None, False
        told = step.reply
        if isinstance(told, MovedError):
            self._known().nodes_manager.move_slot(told)
        elif isinstance(told, AskError):
            step.node = self._known().get_node(host=told.host, port=told.port) or ClusterNode(told.host, told.port)
            step.asking = True

    def _round(self, steps: Sequence[Step], *, whole: bool, question: tuple[Any, ...] | None) -> None:
        """Send every node its part, then read what each says."""
        parts: dict[str, list[Step]] = {}
        for step in steps:
            try:
                step.node = step.node or self._node(step.slot)
            except RedisClusterException as error:
                step.reply = ClusterDownError(str(error))
                continue
            parts.setdefault(step.node.name, []).append(step)
        talks = [_Talk(self._client(_node_of(part)), part, whole=whole, question=question) for part in parts.values()]
        for talk in talks:
            talk.write()
        for talk in talks:
            talk.read()

    # -- who has what ---------------------------------------------------------------------------------

    def _known(self) -> redis.RedisCluster:
        """The client that knows the nodes; it asks for them when it is made."""
        with self._lock:
            if self._nodes is None:
                try:
                    self._nodes = redis.RedisCluster(
                        startup_nodes=[ClusterNode(host, port) for host, port in self._seeds],
                        # A slot that is nobody's is found out by whoever needs it.
                        require_full_coverage=False,
                        retry=Retry(NoBackoff(), 0),
                        **self._options,
                    )
                except RedisClusterException as error:
                    raise _as_of_one(error) from error
            return self._nodes

    def _refresh(self) -> None:
        try:
            self._known().nodes_manager.initialize()
        except RedisClusterException as error:
            raise _as_of_one(error) from error

    def _node(self, slot: int) -> ClusterNode:
        return self._known().nodes_manager.get_node_from_slot(slot)

    def _client(self, node: ClusterNode) -> redis.Redis:
        return self._known().get_redis_connection(node)


class ClusterPipeline(Pipeline):
    """Commands to be carried out together, as far as that goes on a cluster."""

    def __init__(self, cluster: ClusterRedis, *, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002  the client's signature
        return self._replies(self._send(), raise_on_error=raise_on_error)

    def execute_asking(self, *question: Any) -> list[tuple[Any, Any, str | None]]:
        """Carry the commands out and ask each server concerned one thing more. Of each command: its reply, that
        server's answer, and a key that server has. Errors are replies."""
        steps = self._send(question=question)
        return [(step.reply, step.told, "" if step.node is None else self._cluster.mark(step.node)) for step in steps]

    def execute_here(self) -> list[Any]:
        """Carry the commands out where their keys were said to be, and nowhere else; errors are replies."""
        return self._replies(self._send(follow=False), raise_on_error=False)

    def _send(self, **how: Any) -> list[Step]:
        commands, self.command_stack = self.command_stack, []
        return self._cluster.send(commands, whole=bool(self.transaction), **how) if commands else []

    def _replies(self, steps: Sequence[Step], *, raise_on_error: bool) -> list[Any]:
        for step in steps:
            if raise_on_error and isinstance(step.reply, Exception):
                raise step.reply
        return [step.reply for step in steps]

    def watch(self, *names: Any) -> None:
        raise RedisError(f"a pipeline of many nodes watches nothing: {names}")


class _Talk:
    """What one node is told in one round, on one connection, and what it says."""

    def __init__(
        self, client: redis.Redis, steps: list[Step], *, whole: bool, question: tuple[Any, ...] | None
    ) -> None:
        self._client = client
        self._steps = steps
        self._question = question
        self._whole = whole
        self._connection: Any = None

    def write(self) -> None:
        lines: list[tuple[Any, ...]] = []
        for together in self._together():
            if together[0].asking:
                lines.append(("ASKING",))
            lines += [("MULTI",)] if self._whole else []
            lines += [step.args for step in together]
            lines += [("EXEC",)] if self._whole else []
        if self._question is not None:
            lines.append(self._question)
        try:
            self._connection = self._client.connection_pool.get_connection()
            self._connection.send_packed_command(self._connection.pack_commands(lines))
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._end(error)

    def read(self) -> None:
        if self._connection is None:
            return
        try:
            for together in self._together():
                if together[0].asking:
                    self._reply("_", {})
                if self._whole:
                    self._read_whole(together)
                else:
                    together[0].reply = self._reply(together[0].args[0], together[0].options)
            told = None if self._question is None else self._reply(self._question[0], {})
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._end(error)
        except BaseException:
            # The rest of what was asked for is still on its way.
            self._end(redis.ConnectionError("interrupted"))
            raise
        else:
            for step in self._steps:
                step.told = told
            self._client.connection_pool.release(self._connection)

    def _together(self) -> list[list[Step]]:
        """Steps that are whole or not at all, in their order; each alone unless said otherwise."""
        if not self._whole:
            return [[step] for step in self._steps]
        groups: dict[int, list[Step]] = {}
        for step in self._steps:
            groups.setdefault(step.slot, []).append(step)
        return list(groups.values())

    def _read_whole(self, together: Sequence[Step]) -> None:
        self._reply("_", {})
        queued = [self._reply("_", {}) for _ in together]
        done = self._reply("_", {})
        refused = next((reply for reply in queued if isinstance(reply, Exception)), done)
        if isinstance(done, ExecAbortError | ResponseError):
            for step in together:
                step.reply = refused
            return
        for step, reply in zip(together, done, strict=True):
            callback = self._client.response_callbacks.get(step.args[0])
            step.reply = reply if callback is None or isinstance(reply, Exception) else callback(reply, **step.options)

    def _reply(self, name: str, options: dict[str, Any]) -> Any:
        try:
            return self._client.parse_response(self._connection, name, **options)
        except ResponseError as error:
            return error

    def _end(self, error: Exception) -> None:
        for step in self._steps:
            step.reply = error
        if self._connection is not None:
            self._connection.disconnect()
            self._client.connection_pool.release(self._connection)
            self._connection = None


def _node_of(part: Sequence[Step]) -> ClusterNode:
    node = part[0].node
    assert node is not None
    return node


def _as_of_one(error: RedisClusterException) -> Exception:
    """What one server's client would have raised. The cluster's has errors that are none of redis.RedisError."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _REFUSED):
            return cause
        if "mode is not enabled" in str(cause):
            return ResponseError("it is no cluster")
        cause = cause.__cause__
    return redis.ConnectionError(str(error))
