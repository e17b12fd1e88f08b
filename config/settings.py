"""What a process is told, read once at the edge into one frozen value.

Environment over `.env` over default. Nothing else in askq reads the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from dotenv.parser import Binding


class SettingsError(ValueError):
    """Settings that cannot be used; `problems` names every one of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Secret:
    """A text that shows itself only when asked."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    def __str__(self) -> str:
        return "…"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class ChildEnvironment(dict[str, str]):
    """Variables for a process started by us. It shows their names only, because values are secret."""

    def __repr__(self) -> str:
        return f"ChildEnvironment({', '.join(self)})"

    __str__ = __repr__


def _setting(variable: str, read: Callable[[str], Any], default: Any, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"variable": variable, "read": read, "secret": secret})


def _number(low: float, high: float, *, whole: bool = True) -> Callable[[str], Any]:
    def read(text: str) -> float:
        value = int(text) if whole else float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    read.__doc__ = f"a {'whole ' if whole else ''}number from {low:g} to {high:g}"
    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    read.__doc__ = f"one of {', '.join(words)}"
    return read


def _truth(text: str) -> bool:
    """true or false"""
    return {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}[
        text.lower()
    ]


def _text(text: str) -> str:
    """a text"""
    return text


def _key(text: str) -> Secret:
    """a key: one word of ASCII letters, digits and signs"""
    # It becomes an HTTP header: anything else fails at the first call, far from its cause.
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return Secret(text)


def _password(text: str) -> Secret:
    """a password without commas: to Flower they end it, and what follows is another user"""
    if "," in text:
        raise ValueError
    return Secret(text)


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        parts = urlsplit(text)
        # Reading the port raises ValueError for one that is none. `redis://` alone is this machine; `https://` nothing.
        if parts.scheme not in schemes or "://" not in text or parts.port == 0:
            raise ValueError
        # urlsplit drops line breaks without a word, and a blank breaks the request line.
        if not text.isprintable() or " " in text or (parts.scheme in ("http", "https") and not parts.hostname):
            raise ValueError
        return text

    read.__doc__ = "a valid address that begins with " + " or ".join(f"{scheme}://" for scheme in schemes)
    return read


def _redis(text: str) -> str:
    """a valid address that begins with redis://, redis+sentinel:// or redis+cluster:// (rediss… with TLS)"""
    scheme, separator, rest = text.partition("://")
    base, plus, kind = scheme.partition("+")
    if not plus:
        return _url("redis", "rediss")(text)
    place, _, path = rest.partition("?")[0].partition("/")
    hosts = place.rpartition("@")[2].split(",")
    if base not in ("redis", "rediss") or not separator or not text.isprintable() or " " in text:
        raise ValueError
    if any(not (node := urlsplit(f"//{host}")).hostname or node.port == 0 for host in hosts):
        raise ValueError
    if kind == "cluster" and path in ("", "0"):
        return text
    service, _, database = path.partition("/")
    if kind != "sentinel" or not service or (database and not database.isdecimal()):
        raise ValueError
    return text


def _broker(text: str) -> str:
    """a broker's address: what Celery takes (not a Redis Cluster), or redis+sentinel://host,host/service"""
    scheme = text.partition("://")[0]
    if scheme.endswith("+cluster"):
        raise ValueError
    return _redis(text) if scheme.endswith("+sentinel") else text


