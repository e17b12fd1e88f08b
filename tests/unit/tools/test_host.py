"""What comes of a call: a result, an error the model can answer, or a process that died of it. Real processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from askq.assistants.model import Assistant
from askq.jobs.calls import CallClaim, CallResult, WantedCall
from askq.tools import child, describe, modules
from askq.tools.outcomes import MOST_CALLS, MOST_CLAIMS, MOST_CRASHES, MOST_OUTPUT_BYTES, MOST_PRINTED
from config.settings import VARIABLES
from tests.parts import eventually
from worker.tools.host import Aborted, Crashed, Host, refusal

FOLDER = Path(__file__).parent
GOOD = ("light", "everything", "slow_sum", "nothing", "korean", "fails", "leaves", "hangs", "dies", "babbles", "greedy")
MORE = ("unwritable", "circular", "long", "secrets", "spawns", "forks", "halves", "endless")


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    told = describe.describe([f"functions:{name}" for name in (*GOOD, *MORE)], [FOLDER])
    assert [function.problem for function in told if function.problem] == []
    return Assistant(
        name="home",
        protocol="responses",
        model="m",
        tools=tuple(function.tool for function in told),
        functions={function.tool["name"]: function.how for function in told},
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    host = Host([], timeout_s=20.0, memory_mb=1024)
    yield host
    host.close()


def call(name: str, arguments: Any = None, **changes: Any) -> CallClaim:
    text = json.dumps({} if arguments is None else arguments)
    claim = CallClaim(
        job="b_1.q1",
        wanted=WantedCall(key="1.0", call_id="c1", name=name, arguments=text),
        fence=1,
        assistant_digest="d",
        claims=1,
        crashes=0,
        begun=False,
    )
    return dataclasses.replace(claim, **changes)


def run(host: Host, assistant: Assistant, name: str, arguments: Any = None) -> CallResult:
    found = host.run(call(name, arguments), assistant, lambda: True)
    assert isinstance(found, CallResult)
    return found


def error(found: CallResult) -> str:
    told = json.loads(found.output)["error"]
    assert told["code"] == found.error
    return str(told["message"])


def test_a_result_comes_back_with_what_was_printed(shared: Host, assistant: Assistant) -> None:
    found = run(shared, assistant, "light", {"device": "lamp", "on": True})
    assert (found.output, found.error, found.printed) == ("lamp is on", None, "lamp True\n")
    assert found.seconds >= 0


def test_an_async_function_is_awaited_and_other_values_are_json(shared: Host, assistant: Assistant) -> None:
    assert run(shared, assistant, "slow_sum", {"a": 2, "b": 3}).output == "5"
    assert run(shared, assistant, "now").output == "null"
    assert run(shared, assistant, "korean", {"도시": "서울"}).output == "서울: 맑음 ☀"


def test_arguments_that_do_not_fit_run_nothing(shared: Host, assistant: Assistant) -> None:
    found = run(shared, assistant, "light", {"device": "lamp", "on": True, "more": 1})
    assert "'more' was unexpected" in error(found)
    assert found.printed == ""


def test_arguments_longer_than_a_socket_holds_reach_the_process_that_refuses_them(
    shared: Host, assistant: Assistant
) -> None:
    found = run(shared, assistant, "light", {"device": "x" * 2_000_000, "on": True})
    assert "longer than 65536 bytes" in error(found)
    assert run(shared, assistant, "slow_sum", {"a": 1, "b": 1}).output == "2", "and the process goes on"


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("fails", "exception", "ValueError: the bulb is broken"),
        ("leaves", "exception", "SystemExit: 3"),
        ("unwritable", "unserializable", "a object cannot be written"),
        ("circular", "unserializable", "a list cannot be written"),
    ],
)
def test_what_goes_wrong_in_a_function_is_told(
    shared: Host, assistant: Assistant, name: str, code: str, told: str
) -> None:
    found = run(shared, assistant, name)
    assert (found.error, told in error(found)) == (code, True)
    assert run(shared, assistant, "slow_sum", {"a": 1, "b": 1}).output == "2", "and the process goes on"


def test_a_traceback_is_kept_for_people(shared: Host, assistant: Assistant) -> None:
    assert "functions.py" in run(shared, assistant, "fails").printed


def test_a_result_has_a_bound(shared: Host, assistant: Assistant) -> None:
    assert len(run(shared, assistant, "long", {"size": MOST_OUTPUT_BYTES}).output) == MOST_OUTPUT_BYTES
    assert run(shared, assistant, "long", {"size": MOST_OUTPUT_BYTES + 1}).error == "too_large"
    assert run(shared, assistant, "long", {"size": 50_000_000}).error == "too_large"


def test_megabytes_of_print_are_read_and_dropped(shared: Host, assistant: Assistant) -> None:
    found = run(shared, assistant, "babbles", {"megabytes": 20})
    assert found.output == "done"
    assert len(found.printed) == MOST_PRINTED
    assert found.printed.endswith("…")


def test_secrets_of_askq_are_not_in_the_environment_of_functions(
    monkeypatch: pytest.MonkeyPatch, assistant: Assistant
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("REDIS_URL", "redis://:canary@h")
    monkeypatch.setenv("MY_OWN_KEY", "theirs")
    host = Host([], timeout_s=20.0, memory_mb=0)
    try:
        found = json.loads(run(host, assistant, "secrets").output)
    finally:
        host.close()
    assert "canary" not in json.dumps(found)
    assert found["MY_OWN_KEY"] == "theirs"


def test_every_secret_setting_is_on_that_list() -> None:
    secret = {name for name in VARIABLES if "KEY" in name or "PASSWORD" in name or "REDIS_URL" in name}
    assert secret - {"ASKQ_EMBEDDED_REDIS"} <= set(child.SECRETS)
    assert "CELERY_BROKER_URL" in child.SECRETS


@pytest.mark.parametrize(
    ("how", "by"),
    [
        ("exit", "exit status 7"),
        ("signal", "SIGKILL"),
        ("segfault", "SIGSEGV"),
        ("hang up", "broke off the connection"),
        ("scribble", "broke off the connection"),
    ],
)
def test_a_process_that_dies_costs_the_call_and_not_the_worker(
    shared: Host, assistant: Assistant, how: str, by: str
) -> None:
    found = shared.run(call("dies", {"how": how}), assistant, lambda: True)
    assert isinstance(found, Crashed)
    assert by in found.by
    assert "last words" in found.printed
    assert run(shared, assistant, "slow_sum", {"a": 1, "b": 1}).output == "2"


def test_a_function_that_hangs_is_killed(assistant: Assistant) -> None:
    host = Host([], timeout_s=0.3, memory_mb=0)
    try:
        run(host, assistant, "slow_sum", {"a": 1, "b": 1})  # a busy machine takes its time to start an interpreter
        began = time.monotonic()
        found = run(host, assistant, "hangs")
        assert found.error == "timeout"
        assert "0.3 s" in error(found)
        assert time.monotonic() - began < 30
    finally:
        host.close()


def test_a_result_that_never_ends_is_killed_with_the_function(assistant: Assistant) -> None:
    host = Host([], timeout_s=3.0, memory_mb=600)
    try:
        run(host, assistant, "slow_sum", {"a": 1, "b": 1})
        assert run(host, assistant, "endless").error in ("timeout", "memory")
        assert run(host, assistant, "slow_sum", {"a": 1, "b": 1}).output == "2"
    finally:
        host.close()


def test_a_function_that_forks_answers_once(shared: Host, assistant: Assistant) -> None:
    """The other process would answer the next call, with this one's output."""
    for _ in range(3):
        assert run(shared, assistant, "forks").output == "parent"
        assert run(shared, assistant, "slow_sum", {"a": 1, "b": 1}).output == "2"


