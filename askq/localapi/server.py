"""Running the application: socket, ready message, endpoint file, signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from askq.localapi.api import Api
from askq.localapi.app import API, create_app
from askq.localapi.engines.script_file import Script
from askq.localapi.errors import LocalApiError
from askq.localapi.options import Options

SHUTDOWN_S = 1.0
"""How long requests that are being answered may go on after the end was asked for."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready."""

    base_url: str
    """What to give an OpenAI client: ends in `/v1`."""
    api: Api

    @property
    def admin_url(self) -> str:
        """Where `ledger`, `stats`, `faults` and `health` are: ends in `/_askq`."""
        return f"{self.base_url.removesuffix('/v1')}/_askq"


@contextlib.asynccontextmanager
async def running(options: Options, *, script: Script | None = None) -> AsyncIterator[Server]:
    """A server for the time of the context; raises LocalApiError when it cannot be started."""
    app = create_app(options, script=script)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        try:
            await site.start()
        except (OSError, OverflowError) as exc:
            reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc).rstrip(".")
            raise LocalApiError(
                f"The local API cannot listen on {options.host} port {options.port}: {reason}. Choose another port, "
                "or 0 for any free one."
            ) from exc
        yield Server(f"http://{_authority(options.host, runner)}/v1", app[API])
    finally:
        await runner.cleanup()


def _authority(host: str, runner: web.AppRunner) -> str:
    port = runner.addresses[0][1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(options: Options, *, ready: Callable[[Server], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT (or, if asked for, the end of standard input).

    `ready` is called once, when requests are accepted and the endpoint file is written. Raises LocalApiError.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with _signals(loop, stop):
        async with running(options) as server:
            with _endpoint(options.endpoint_file, server.base_url):
                if ready is not None:
                    ready(server)
                if options.exit_with_stdin:
                    _watch_stdin(loop, stop)
                await stop.wait()


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Not every loop can (Windows); there Ctrl-C still ends the process.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _endpoint(path: Path | None, base_url: str) -> Iterator[None]:
    """The endpoint file while the server runs: written whole or not at all, removed if it is still ours."""
    if path is None:
        yield
        return
    text = endpoint_json(base_url)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{text}\n")
        draft.replace(path)
    except OSError as exc:
        raise LocalApiError(
            f"The endpoint file {path} cannot be written: {exc.strerror}. Name another with --endpoint-file."
        ) from exc
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text().strip() == text:
                path.unlink()


def endpoint_json(base_url: str) -> str:
    """The line that is printed when ready, and the content of the endpoint file."""
    return json.dumps({"base_url": base_url})


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` at the end of standard input. A thread, because a loop cannot watch every kind of it."""

    def read_to_the_end() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended by itself
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=read_to_the_end, name="localapi-stdin", daemon=True).start()