def _path(text: str) -> Path:
    """a path"""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # `~somebody` whom this machine does not know
        raise ValueError from error


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Everything a process is told. Each name carries its unit. It shows no secret, passwords in addresses included."""

    redis_url: str | None = _setting("REDIS_URL", _redis, None)
    """Where jobs live; an embedded Redis without it, because the first run must need nothing."""
    redis_replicas: int = _setting("ASKQ_REDIS_REPLICAS", _number(0, 10), 0)
    """Replicas that must have a promise on disk, too, before it is given: none, because most have none."""
    broker_url: str | None = _setting("CELERY_BROKER_URL", _broker, None)
    """Celery's broker; the same Redis without it, because hints are few."""
    api_key: Secret | None = _setting("OPENAI_API_KEY", _key, None, secret=True)
    """The account's key (or OPENAI_API_KEY_FILE); the local API answers without it."""
    base_url: str | None = _setting("OPENAI_BASE_URL", _url("http", "https"), None)
    """Another server that speaks the protocol; api.openai.com without it."""
    allow_plain_http: bool = _setting("ASKQ_ALLOW_PLAIN_HTTP", _truth, False)
    """Call an API on another machine over http://, where everybody on the way reads key, questions and answers: never
    by accident."""
    organization: str | None = _setting("OPENAI_ORG_ID", _text, None)
    """Sent with every call, where an account belongs to several organizations."""
    project: str | None = _setting("OPENAI_PROJECT_ID", _text, None)
    """Sent with every call, because limits and bills are per project."""
    home: Path = _setting("ASKQ_HOME", _path, Path(".askq"))
    """Where embedded parts keep their data: beside the lists, so that folders do not mix."""
    files: Path | None = _setting("ASKQ_FILES", _path, None)
    """Where attached files and those that runs make are kept, for producers and workers alike; without it in
    ASKQ_HOME."""
    max_output_files: int = _setting("ASKQ_MAX_OUTPUT_FILES", _number(0, 1000), 20)
    """Files of one answer that are downloaded: a run that writes thousands is a mistake."""
    max_output_file_bytes: int = _setting("ASKQ_MAX_OUTPUT_FILE_BYTES", _number(1, 512 << 20), 100 << 20)
    """The largest file of an answer that is downloaded."""
    max_output_bytes: int = _setting("ASKQ_MAX_OUTPUT_BYTES", _number(1, 10 << 30), 500 << 20)
    """All files of one answer together."""
    assistants_dir: Path = _setting("ASKQ_ASSISTANTS_DIR", _path, Path("assistants"))
    """Where assistant files are looked for before those that came with askq: a project's own, beside its lists."""
    assistant: str = _setting("ASKQ_ASSISTANT", _text, "tutor")
    """Who answers where nobody is named: the one that shows what a run can do."""
    protocol: Literal["responses", "assistants"] = _setting(
        "ASKQ_PROTOCOL", _one_of("responses", "assistants"), "responses"
    )
    """For assistant files that do not say; OpenAI switched the other one off on 2026-08-26."""
    model: str = _setting("ASKQ_MODEL", _text, "gpt-5.4-mini")
    """For assistant files that do not say: cheap enough for a long list, and not about to be shut down."""
    workers: int = _setting("ASKQ_WORKERS", _number(1, 64), 1)
    """Celery workers `run` and `up` start; one fills two cores."""
    concurrency: int = _setting("ASKQ_CONCURRENCY", _number(1, 256), 2)
    """Pool processes per worker: at least two, so that creating and polling go side by side."""
    tool_processes: int = _setting("ASKQ_TOOL_PROCESSES", _number(0, 256), 2)
    """Processes that run functions of assistants, in a worker of their own that starts when there is something to run;
    0 leaves them to workers on other machines."""
    tool_timeout_s: float = _setting("ASKQ_TOOL_TIMEOUT_S", _number(0.1, 86_400, whole=False), 60.0)
    """How long a function call may take, where its `@tool` does not say: a run waits about ten minutes for outputs."""
    tool_memory_mb: int = _setting("ASKQ_TOOL_MEMORY_MB", _number(0, 1_048_576), 2048)
    """How much address space a process that runs functions may use; 0 = no limit."""
    tools_dir: Path | None = _setting("ASKQ_TOOLS_DIR", _path, None)
    """Where else modules with functions are looked for, on a machine whose folders are not the submitter's."""
    in_flight: int = _setting("ASKQ_IN_FLIGHT", _number(1, 5000), 200)
    """Calls one process has open at once; more only lengthen each other."""
    lease_s: float = _setting("ASKQ_LEASE_S", _number(1, 300, whole=False), 5.0)
    """How long a claim lasts without renewal: what a killed worker's jobs wait."""
    slice_s: float = _setting("ASKQ_SLICE_S", _number(0.1, 30, whole=False), 2.0)
    """How long a chain works before it re-schedules itself; shorter makes more messages."""
    tick_s: float = _setting("ASKQ_TICK_S", _number(0.1, 10, whole=False), 0.5)
    """How often a worker's timer looks for due work: what a new list waits at most."""
    call_timeout_s: float = _setting("ASKQ_CALL_TIMEOUT_S", _number(1, 600, whole=False), 30.0)
    """How long one call may take; creates answer within seconds, and a lost reply is looked for."""
    probe_s: float = _setting("ASKQ_PROBE_S", _number(1, 3600, whole=False), 30.0)
    """How often a paused account is tried with one call: soon enough for a person, rare enough for the service."""
    results_days: int = _setting("ASKQ_RESULTS_DAYS", _number(1, 3650), 30)
    """How long finished jobs stay in Redis: as long as OpenAI keeps responses."""
    max_rows: int = _setting("ASKQ_MAX_ROWS", _number(1, 100_000_000), 1_000_000)
    """The longest list taken: a guard against the wrong file."""
    max_question_bytes: int = _setting("ASKQ_MAX_QUESTION_BYTES", _number(1, 16 * 1024 * 1024), 256 * 1024)
    """The longest question taken: about what models read."""
    local_engine: Literal["tutor", "chat", "llama", "script"] = _setting(
        "ASKQ_LOCAL_ENGINE", _one_of("tutor", "chat", "llama", "script"), "tutor"
    )
    """What answers behind the local API: `tutor` computes by itself, the others need a server, a model or a script."""
    chat_url: str | None = _setting("ASKQ_CHAT_URL", _url("http", "https"), None)
    """The chat-completions server behind the `chat` engine: nothing says where one might run."""
    chat_model: str | None = _setting("ASKQ_CHAT_MODEL", _text, None)
    """Its model; the assistant's without it."""
    chat_api_key: Secret | None = _setting("ASKQ_CHAT_API_KEY", _key, None, secret=True)
    """The chat server's key, where it wants one."""
    llama_model: Path | None = _setting("ASKQ_LLAMA_MODEL", _path, None)
    """The GGUF file of the `llama` engine: askq brings no model."""
    script: Path | None = _setting("ASKQ_SCRIPT", _path, None)
    """The script of the `script` engine, which answers nothing by itself."""
    flower_port: int = _setting("ASKQ_FLOWER_PORT", _number(1, 65535), 5555)
    """Where Flower listens, on 127.0.0.1."""
    flower_password: Secret | None = _setting("ASKQ_FLOWER_PASSWORD", _password, None, secret=True)
    """For user `askq`; made anew at each start without it."""
    show_text: bool = _setting("ASKQ_SHOW_TEXT", _truth, True)
    """Whether Flower shows questions and answers: readable unless they are nobody else's business."""
    heartbeat_file: Path | None = _setting("ASKQ_HEARTBEAT_FILE", _path, None)
    """A file the worker touches while it is well, for a container's health check."""
    allow_unsafe_redis: bool = _setting("ASKQ_ALLOW_UNSAFE_REDIS", _truth, False)
    """Work on a Redis that may lose jobs: never by accident."""
    root: Literal["warn", "refuse", "allow"] = _setting("ASKQ_ROOT", _one_of("warn", "refuse", "allow"), "warn")
    """What a worker does that root has started. A warning, because in many containers there is nobody else."""
    log_level: str = _setting("ASKQ_LOG_LEVEL", _one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    """How much workers tell: a line per event that matters, none per poll."""
    embedded_redis: Path | None = _setting("ASKQ_EMBEDDED_REDIS", _path, None)
    """The server binary to embed, instead of searching for one."""

    failpoints: str | None = _setting("ASKQ_FAILPOINTS", _text, None)
    """Places where a process is to die, for tests of askq itself (`askq/failpoints.py` has the names)."""
    failpoints_seed: int | None = _setting("ASKQ_FAILPOINTS_SEED", _number(0, 2**63 - 1), None)
    """Makes what each process draws there repeatable."""
    failpoints_log: Path | None = _setting("ASKQ_FAILPOINTS_LOG", _path, None)
    """A file that gets a line before each of these deaths."""

    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each value came from: field name → environment, a path, or default."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{spec.name}={_shown(getattr(self, spec.name))}' for spec in _SPECS.values())})"

    @property
    def files_dir(self) -> Path:
        """The folder of files."""
        return self.home / "files" if self.files is None else self.files

    def child_environment(self) -> ChildEnvironment:
        """The variables by which a process started by us gets exactly these settings, secrets included."""
        given = ChildEnvironment()
        for spec in _SPECS.values():
            value = getattr(self, spec.name)
            if isinstance(value, Secret):
                given[spec.metadata["variable"]] = value.reveal()
            elif value is not None:
                given[spec.metadata["variable"]] = str(value)
        return given


_SPECS = {spec.metadata["variable"]: spec for spec in dataclasses.fields(Settings) if "variable" in spec.metadata}
VARIABLES = (*_SPECS, "OPENAI_API_KEY_FILE")
"""Every variable askq reads."""


def load(environ: Mapping[str, str] | None = None, *, folder: Path | None = None) -> Settings:
    """The settings of this process. Raises SettingsError naming everything that is wrong.

    `.env` is looked for in `folder` (the current one) and upward; `os.environ` is not changed.
    """
    environment = os.environ if environ is None else environ
    told, problems = _dotenv(Path.cwd() if folder is None else folder)
    told |= {name: (value.strip(), _ENVIRONMENT) for name, value in environment.items() if value.strip()}
    problems += [problem for name, (_, source) in told.items() if (problem := _unknown(name, source)) is not None]
    problems += _key_from_file(told)

    chosen: dict[str, Any] = {}
    sources = {spec.name: "default" for spec in _SPECS.values()}
    for variable, spec in _SPECS.items():
        if variable not in told:
            continue
        text, source = told[variable]
        try:
            chosen[spec.name] = spec.metadata["read"](text)
            sources[spec.name] = source
        except (ValueError, KeyError):
            allowed = spec.metadata["read"].__doc__
            shown = "…" if spec.metadata["secret"] else _clipped(without_secrets(text))
            problems.append(f"{variable}={shown} (from {source}) is not {allowed}")
    if "+cluster://" in chosen.get("redis_url", "") and "CELERY_BROKER_URL" not in told:
        problems.append(
            "CELERY_BROKER_URL is not set, and REDIS_URL is a Redis Cluster, which Celery cannot use as its broker; "
            "name a single Redis, one behind Sentinel, or RabbitMQ (amqp://…): it carries hints only"
        )
    if "base_url" in chosen and not chosen.get("allow_plain_http") and _is_plain(chosen["base_url"]):
        told_url = _clipped(without_secrets(chosen["base_url"]))
        problems.append(
            f"OPENAI_BASE_URL={told_url} (from {sources['base_url']}) would send key and questions unencrypted to "
            "another machine; use https://, or set ASKQ_ALLOW_PLAIN_HTTP=1 where everybody on the way may read them"
        )
    if problems:
        raise SettingsError(problems)
    return Settings(**chosen, sources=sources)


_Told = dict[str, tuple[str, str]]
"""Variable → its text, which is never empty, and where that comes from."""

_ENVIRONMENT = "environment"


def _dotenv(folder: Path) -> tuple[_Told, list[str]]:
    """What the nearest `.env` of this folder or above says, and why it cannot be read."""
    start = folder.resolve()
    found = next((place / ".env" for place in (start, *start.parents) if _is_there(place / ".env")), None)
    if found is None:
        return {}, []
    # Here, because commands are to start fast, and often there is no such file.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        # Editors of Windows begin a file with a mark that would become part of the first name.
        lines = list(parse_stream(io.StringIO(found.read_text("utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{found} cannot be read: {_reason(error)}"]
    whole = "".join(line.original.string for line in lines if not line.error)
    values = dotenv_values(stream=io.StringIO(whole))
    told = {name: (value.strip(), str(found)) for name, value in values.items() if value and value.strip()}
    return told, [problem for line in lines if (problem := _broken(found, line)) is not None]


def _is_there(file: Path) -> bool:
    try:
        return file.exists() and not file.is_dir()
    except OSError:  # a folder above that may not be searched: its file is not meant for us
        return False


def _broken(file: Path, line: Binding) -> str | None:
    """What is wrong with a line python-dotenv skips, where it would have set something of ours."""
    text = line.original.string
    named = re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)", text) if line.error else None
    if named is None or not (named[1] in VARIABLES or named[1].startswith("ASKQ_")):
        return None
    number = line.original.line + text[: named.start(1)].count("\n")
    return f"{file}:{number}: {named[1]} is not set; write {named[1]}=value, and close what is quoted"


def _key_from_file(told: _Told) -> list[str]:
    """Fill in OPENAI_API_KEY from OPENAI_API_KEY_FILE where that counts; what is wrong with the file."""
    if "OPENAI_API_KEY_FILE" not in told:
        return []
    name, source = told["OPENAI_API_KEY_FILE"]
    # Side by side the key itself is stronger, but a file named in the environment is stronger than a key in `.env`.
    if "OPENAI_API_KEY" in told and (source != _ENVIRONMENT or told["OPENAI_API_KEY"][1] == _ENVIRONMENT):
        return []
    told.pop("OPENAI_API_KEY", None)
    try:
        text = Path(name).expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        if name.startswith("sk-"):
            return [f"OPENAI_API_KEY_FILE=… (from {source}) is a key, not a file that holds one; set OPENAI_API_KEY"]
        return [f"OPENAI_API_KEY_FILE={name} (from {source}) cannot be read: {_reason(error)}"]
    if not text:
        return [f"OPENAI_API_KEY_FILE={name} (from {source}) is empty"]
    told["OPENAI_API_KEY"] = (text, f"{name} ({source})")
    return []


def _is_plain(address: str) -> bool:
    """Whether what is sent there leaves this machine unencrypted."""
    # Here, because commands are to start fast, and most addresses are of the other kind.
    from ipaddress import ip_address

    parts = urlsplit(address)
    host = (parts.hostname or "").rstrip(".")
    try:
        ip = ip_address(host)
        # Servers print 0.0.0.0 as their own address: called there, it is this machine.
        here = ip.is_loopback or ip.is_unspecified
    except ValueError:
        here = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not here


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _shown(value: object) -> str:
    return repr(without_secrets(value)) if isinstance(value, str) else repr(value)


def _clipped(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:99]}…"


def without_secrets(text: str) -> str:
    """An address, perhaps a mistyped one, without its parameters that are secret and without what stands before `@`."""
    text = re.sub(r"(?i)([?&]\w*(?:pass|pwd|secret|token|key)\w*=)[^&#]*", r"\1…", text)
    return re.sub(r"(?s)^([a-z][a-z0-9+.-]*:/+)?.*@", r"\1…@", text)


def _unknown(name: str, source: str) -> str | None:
    if not name.startswith("ASKQ_") or name in VARIABLES:
        return None
    near = difflib.get_close_matches(name, VARIABLES, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; .env.example lists all of them"
    return f"{name} (from {source}) is not a setting of askq{hint}"
