"""The real client over real sockets: what was sent when a connection fails, time-outs, and how many calls fit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest
from openai import AsyncOpenAI

from tests.unit.protocols_stage import ask
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Ambiguous, Blocked, CallError, Limited
from worker.protocols.client import open_client
from worker.protocols.responses import ResponsesProtocol

TIMEOUT_S = 0.3
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
BODY = b'{"id": "resp_1", "status": "queued"}'

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server of a few lines that counts what reaches it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.requests = 0
        self.open = 0
        self.most = 0
        self.port = 0
        self._behaviour = behaviour
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await self._behaviour(reader, writer)
        finally:
            self.open -= 1
            writer.close()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its base URL, while it serves."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{self.port}/v1"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()


def client_of(base_url: str, *, in_flight: int = 5, timeout_s: float = TIMEOUT_S) -> AsyncOpenAI:
    return open_client(
        api_key="some-key",
        base_url=base_url,
        organization=None,
        project=None,
        timeout_s=timeout_s,
        in_flight=in_flight,
    )


async def failure(client: AsyncOpenAI) -> CallError:
    with pytest.raises(CallError) as raised:
        # The other protocol looks at the list of models first.
        await AssistantsProtocol(client).start(ask(), "thread_1", "asst_1")
    return raised.value


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def cut_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK % 1000 + BODY)
    await writer.drain()


async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello there\r\n\r\n")
    await writer.drain()


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(OK % 1000)
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (hang_up, "no_reply"),
        (reset, "no_reply"),
        (hang, "no_reply"),
        (cut_body, "no_reply"),
        (no_http, "unreadable"),
    ],
)
async def test_once_sent_a_create_may_have_happened(behaviour: Behaviour, code: str) -> None:
    peer = Peer(behaviour)
    async with peer.serving() as url, client_of(url) as client:
        error = await failure(client)
    assert (type(error), error.code) == (Ambiguous, code)
    assert peer.requests == 1, "the SDK repeats nothing"


async def test_a_reply_that_trickles_ends_all_the_same() -> None:
    peer = Peer(trickle)
    async with peer.serving() as url, client_of(url) as client:
        hurried = client.with_options(timeout=httpx2.Timeout(TIMEOUT_S, pool=0.1))
        error = await failure(hurried)
    assert (type(error), error.code) == (Ambiguous, "timeout")
    assert error.message == "the reply did not end in the time a call may take"


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as bound:
        # Bound and not listening: no other program can take the port meanwhile.
        bound.bind(("127.0.0.1", 0))
        async with client_of(f"http://127.0.0.1:{bound.getsockname()[1]}/v1") as client:
            error = await failure(client)
    assert (type(error), error.code) == (Limited, "unreachable")
    assert error.message.startswith("no connection could be made: Cannot connect to host 127.0.0.1:")
    assert error.retry_after is None


async def test_a_name_nobody_knows_means_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with client_of("http://no-such-host.invalid/v1") as client:
        error = await failure(client)
    assert (type(error), error.code) == (Limited, "unreachable")


async def test_without_a_common_tls_nothing_was_sent() -> None:
    def answer_without_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer_without_tls, "127.0.0.1", 0)
    async with server, client_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as client:
        error = await failure(client)
    assert (type(error), error.code) == (Limited, "unreachable")


async def test_a_full_queue_of_connections_means_nothing_was_sent() -> None:
    with contextlib.ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        async with client_of(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1") as client:
            error = await failure(client.with_options(timeout=httpx2.Timeout(TIMEOUT_S, pool=5.0)))
    assert (type(error), error.code) == (Limited, "unreachable")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "127.0.0.1:80/v1"])
async def test_an_address_that_is_none_blocks_the_account(url: str) -> None:
    async with client_of(url) as client:
        error = await failure(client)
    assert (type(error), error.code) == (Blocked, "bad_address")
    assert error.message.startswith("the base URL cannot be used: ")


async def test_as_many_calls_are_open_at_once_as_are_asked_for() -> None:
    most = 130  # more than the hundred connections that aiohttp allows by itself
    everybody = asyncio.Event()

    async def answer_all_together(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if peer.open == most:
            everybody.set()
        await everybody.wait()
        writer.write(OK % len(BODY) + BODY)
        await writer.drain()

    peer = Peer(answer_all_together)
    async with peer.serving() as url, client_of(url, in_flight=most, timeout_s=20) as client:
        protocol = ResponsesProtocol(client)
        replies = await asyncio.gather(*(protocol.poll("conv_1", "resp_1") for _ in range(most)))
    assert {reply.raw for reply in replies} == {"queued"}
    assert peer.most == most


async def test_the_client_repeats_nothing_and_forgets_idle_connections_early() -> None:
    async with client_of("http://127.0.0.1:1/v1") as client:
        assert client.max_retries == 0
        timeout = client.timeout
        assert isinstance(timeout, httpx2.Timeout)
        assert (timeout.connect, timeout.read, timeout.pool) == (5.0, TIMEOUT_S, 10.0)
        # What the transport makes of the limits is the SDK's own: seen on a connection that is used twice.
    accepted = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.write(OK % len(BODY) + BODY)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK % len(BODY) + BODY)
        await writer.drain()

    peer = Peer(count)
    async with peer.serving() as url, client_of(url, timeout_s=5) as client:
        protocol = ResponsesProtocol(client)
        for _ in range(2):
            assert (await protocol.poll("conv_1", "resp_1")).raw == "queued"
    assert accepted == 1
