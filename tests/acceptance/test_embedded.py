"""The embedded parts with real processes: started, shared, killed, found again, ended with their last user."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from askq.embedded import redis as embedded_redis
from askq.embedded.redis import answers, find_server
from askq.embedded.stack import Embedded
from askq.embedded.supervisor import Supervisor
from askq.errors import EmbeddedError
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
        return not (self.path / "redis" / "endpoint.json").exists()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / ".askq")
    yield made
    # No user is left after a test: its keeper must end by itself.
    if (made.path / "redis").exists():
        eventually(made.ended, seconds=15, what="the keeper has ended")


def parts(url: str) -> tuple[int, str]:
    """Port and password of an address."""
    password, _, rest = url.removeprefix("redis://:").partition("@")
    return int(rest.partition(":")[2].partition("/")[0]), password


def command(url: str, *words: str) -> str:
    """The server's raw answer to a command."""
    port, password = parts(url)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        for line in ((f"AUTH {password}",) if password else ()) + (" ".join(words),):
            client.sendall(f"{line}\r\n".encode())
            time.sleep(0.05)  # inline commands are answered one by one
            told = client.recv(65536).decode()
    return told


def test_it_keeps_what_it_is_given_and_lets_nobody_else_in(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        port, password = parts(url)
        assert "yes" in command(url, "CONFIG", "GET", "appendonly")
        assert "noeviction" in command(url, "CONFIG", "GET", "maxmemory-policy")
        assert "127.0.0.1" in command(url, "CONFIG", "GET", "bind")
        assert len(password) >= 32
        assert not answers(port, "guess")
        assert "NOAUTH" in command(f"redis://:@127.0.0.1:{port}/0", "KEYS", "*")
        for name in ("password", "redis.conf", "endpoint.json", "port"):
            assert (home.path / "redis" / name).stat().st_mode & 0o077 == 0, name
        assert "embedded; data in" in embedded.parts()[0]


def test_a_second_user_shares_it_and_the_last_one_ends_it(home: Home) -> None:
    first, second = Embedded(home.path), Embedded(home.path)
    url = first.redis_url()
    assert second.redis_url() == url
    first.close()
    time.sleep(1.2)  # longer than the keeper takes to look: it must stay
    assert answers(*parts(url))
    second.close()
    eventually(lambda: not answers(*parts(url)), seconds=10, what="the server ends with its last user")


def test_it_ends_when_its_user_is_killed(home: Home) -> None:
    script = (
        "import sys, time; from pathlib import Path; from askq.embedded.stack import Embedded\n"
        "embedded = Embedded(Path(sys.argv[1])); print(embedded.redis_url(), flush=True); time.sleep(60)"
    )
    user = subprocess.Popen([sys.executable, "-c", script, str(home.path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert user.stdout is not None
    url = user.stdout.readline().strip()
    assert answers(*parts(url))
    user.kill()
    user.communicate()
    eventually(lambda: not answers(*parts(url)), seconds=10, what="the server ends with its killed user")


def test_a_killed_server_comes_back_with_its_data_at_the_same_address(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        assert "+OK" in command(url, "SET", "kept", "yes")
        eventually(lambda: "yes" in command(url, "GET", "kept"), what="the write is there")
        time.sleep(1.1)  # fsync happens every second
        os.kill(home.server, signal.SIGKILL)
        eventually(lambda: not answers(*parts(url)), seconds=5, what="it is gone")
        eventually(lambda: answers(*parts(url)), seconds=15, what="it is back")
        assert "yes" in command(url, "GET", "kept")


def test_after_a_killed_keeper_the_next_user_starts_anew_with_the_data(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
        command(url, "SET", "kept", "yes")
        time.sleep(1.1)  # fsync happens every second
        os.kill(home.keeper, signal.SIGKILL)
        eventually(lambda: not answers(*parts(url)), seconds=10, what="the server ends with its keeper")
    with Embedded(home.path) as again:
        assert "yes" in command(again.redis_url(), "GET", "kept")


def test_a_port_that_is_taken_is_exchanged(home: Home) -> None:
    with Embedded(home.path) as embedded:
        url = embedded.redis_url()
    before, _ = parts(url)
    eventually(lambda: not answers(*parts(url)), seconds=10, what="the server has ended")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", before))
        squatter.listen()
        with Embedded(home.path) as embedded:
            assert parts(embedded.redis_url())[0] != before


def test_an_endpoint_file_of_a_dead_keeper_is_not_believed(home: Home) -> None:
    folder = home.path / "redis"
    folder.mkdir(parents=True)
    (folder / "endpoint.json").write_text(json.dumps({"url": "redis://:x@127.0.0.1:1/0", "keeper": str(os.getpid())}))
    with Embedded(home.path) as embedded:
        assert answers(*parts(embedded.redis_url()))


def test_two_that_start_at_once_get_one_server(home: Home) -> None:
    script = (
        "import sys; from pathlib import Path; from askq.embedded.stack import Embedded\n"
        "embedded = Embedded(Path(sys.argv[1])); print(embedded.redis_url(), flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", script, str(home.path)]
    users = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    urls = set()
    for user in users:
        assert user.stdout is not None
        urls.add(user.stdout.readline().strip())
    assert len(urls) == 1
    for user in users:
        user.communicate("", timeout=10)


@pytest.mark.parametrize("binary", redis_binaries().values(), ids=redis_binaries())
def test_every_server_that_can_be_found_works(home: Home, binary: str) -> None:
    with Embedded(home.path, redis_binary=Path(binary)) as embedded:
        assert "PONG" in command(embedded.redis_url(), "PING")


def test_a_machine_without_any_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "_in_wheel", lambda: None)
    with pytest.raises(EmbeddedError) as caught:
        find_server()
    assert "no Redis server can be started" in str(caught.value)
    assert "REDIS_URL" in str(caught.value)


def test_a_named_server_must_be_one(tmp_path: Path) -> None:
    fake = tmp_path / "redis-server"
    fake.write_text("#!/bin/sh\necho Redis server v=5.0.1\n", "utf-8")
    fake.chmod(0o755)
    for wrong in (fake, tmp_path / "nothing", Path(sys.executable)):
        with pytest.raises(EmbeddedError, match=r"version 6\.2 or newer"):
            find_server(wrong)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with (
        Embedded(tmp_path / "file" / "home") as embedded,
        pytest.raises(EmbeddedError, match="cannot keep its data") as caught,
    ):
        embedded.redis_url()
    assert "ASKQ_HOME" in str(caught.value)


def test_the_local_api_is_shared_and_its_engine_is_not_changed_under_anybody(tmp_path: Path) -> None:
    with Embedded(tmp_path) as first, Embedded(tmp_path) as second:
        one = first.local_api(engine="script")
        assert second.local_api(engine="script") == one
        with pytest.raises(EmbeddedError, match="already runs with another engine"):
            second.local_api(engine="tutor")


# -- the supervisor ------------------------------------------------------------------------------------------


def tick_until(supervisor: Supervisor, told: list[str], pattern: str, *, seconds: float = 20) -> None:
    def seen() -> bool:
        told.extend(supervisor.tick())
        return any(pattern in text for text in told)

    eventually(seen, seconds=seconds, what=f"{pattern!r} in {told}")


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.stop(1)


def test_what_ends_is_started_again_and_said(supervisor: Supervisor, tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    supervisor.add("child", [sys.executable, "-c", script], os.environ, tmp_path / "log")
    supervisor.start()
    pid = int(eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), what="it runs"))
    (tmp_path / "pid").unlink()
    os.kill(pid, signal.SIGKILL)
    told: list[str] = []
    tick_until(supervisor, told, "child ended (signal SIGKILL); starting it again")

    def again() -> bool:
        supervisor.tick()
        return (tmp_path / "pid").exists()

    eventually(again, seconds=10, what="it runs again")
    assert supervisor.alive == 1


def test_what_cannot_start_is_given_up_with_the_end_of_its_log(supervisor: Supervisor, tmp_path: Path) -> None:
    script = "import sys; print('no key'); sys.exit(4)"
    supervisor.add("child", [sys.executable, "-c", script], os.environ, tmp_path / "log")
    supervisor.start()
    tick_until(supervisor, [], "child ended (exit code 4) and is given up")
    assert supervisor.failed is not None
    assert "ended 3 times" in supervisor.failed
    assert "no key" in supervisor.failed
    assert supervisor.tick() == []


def test_stopping_ends_whole_groups_even_those_that_will_not(supervisor: Supervisor, tmp_path: Path) -> None:
    script = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "time.sleep(60)"
    )
    supervisor.add("stubborn", [sys.executable, "-c", script], os.environ, tmp_path / "log")
    supervisor.start()
    pids = eventually(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text().split(), what="it runs")
    supervisor.stop(0.3)
    eventually(lambda: not any(alive(int(pid)) for pid in pids), seconds=5, what="the group is gone")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from askq.embedded.supervisor import Supervisor\n"
        "supervisor = Supervisor(); child = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "supervisor.add('child', [sys.executable, '-c', child], os.environ, Path(sys.argv[1]))\n"
        "supervisor.start(); time.sleep(60)"
    )
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", script, str(log)], cwd=ROOT)
    pid = int(eventually(lambda: log.exists() and log.read_text(), what="the child runs"))
    parent.kill()
    parent.wait()
    eventually(lambda: not alive(pid), seconds=10, what="the child ends with its parent")