def test_halves_of_characters_do_not_reach_the_service(shared: Host, assistant: Assistant) -> None:
    assert run(shared, assistant, "halves", {"how": "text"}).output == "a?"
    assert run(shared, assistant, "halves", {"how": "json"}).error == "unserializable"
    raised = run(shared, assistant, "halves", {"how": "raise"})
    assert error(raised) == "FileNotFoundError: no ?"
    for found in (raised, run(shared, assistant, "halves", {"how": "json"})):
        found.output.encode()


def test_a_module_that_hangs_while_it_is_imported_costs_the_call(
    tmp_path: Path, assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.tools.host.START_S", 1.0)
    monkeypatch.setattr(child, "START_S", 1.0)
    (tmp_path / "stuck.py").write_text("import time\ntime.sleep(600)\n")
    how = {"module": "stuck", "function": "light", "folder": str(tmp_path)}
    stuck = dataclasses.replace(assistant, functions={"light": how})
    host = Host([], timeout_s=20.0, memory_mb=0)
    try:
        found = run(host, stuck, "light", {"device": "lamp", "on": True})
        assert found.error == "timeout"
        assert "within 1 s" in error(found)
    finally:
        host.close()


def test_what_a_function_starts_ends_with_its_process(assistant: Assistant) -> None:
    host = Host([], timeout_s=20.0, memory_mb=0)
    pid = int(run(host, assistant, "spawns").output)
    assert Path(f"/proc/{pid}").exists()
    host.close()
    eventually(lambda: not _alive(pid), what="the child of the function is gone")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_function_that_takes_all_memory_is_stopped(assistant: Assistant) -> None:
    host = Host([], timeout_s=20.0, memory_mb=600)
    try:
        found = run(host, assistant, "greedy")
        assert found.error == "memory"
        assert run(host, assistant, "slow_sum", {"a": 1, "b": 1}).output == "2"
    finally:
        host.close()


def test_a_call_nobody_waits_for_is_stopped(shared: Host, assistant: Assistant) -> None:
    assert isinstance(shared.run(call("hangs"), assistant, lambda: False), Aborted)


def test_a_function_that_cannot_be_loaded_is_a_fault_of_the_deployment(shared: Host, assistant: Assistant) -> None:
    how = {"light": {"module": "gone", "function": "light", "folder": str(FOLDER)}}
    found = run(shared, dataclasses.replace(assistant, functions=how), "light", {"device": "lamp", "on": True})
    assert found.error == "unavailable"
    assert "there is no module 'gone'" in found.output


def test_a_runner_dies_with_whoever_started_it(tmp_path: Path) -> None:
    script = (
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from askq.tools.child import Child\n"
        f"child = Child([Path({str(FOLDER)!r})])\n"
        "child.ask({'describe': [['functions', 'light']]}, timeout_s=60)\n"
        "print(child._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    pid = int(told.stdout)
    eventually(lambda: not _alive(pid), what="the runner is gone")
    assert pid != os.getpid()


# -- without running ----------------------------------------------------------------------------------------


def test_only_functions_the_file_names_are_run(assistant: Assistant) -> None:
    for name in ("unmarked", "os.system", "functions:light", ""):
        found = refusal(call(name), assistant)
        assert found is not None
        assert found.error == "unknown_function"
        assert "known: light" in error(found)
    assert refusal(call("light"), assistant) is None


def test_a_round_has_a_bound(assistant: Assistant) -> None:
    wanted = WantedCall(key=f"1.{MOST_CALLS}", call_id="c", name="light", arguments="{}")
    found = refusal(call("light", wanted=wanted), assistant)
    assert found is not None
    assert found.error == "too_many_calls"


def test_what_died_too_often_is_not_tried_again(assistant: Assistant) -> None:
    assert refusal(call("light", crashes=MOST_CRASHES - 1), assistant) is None
    for changes, code in (({"crashes": MOST_CRASHES}, "crashed"), ({"claims": MOST_CLAIMS + 1}, "given_up")):
        found = refusal(call("light", **changes), assistant)
        assert found is not None
        assert found.error == code


def test_what_must_not_run_twice_is_not_run_again_once_begun(assistant: Assistant) -> None:
    assert refusal(call("now"), assistant) is None
    found = refusal(call("now", begun=True), assistant)
    assert found is not None
    assert found.error == "unknown_outcome"
    assert refusal(call("light", begun=True), assistant) is None


# -- modules ------------------------------------------------------------------------------------------------


def problem(reference: str, folder: Path) -> str:
    (found,) = describe.describe([reference], [folder])
    assert found.problem is not None
    return found.problem


def test_what_is_wrong_with_a_module_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("from askq.tools import tool\n\ndef f(:\n    pass\n")
    (tmp_path / "raising.py").write_text("import os\n\nvalue = os.environ['NOT THERE AT ALL']\n")
    (tmp_path / "leaving.py").write_text("import os\nos._exit(5)\n")
    (tmp_path / "queue.py").write_text("")
    (tmp_path / "good.py").write_text(
        "from askq.tools import tool\n\n@tool\ndef switch(on: bool) -> str:\n    '''Do.'''\n    return ''\n\n"
        "def plain() -> None: ...\n\n@tool\ndef bad(x):\n    ...\n"
    )
    place = str(tmp_path)
    assert f"looked for nowhere.py in {place}" in problem("nowhere:f", tmp_path)
    assert f"{place}/broken.py:3: is not Python" in problem("broken:f", tmp_path)
    assert f"{place}/raising.py:3: cannot be imported: KeyError" in problem("raising:f", tmp_path)
    assert "ended the interpreter: it ended with exit status 5" in problem("leaving:f", tmp_path)
    assert "Python's or askq's own; rename the file" in problem("queue:f", tmp_path)
    assert "has no function 'swich'; did you mean 'switch'?" in problem("good:swich", tmp_path)
    assert f"{place}/good.py:8: 'plain' is not marked with @tool" in problem("good:plain", tmp_path)
    assert f"{place}/good.py:10: 'bad': the parameter 'x' needs a type" in problem("good:bad", tmp_path)


def test_a_module_finds_its_neighbours_and_not_those_of_askq(tmp_path: Path) -> None:
    """`config` and `worker` are askq's own names; beside a user's module they are the user's."""
    (tmp_path / "config.py").write_text("ROOM = 'kitchen'\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('Python has its own')\n")
    package = tmp_path / "rooms"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "home.py").write_text(
        "import json\nimport config\nfrom askq.tools import tool\n\n"
        "@tool\ndef room() -> str:\n    '''Tell.'''\n    return json.dumps(config.ROOM)\n"
    )
    (found,) = describe.describe(["rooms.home:room"], [tmp_path])
    assert found.problem is None
    assert (found.how["module"], found.how["folder"]) == ("rooms.home", str(tmp_path))
    made = Assistant(name="h", protocol="responses", model="m", tools=(found.tool,), functions={"room": found.how})
    host = Host([], timeout_s=20, memory_mb=0)
    try:
        assert run(host, made, "room").output == '"kitchen"'
    finally:
        host.close()


def test_a_folder_inside_the_project_is_named_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "a"
    inside.mkdir()
    monkeypatch.chdir(tmp_path)
    assert describe._portable(inside) == "a"
    assert describe._portable(tmp_path) == "."
    assert describe._portable(FOLDER) == FOLDER.as_posix()


def test_names_of_python_and_askq_are_reserved() -> None:
    assert modules.reserved("queue")
    assert modules.reserved("askq.tools")
    assert not modules.reserved("home")
