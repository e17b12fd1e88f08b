"""`askq up`, `worker`, `flower` and `local-api`: programs that stay in the foreground."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click

from askq.embedded.supervisor import Supervisor
from askq.errors import ConfigError
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.cli.workers import (
    FLOWER_USER,
    add_flower,
    add_workers,
    foreground,
    kept_running,
    require_free,
    require_hope,
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
        return _stay(session, parts, supervisor, flower, as_json=as_json)


@click.command("worker")
@json_option
@pass_session
def worker_command(session: Session, *, as_json: bool) -> int:
    """Keep workers running: started again when they end. Ctrl-C lets them finish their open calls."""
    with session.parts() as parts:
        _prepare(parts)
        supervisor = Supervisor()
        add_workers(supervisor, parts)
        return _stay(session, parts, supervisor, None, as_json=as_json)


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
        return _stay(session, parts, supervisor, flower, as_json=as_json)


def _prepare(parts: Parts) -> None:
    """Refuse to start on a Redis that would lose jobs, or with an API that does not answer."""
    parts.store(must_be_safe=True).close()
    parts.check_api()


@click.command("local-api")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 chooses a free one.")
@click.option("--engine", type=click.Choice(["tutor", "chat", "script"]), help="What answers.")
@click.option("--chat-url", metavar="URL", help="The chat-completions server behind the chat engine.")
@click.option("--chat-model", metavar="NAME", help="Its model.")
@click.option("--script", type=click.Path(dir_okay=False, path_type=Path), help="The script of the script engine.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Where it keeps its objects.")
@pass_session
def local_api_command(
    session: Session,
    *,
    port: int,
    engine: str | None,
    chat_url: str | None,
    chat_model: str | None,
    script: Path | None,
    data: Path | None,
) -> int:
    """Keep the local API running: runs, threads and background responses without OpenAI. Prints its address."""
    settings = session.settings
    chosen = engine or settings.local_engine
    if chosen == "chat" and not (chat_url or settings.chat_url):
        raise ConfigError("the chat engine needs a server", remedy="Give --chat-url or ASKQ_CHAT_URL.")
    if port:
        require_free(port, "the local API", "Choose another with --port.")
    argv = [sys.executable, "-m", "askq.localapi", "--host", "127.0.0.1", "--port", str(port), "--engine", chosen]
    folder = data or settings.home / "localapi-standalone"
    folder.mkdir(parents=True, exist_ok=True)
    argv += ["--data", str(folder)]
    for option, value in (
        ("--chat-url", chat_url or settings.chat_url),
        ("--chat-model", chat_model or settings.chat_model),
        ("--script", script or settings.script),
    ):
        if value is not None:
            argv += [option, str(value)]
    environment = os.environ | settings.child_environment()
    child = subprocess.Popen(argv, env=environment)
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait(10)


def _stay(
    session: Session, parts: Parts, supervisor: Supervisor, flower: tuple[str, str] | None, *, as_json: bool
) -> int:
    """Say what runs, and keep it running until Ctrl-C or SIGTERM."""
    for line in parts.lines():
        session.say(line)
    session.say(f"Logs: {parts.log_folder()}")
    if flower is not None:
        session.say(f"Flower: {flower[0]}  user {FLOWER_USER}  password {flower[1]}")
    try:
        with foreground(), kept_running(supervisor):
            session.say("ready; Ctrl-C ends it")
            if as_json:
                shown = None if flower is None else {"url": flower[0], "user": FLOWER_USER, "password": flower[1]}
                print_json({"parts": parts.lines(), "logs": str(parts.log_folder()), "flower": shown})
            while True:
                for text in supervisor.tick():
                    session.say(text)
                require_hope(supervisor)
                time.sleep(_TICK_S)
    except KeyboardInterrupt:
        session.say("ended")
        return 0
