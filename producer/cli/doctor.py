"""`askq doctor`: is everything in order?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from askq.assistants import file as assistants
from askq.errors import AskqError, EmbeddedError, StoreError, StoreFull
from askq.jobs.audit import LastAudit
from askq.jobs.health import Health
from askq.jobs.store import Store
from producer.answers.plain import plain
from producer.cli.shared import Session, json_option, pass_session, print_json
from producer.parts import Parts
from producer.progress import duration

_MARKS = {True: "ok", False: "WRONG", None: "note"}


@click.command("doctor")
@json_option
@pass_session
def doctor_command(session: Session, *, as_json: bool) -> int:
    """See whether everything is in order; exit 1 when something is wrong."""
    checks: list[dict[str, Any]] = []

    def add(what: str, look: Callable[[], tuple[bool | None, str]]) -> None:
        try:
            ok, told = look()
        except AskqError as error:
            ok, told = False, str(error)
        checks.append({"check": what, "ok": ok, "message": told})

    with session.parts() as parts:
        add("settings", lambda: (True, f"data in {session.settings.home}"))
        add("files", lambda: _files(parts))
        add("redis", lambda: _redis(parts))
        add("key", lambda: _key(parts))
        add("api", lambda: _api(parts))
        for what, look in (("workers", _workers), ("audit", _audit)):
            add(what, partial(_of_the_store, parts, look))
        add("assistants", lambda: _assistants(session))
    if as_json:
        print_json(checks)
    else:
        for entry in checks:
            first, *more = plain(entry["message"]).splitlines()
            click.echo(f"{_MARKS[entry['ok']]:<6}{entry['check']:<12}{first}")
            for line in more:
                click.echo(f"{'':<18}{line}")
    return 1 if any(entry["ok"] is False for entry in checks) else 0


def _files(parts: Parts) -> tuple[bool | None, str]:
    folder = parts.files()
    try:
        with folder.incoming() as file:
            file.write(b"askq doctor")
    except OSError as error:
        return False, f"{folder.root} cannot be written: {error.strerror or error}; set ASKQ_FILES to a folder of yours"
    return True, f"kept in {folder.root}; producers and workers must share it"


def _redis(parts: Parts) -> tuple[bool | None, str]:
    store = parts.store()
    try:
        health = store.health()
    finally:
        store.close()
    settings = parts.settings
    where = "REDIS_URL" if settings.redis_url is not None else "embedded"
    most = f" of {health.max_memory / 2**20:.0f} MB" if health.max_memory else ""
    told = f"{health.version} ({where}), {health.used_memory / 2**20:.1f} MB{most} used, "
    each = "".join(f"\n{_server(one)}" for one in health.servers)
    if health.danger is not None:
        risk = health.danger + "; set `appendonly yes` and `maxmemory-policy noeviction`"
        return (None if settings.allow_unsafe_redis else False), told + risk + each
    try:
        health.require_room()
    except StoreFull as error:
        return False, f"{told}{error.message}{each}"
    if health.replicas < settings.redis_replicas:
        return False, told + (
            f"but ASKQ_REDIS_REPLICAS is {settings.redis_replicas}, and a primary has {health.replicas} replicas: "
            f"nothing is paid for until they are there{each}"
        )
    if not health.confirms:
        return None, told + (
            "append-only file on, evicts nothing, but cannot say what is on its disk: after a power cut a question\n"
            f"asked in the last second may be paid for again. Use `appendfsync always`, or Redis 8{each}"
        )
    if health.servers and not settings.redis_replicas:
        return None, told + (
            "append-only files on, evicts nothing, but a replica that takes over may lack the last writes: a\n"
            f"question asked in them may be paid for again. Set ASKQ_REDIS_REPLICAS=1 where each has a replica{each}"
        )
    return True, told + f"append-only file on, evicts nothing, says what is on its disk{each}"


def _server(one: Health) -> str:
    """One of several servers, in a line."""
    role = "replica" if one.replica else f"primary, {one.replicas} replicas"
    confirms = "says what is on its disk" if one.confirms else "cannot say what is on its disk"
    return f"{one.name} ({role}): {one.version}, {one.danger or 'safe'}, {confirms}"


def _key(parts: Parts) -> tuple[bool | None, str]:
    if parts.settings.api_key is None and parts.settings.base_url is not None:
        return False, "none"
    if parts.settings.api_key is None:
        return None, "none: the embedded local API answers. Set OPENAI_API_KEY to ask OpenAI."
    source = parts.settings.sources["api_key"]
    if (exposed := _readable_by_others(source)) is not None:
        return None, f"present, from {source}, which other users of this machine may read; chmod 600 {exposed}"
    return True, f"present, from {source}"


def _readable_by_others(source: str) -> Path | None:
    """The file that a key comes from, by what the settings say of it, if others than its owner may read it."""
    # A file named by a setting is told with where that setting comes from.
    path = Path(source.partition(" (")[0])
    try:
        return path if path.is_file() and path.stat().st_mode & 0o077 else None
    except OSError:
        return None


def _api(parts: Parts) -> tuple[bool | None, str]:
    parts.check_api()
    return True, f"{parts.api().shown} answers"


def _of_the_store(parts: Parts, look: Callable[[Store], tuple[bool | None, str]]) -> tuple[bool | None, str]:
    """What needs Redis. Why that is not there was said before."""
    try:
        store = parts.store()
        try:
            return look(store)
        finally:
            store.close()
    except (StoreError, EmbeddedError):
        return None, "unknown: Redis is not there to ask"


def _workers(store: Store) -> tuple[bool | None, str]:
    nodes = store.nodes()
    if not nodes:
        return None, "none is running: `askq run` brings its own, `askq up` and `askq worker` keep some"
    return True, ", ".join(f"{node.name} ({node.processes} processes)" for node in nodes)


def _audit(store: Store) -> tuple[bool | None, str]:
    last, now = LastAudit.read(store.books().last()), store.now()
    if last is None:
        return None, "no worker has audited the store yet; `askq sweep` does it now"
    told = f"{duration(max(0.0, now - last.finished_at))} ago by {plain(last.by, one_line=True)}: "
    parts_told = [
        f"{what} {', '.join(f'{code} ({count})' for code, count in sorted(pile.items()))}"
        for what, pile in (("to look at:", last.remaining), ("repaired:", last.repaired), ("noted:", last.noted))
        if pile
    ]
    told += "; ".join(parts_told) or "everything in order"
    return not last.remaining, told + ("; `askq sweep` says what to do" if last.remaining else "")


def _assistants(session: Session) -> tuple[bool | None, str]:
    folder = session.settings.assistants_dir
    wrong = [str(problem) for name in assistants.names(folder) for problem in assistants.check(_find(folder, name))]
    if wrong:
        return False, "; ".join(wrong)
    found = ", ".join(assistants.names(folder))
    if session.settings.sources["assistants_dir"] != "default" and not folder.is_dir():
        return False, f"ASKQ_ASSISTANTS_DIR is {folder}, which is no folder; without it there are {found}"
    return True, found


def _find(folder: Any, name: str) -> Any:
    return assistants.find(name, folder=folder)
