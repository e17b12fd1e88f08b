"""`askq up`, `worker`, `flower` and `local-api`: programs that stay in the foreground."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from askq.embedded.supervisor import Supervisor
from askq.embedded.tether import module, tethered
from askq.errors import ConfigError, EmbeddedError, StoreUnreachable
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.cli.workers import (
    Flower,
    ToolsWorker,
    add_flower,
    add_workers,
    foreground,
    kept_running,
    require_free,
    require_hope,
    working,
)
from producer.parts import Parts

_TICK_S = 0.2

port_option = click.option("--port", type=click.IntRange(1, 65535), help="Flower's port. [default: 5555]")


@click.command("up")
@port_option
@click.option("--no-flower", is_flag=True, help="Without Flower.")
@json_option
@pass_session
def up_command(session: Session, *, port: int | None, no_flower: bool, as_json: bool) -> int:
    """Keep the whole local stack running: Redis, the API if there is no key, workers, Flower. Ctrl-C ends all of it."""
    with session.parts() as parts:
        _prepare(parts)
        supervisor = Supervisor()
        add_workers(supervisor, parts)
        flower = None if no_flower else add_flower(supervisor, parts, port or session.settings.flower_port)
        return _stay(session, parts, supervisor, flower, workers=session.settings.workers, as_json=as_json)


@click.command("worker")
@json_option
@pass_session
def worker_command(session: Session, *, as_json: bool) -> int:
    """Keep workers running: started again when they end. Ctrl-C lets them finish their open calls."""
    with session.parts() as parts:
        _prepare(parts)
        supervisor = Supervisor()
        add_workers(supervisor, parts)
        return _stay(session, parts, supervisor, None, workers=session.settings.workers, as_json=as_json)


@click.command("flower")
@port_option
@json_option
@pass_session
def flower_command(session: Session, *, port: int | None, as_json: bool) -> int:
    """Keep Flower running on 127.0.0.1, with a password."""
    with session.parts() as parts:
        parts.store().close()
        supervisor = Supervisor()
        flower = add_flower(supervisor, parts, port or session.settings.flower_port)
        return _stay(session, parts, supervisor, flower, workers=0, as_json=as_json)


def _prepare(parts: Parts) -> None:
    """Refuse to start on a Redis that would lose jobs, or with an API that does not answer."""
    parts.store(must_be_safe=True).close()
    parts.check_api()


@click.command("local-api")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 chooses a free one.")
@click.option("--engine", type=click.Choice(["tutor", "chat", "llama", "script"]), help="What answers.")
@click.option("--chat-url", metavar="URL", help="The chat-completions server behind the chat engine.")
@click.option("--chat-model", metavar="NAME", help="Its model.")
@click.option("--script", type=click.Path(dir_okay=False, path_type=Path), help="The script of the script engine.")
@click.option("--model-file", type=click.Path(dir_okay=False, path_type=Path), help="The llama engine's GGUF file.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Where it keeps its objects.")
@json_option
@pass_session
def local_api_command(
    session: Session,
    *,
    port: int,
    engine: str | None,
    chat_url: str | None,
    chat_model: str | None,
    script: Path | None,
    model_file: Path | None,
    data: Path | None,
    as_json: bool,
) -> int:
    """Keep the local API running: runs, threads and background responses without OpenAI. Prints its address."""
    settings = session.settings
    chosen = engine or settings.local_engine
    if chosen == "chat" and not (chat_url or settings.chat_url):
        raise ConfigError("the chat engine needs a server", remedy="Give --chat-url or ASKQ_CHAT_URL.")
    if chosen == "llama" and not (model_file or settings.llama_model):
        raise ConfigError("the llama engine needs a model", remedy="Give --model-file or ASKQ_LLAMA_MODEL.")
    if port:
        require_free(port, "the local API", "Choose another with --port.")
    folder = data or settings.home / "localapi-standalone"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"the local API cannot keep its data in {folder}: {error.strerror or error}",
            remedy="Name another folder with --data, or set ASKQ_HOME.",
        ) from error
    argv = [*module("askq.localapi"), "--host", "127.0.0.1", "--port", str(port), "--engine", chosen]
    argv += ["--data", str(folder)]
    for option, value in (
        ("--chat-url", chat_url or settings.chat_url),
        ("--chat-model", chat_model or settings.chat_model),
        ("--script", script or (settings.script if chosen == "script" else None)),
        ("--model-file", (model_file or settings.llama_model) if chosen == "llama" else model_file),
    ):
        if value is not None:
            argv += [option, str(value)]

    def ready(endpoint: dict[str, str]) -> None:
        session.say(f"Local API, {chosen} engine; data in {folder}; takes any key; Ctrl-C ends it")
        if as_json:
            print_json(endpoint)
        else:
            click.echo(endpoint["base_url"])

    return _attend(argv, os.environ | settings.child_environment(), ready)


def _attend(argv: list[str], environment: Mapping[str, str], ready: Callable[[dict[str, str]], None]) -> int:
    """Run a local API in the foreground; its exit code. It ends when we do, however that happens."""
    with foreground(), subprocess.Popen(tethered(argv), env=environment, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            if line := child.stdout.readline():
                ready(json.loads(line))
            return child.wait()
        except KeyboardInterrupt:
            child.terminate()
            return child.wait(10)


def _stay(
    session: Session,
    parts: Parts,
    supervisor: Supervisor,
    flower: Flower | None,
    *,
    workers: int,
    as_json: bool,
) -> int:
    """Say what runs, and keep it running until Ctrl-C or SIGTERM."""
    for line in parts.lines():
        session.say(line)
    session.say(f"Logs: {parts.log_folder()}")
    if flower is not None:
        session.say(f"Flower: {flower.url}  user {flower.user}  password {flower.password}")
    ready = False
    tools = ToolsWorker(supervisor, parts)
    try:
        with foreground(), kept_running(supervisor):
            session.say("starting …")
            while True:
                for text in [*parts.revive(), *supervisor.tick()]:
                    session.say(text)
                require_hope(supervisor)
                if workers:
                    tools.look()
                if not ready and _all_answer(parts, flower, workers):
                    ready = True
                    session.say("ready; Ctrl-C ends it")
                    if as_json:
                        print_json(_described(parts, flower))
                time.sleep(_TICK_S)
    except KeyboardInterrupt:
        # A terminal has written ^C.
        session.say("\nended" if sys.stderr.isatty() else "ended")
        return 0
    finally:
        tools.close()


def _all_answer(parts: Parts, flower: Flower | None, workers: int) -> bool:
    """Whether every child does what it is there for, and not only runs."""
    try:
        return (workers == 0 or working(parts) >= workers) and (flower is None or flower.answers())
    except StoreUnreachable:
        return False


def _described(parts: Parts, flower: Flower | None) -> dict[str, object]:
    shown = None if flower is None else {"url": flower.url, "user": flower.user, "password": flower.password}
    return {"parts": parts.lines(), "logs": str(parts.log_folder()), "flower": shown}
