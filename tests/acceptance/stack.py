"""Real parts for tests: a Redis server, the local API and workers, each a process that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from askq.assistants.model import Assistant
from askq.jobs.model import BatchStatus, Job, NewBatch, NewJob, Question
from askq.jobs.redis_store import RedisStore
from tests.acceptance.processes import children
from tests.parts import answers_redis, eventually, free_port, redis_binary

ROOT = Path(__file__).parents[2]
READY_S = 60.0
_PAUSE_S = 0.3
"""Between the end of a process and its next start."""


class Process:
    """A child process with a log, that can be started again after it was killed."""

    def __init__(self, name: str, argv: list[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.argv = argv
        self.log = log
        self.env = env
        self.outlives_file_limits = False
        """Whether a write beyond RLIMIT_FSIZE fails, as on a full disk, instead of ending the process."""
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                self.argv,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=ROOT,
                start_new_session=True,
                # Python ignores SIGXFSZ, and a child that gets no default back ignores it too.
                restore_signals=not self.outlives_file_limits,
            )

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.poll() is None

    def kill(self, how: signal.Signals = signal.SIGKILL, *, group: bool = True, seconds: float = 30.0) -> None:
        """Send a signal to the process and, as a rule, all its children; wait so long for its end."""
        if self.child is not None and self.alive:
            if group:
                os.killpg(self.child.pid, how)
            else:
                self.child.send_signal(how)
            self.child.wait(seconds)

    @contextmanager
    def kept_running(self) -> Iterator[None]:
        """Start it again whenever it ends, as its supervisor would: Celery may end a worker when Redis restarts."""
        over = threading.Event()

        def keep() -> None:
            while not over.wait(_PAUSE_S):
                if not self.alive:
                    self.start()

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join(30)

    def pids(self) -> list[int]:
        """The process and its children, as far as they can be seen."""
        return [] if self.child is None or not self.alive else [self.child.pid, *children(self.child.pid)]

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-3000:]


class Stack:
    """One Redis, one local API with the script engine, any number of workers."""

    def __init__(
        self,
        folder: Path,
        *,
        script: Mapping[str, Any] | None = None,
        engine: str = "script",
        keyed: bool = False,
        fsync: str = "everysec",
    ) -> None:
        self.folder = folder
        self._fsync = fsync
        self.redis_port = free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"
        self._script = script
        self._engine = engine
        self._keyed = keyed
        self._processes: list[Process] = []
        self.base_url = ""
        self.redis = self._redis()
        self.api = self._api()
        self.store = RedisStore(self.redis_url)

    def forbid_config(self) -> None:
        """Let askq's processes from now on use Redis as a user who may not look at its settings.

        A test may then play a disk that writes nothing with `appendfsync no`, which askq believes where it sees it.
        """
        may = ["on", ">pw", "~*", "&*", "+@all", "-config"]
        with self.client() as admin:
            admin.execute_command("ACL", "SETUSER", "askq", *may)
        # Users are not kept through a restart.
        self.redis.argv += ["--user", "askq", *may, "--user", "default", "on", "nopass", "~*", "&*", "+@all"]
        self.redis_url = self.redis_url.replace("//", "//askq:pw@")
        self.store.close()
        self.store = RedisStore(self.redis_url)

    def _process(self, name: str, argv: list[str], env: Mapping[str, str] | None = None) -> Process:
        process = Process(name, argv, self.folder / f"{name}.log", env)
        self._processes.append(process)
        return process

    def _redis(self) -> Process:
        data = self.folder / "redis"
        data.mkdir()
        argv = [redis_binary(), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(data)]
        argv += ["--appendonly", "yes", "--appendfsync", self._fsync, "--save", ""]
        process = self._process("redis", argv)
        process.outlives_file_limits = True
        process.start()
        self.wait_for_redis()
        return process

    def client(self) -> redis.Redis:
        """A client that looks behind the store; whoever asks closes it."""
        return redis.Redis(port=self.redis_port)

    def wait_for_redis(self) -> None:
        eventually(lambda: answers_redis(self.redis_port), seconds=READY_S, what="Redis answers")

    def _api(self) -> Process:
        script = self.folder / "script.json"
        script.write_text(json.dumps(self._script or {}), "utf-8")
        endpoint = self.folder / "endpoint.json"
        argv = [sys.executable, "-m", "askq.localapi", "--host", "127.0.0.1", "--port", str(free_port())]
        argv += ["--data", str(self.folder / "localapi"), "--engine", self._engine]
        argv += ["--endpoint-file", str(endpoint)]
        if self._keyed:
            argv.append("--idempotency")
        if self._engine == "script":
            argv += ["--script", str(script)]
        process = self._process("localapi", argv)
        process.start()
        eventually(endpoint.exists, seconds=READY_S, what="the local API is ready")
        self.base_url = json.loads(endpoint.read_text("utf-8"))["base_url"]
        return process

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of askq needs to use these parts."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "SSL_CERT_FILE") if name in os.environ}
        return {
            **kept,
            "REDIS_URL": self.redis_url,
            "OPENAI_BASE_URL": self.base_url,
            "OPENAI_API_KEY": "sk-test-canary-0123456789",
            "ASKQ_HOME": str(self.folder / "home"),
            **more,
        }

    def worker(
        self,
        name: str = "worker",
        settings: Mapping[str, str] | None = None,
        *,
        concurrency: int = 2,
        app: str = "worker.celery",
        queues: str = "askq.start,askq.poll",
        **environment: str,
    ) -> Process:
        """A worker, started."""
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "--queues", queues]
        argv += ["--concurrency", str(concurrency), "--hostname", f"{name}@%h", "--loglevel", "INFO"]
        argv += ["--without-gossip", "--without-mingle"]
        process = self._process(name, argv, self.environment(**(settings or {}), **environment))
        process.start()
        return process

    def command(self, name: str, *argv: str, settings: Mapping[str, str] | None = None) -> Process:
        """A command that stays, started."""
        environment = self.environment(**(settings or {}))
        process = self._process(name, [sys.executable, "-m", "producer.cli", *argv], environment)
        process.start()
        return process

    def submit(
        self, assistant: Assistant, texts: list[str], *, key: str | None = None, max_cost_usd: float | None = None
    ) -> str:
        """A sealed batch of these questions."""
        self.store.save_assistant(assistant.digest, assistant.to_json())
        new = NewBatch(
            name=None,
            assistant=assistant.name,
            protocol=assistant.protocol,
            idempotency_key=key,
            max_cost_usd=max_cost_usd,
        )
        batch, _ = self.store.open_batch(new)
        jobs = [
            NewJob(
                question=Question(row_id=f"q{index:04d}", index=index, text=text),
                assistant=assistant.name,
                assistant_digest=assistant.digest,
                protocol=assistant.protocol,
            )
            for index, text in enumerate(texts)
        ]
        for start in range(0, len(jobs), 500):
            self.store.add(batch, jobs[start : start + 500])
        self.store.seal(batch, len(jobs))
        return batch

    def status(self, batch: str) -> BatchStatus:
        status = self.store.batch(batch)
        assert status is not None
        return status

    def wait(self, batch: str, *, seconds: float) -> list[Job]:
        """The jobs of a batch once all have ended."""
        try:
            eventually(lambda: self.status(batch).done, seconds=seconds, what=f"batch {batch} ends", every=0.1)
        except AssertionError as error:
            left = [job for job in self.store.jobs(batch) if not job.state.terminal]
            logs = "\n".join(f"== {process.name}\n{process.tail()}" for process in self._processes[2:])
            raise AssertionError(f"{error}; {self.status(batch).counts}; e.g. {left[:2]}\n{logs}") from error
        return list(self.store.jobs(batch))

    def ledger(self) -> list[dict[str, Any]]:
        """Every run the local API was asked for."""
        runs: list[dict[str, Any]] = []
        while True:
            page = self.admin(f"ledger?after={len(runs)}&limit=1000")["data"]
            runs += page
            if len(page) < 1000:
                return runs

    def askq(self, *argv: str, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command against these parts."""
        return subprocess.run(
            [sys.executable, "-m", "producer.cli", *argv],
            cwd=ROOT,
            env=self.environment() | dict(settings or {}),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def heal(self) -> None:
        """Let nothing go wrong any more at the local API."""
        self.admin("faults", method="DELETE")

    def admin(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """A call to the local API's own pages."""
        url = self.base_url.removesuffix("/v1") + "/_askq/" + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)

    def close(self) -> None:
        self.store.close()
        for process in reversed(self._processes):
            process.kill()


@contextmanager
def running_stack(folder: Path, **options: Any) -> Iterator[Stack]:
    stack = Stack(folder, **options)
    try:
        yield stack
    finally:
        stack.close()
