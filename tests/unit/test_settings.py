"""Settings: environment over `.env` over default, every wrong one told at once, secrets never shown."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config.celery import options as celery_options
from config.settings import VARIABLES, Secret, Settings, SettingsError, load

ROOT = Path(__file__).parents[2]


def test_without_anything_there_is_a_default_for_everything(tmp_path: Path) -> None:
    settings = load({}, folder=tmp_path)
    assert settings == Settings()
    assert (settings.redis_url, settings.api_key, settings.home) == (None, None, Path(".askq"))
    assert set(settings.sources.values()) == {"default"}


def test_the_environment_is_stronger_than_the_file_and_the_file_than_the_default(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ASKQ_WORKERS=3\nASKQ_CONCURRENCY=5\n", "utf-8")
    below = tmp_path / "deep" / "down"
    below.mkdir(parents=True)
    settings = load({"ASKQ_WORKERS": "7"}, folder=below)
    assert (settings.workers, settings.concurrency, settings.in_flight) == (7, 5, 200)
    assert settings.sources["workers"] == "environment"
    assert settings.sources["concurrency"] == str(tmp_path / ".env")
    assert settings.sources["in_flight"] == "default"
    assert set(settings.sources) == {field.name for field in dataclasses.fields(Settings)} - {"sources"}


def test_the_nearest_file_counts_and_nothing_is_put_into_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("ASKQ_WORKERS=3\nASKQ_IN_FLIGHT=9\n", "utf-8")
    below = tmp_path / "below"
    below.mkdir()
    (below / ".env").write_text("export ASKQ_WORKERS='4'  # four\n", "utf-8")
    monkeypatch.chdir(below)
    for settings in (load(), load(folder=Path())):
        assert (settings.workers, settings.in_flight) == (4, 200)
    assert "ASKQ_WORKERS" not in os.environ


def test_a_folder_called_env_is_no_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ASKQ_WORKERS=3\n", "utf-8")
    (tmp_path / "below" / ".env").mkdir(parents=True)
    assert load({}, folder=tmp_path / "below").workers == 3


def test_a_file_of_an_editor_of_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfASKQ_WORKERS=3\r\nASKQ_MODEL=m\r\n")
    settings = load({}, folder=tmp_path)
    assert (settings.workers, settings.model) == (3, "m")


def test_a_file_that_is_not_text_is_told_with_everything_else(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"ASKQ_MODEL=\xff\n")
    with pytest.raises(SettingsError) as caught:
        load({"ASKQ_WORKERS": "0"}, folder=tmp_path)
    unread, wrong = caught.value.problems
    assert unread == f"{tmp_path / '.env'} cannot be read: it is not UTF-8 text"
    assert "ASKQ_WORKERS=0" in wrong


@pytest.mark.parametrize("nothing", ["", "  "])
def test_empty_means_unset(tmp_path: Path, nothing: str) -> None:
    (tmp_path / ".env").write_text(f"ASKQ_CONCURRENCY={nothing}\nASKQ_IN_FLIGHT\nASKQ_UNKNOWN=\n", "utf-8")
    assert load({"OPENAI_API_KEY": nothing, "ASKQ_WORKERS": nothing}, folder=tmp_path) == Settings()


def test_an_empty_variable_does_not_hide_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ASKQ_WORKERS=3\n", "utf-8")
    assert load({"ASKQ_WORKERS": ""}, folder=tmp_path).workers == 3


def test_a_line_that_sets_nothing_is_told_when_it_is_meant_for_askq(tmp_path: Path) -> None:
    lines = (
        "# settings",
        "ASKQ_WORKERS 3",
        "",
        "  export OPENAI_API_KEY='sk-canary",
        "other tool's line",
        "ASKQ_TICK_S=x",
    )
    (tmp_path / ".env").write_text("\n".join(lines), "utf-8")
    with pytest.raises(SettingsError) as caught:
        load({}, folder=tmp_path)
    env = tmp_path / ".env"
    assert caught.value.problems == [
        f"{env}:2: ASKQ_WORKERS is not set; write ASKQ_WORKERS=value, and close what is quoted",
        f"{env}:4: OPENAI_API_KEY is not set; write OPENAI_API_KEY=value, and close what is quoted",
        f"ASKQ_TICK_S=x (from {env}) is not a number from 0.1 to 10",
    ]


def test_a_line_of_another_tool_disturbs_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".env").write_text("other tool's line\nASKQ_WORKERS=3\n", "utf-8")
    assert load({}, folder=tmp_path).workers == 3
    assert not caplog.records


def test_a_folder_above_that_may_not_be_searched_has_no_file_for_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("ASKQ_WORKERS=3\n", "utf-8")
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    exists = Path.exists

    def refuse(path: Path, **options: bool) -> bool:
        if path.parent == closed:
            raise PermissionError(13, "Permission denied")
        return exists(path, **options)

    monkeypatch.setattr(Path, "exists", refuse)
    assert load({}, folder=closed / "open").workers == 3


REDIS = "a valid address that begins with redis://, redis+sentinel:// or redis+cluster:// (rediss… with TLS)"


def test_everything_wrong_is_told_at_once_with_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ASKQ_LEASE_S=soon\nASKQ_MODLE=m\n", "utf-8")
    wrong = {
        "REDIS_URL": "http://example",
        "ASKQ_WORKERS": "0",
        "ASKQ_PROTOCOL": "smtp",
        "ASKQ_SHOW_TEXT": "perhaps",
        "ASKQ_LEAS_S": "3",
        "ASKQ_XYZZY": "3",
    }
    with pytest.raises(SettingsError) as caught:
        load(wrong, folder=tmp_path)
    env = tmp_path / ".env"
    assert sorted(caught.value.problems) == sorted(
        [
            f"REDIS_URL=http://example (from environment) is not {REDIS}",
            "ASKQ_WORKERS=0 (from environment) is not a whole number from 1 to 64",
            "ASKQ_PROTOCOL=smtp (from environment) is not one of responses, assistants",
            "ASKQ_SHOW_TEXT=perhaps (from environment) is not true or false",
            f"ASKQ_LEASE_S=soon (from {env}) is not a number from 1 to 300",
            f"ASKQ_MODLE (from {env}) is not a setting of askq; did you mean ASKQ_MODEL?",
            "ASKQ_LEAS_S (from environment) is not a setting of askq; did you mean ASKQ_LEASE_S?",
            "ASKQ_XYZZY (from environment) is not a setting of askq; .env.example lists all of them",
        ]
    )
    assert str(caught.value) == "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "redis:/localhost"),
        ("REDIS_URL", "redis://localhost:port/0"),
        ("REDIS_URL", "redis://localhost:70000/0"),
        ("REDIS_URL", "redis+sentinel://h1:1,h2:2"),
        ("REDIS_URL", "redis+sentinel://h1:1,h2:2/service/first"),
        ("REDIS_URL", "redis+sentinel://h1,,h2/service"),
        ("REDIS_URL", "redis+sentinel://h1:0/service"),
        ("REDIS_URL", "redis+cluster://h1:port"),
        ("REDIS_URL", "redis+cluster://h1/3"),
        ("REDIS_URL", "redis+clusters://h1"),
        ("REDIS_URL", "http+cluster://h1"),
        ("REDIS_URL", "redis+cluster://"),
        ("CELERY_BROKER_URL", "redis+cluster://h1"),
        ("CELERY_BROKER_URL", "redis+sentinel://h1"),
        ("ASKQ_REDIS_REPLICAS", "-1"),
        ("OPENAI_BASE_URL", "api.openai.com/v1"),
        ("OPENAI_BASE_URL", "https://"),
        ("OPENAI_BASE_URL", "https:///v1"),
        ("OPENAI_BASE_URL", "https://h/v 1"),
        ("OPENAI_BASE_URL", "https://h\n/v1"),
        ("ASKQ_CHAT_URL", "localhost:11434/v1"),
        ("OPENAI_API_KEY", "sk-with a space"),
        ("OPENAI_API_KEY", "sk-with\na line"),
        ("OPENAI_API_KEY", "sk-…"),
        ("ASKQ_WORKERS", "2.5"),
        ("ASKQ_WORKERS", "many"),
        ("ASKQ_TICK_S", "nan"),
        ("ASKQ_TICK_S", "inf"),
        ("ASKQ_RESULTS_DAYS", "-1"),
        ("ASKQ_LOG_LEVEL", "info"),
        ("ASKQ_HOME", "~nobody-of-that-name/x"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable: value}, folder=tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{variable}=")
    assert "(from environment) is not a" in problem or "(from environment) is not one of" in problem


def test_a_long_value_is_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"ASKQ_WORKERS": "9" * 5000}, folder=tmp_path)
    assert f"ASKQ_WORKERS={'9' * 99}… (from environment) is not a whole number" in str(caught.value)


@pytest.mark.parametrize(("text", "meant"), [("1", True), ("TRUE", True), ("on", True), ("No", False), ("0", False)])
def test_ways_to_say_yes_and_no(tmp_path: Path, text: str, *, meant: bool) -> None:
    assert load({"ASKQ_SHOW_TEXT": text}, folder=tmp_path).show_text is meant


def test_a_home_directory_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load({"ASKQ_HOME": "~/.askq"}, folder=tmp_path).home == tmp_path / ".askq"


def test_the_key_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-a-file\n", "utf-8")
    settings = load({"OPENAI_API_KEY_FILE": str(secret)}, folder=tmp_path)
    assert settings.api_key == Secret("sk-from-a-file")
    assert settings.sources["api_key"] == f"{secret} (environment)"
    both = load({"OPENAI_API_KEY_FILE": str(secret), "OPENAI_API_KEY": "sk-direct"}, folder=tmp_path)
    assert (both.api_key, both.sources["api_key"]) == (Secret("sk-direct"), "environment")


def test_a_key_or_its_file_in_the_environment_is_stronger_than_either_in_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-a-file", "utf-8")
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-from-env-file\n", "utf-8")
    assert load({"OPENAI_API_KEY_FILE": str(secret)}, folder=tmp_path).api_key == Secret("sk-from-a-file")
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY_FILE={secret}\n", "utf-8")
    assert load({"OPENAI_API_KEY": "sk-direct"}, folder=tmp_path).api_key == Secret("sk-direct")
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY_FILE={secret}\nOPENAI_API_KEY=sk-beside\n", "utf-8")
    assert load({}, folder=tmp_path).api_key == Secret("sk-beside")


def test_a_file_of_a_key_that_does_not_count_need_not_be_there(tmp_path: Path) -> None:
    given = {"OPENAI_API_KEY": "sk-direct", "OPENAI_API_KEY_FILE": str(tmp_path / "nothing")}
    assert load(given, folder=tmp_path).api_key == Secret("sk-direct")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"sk-\xff", "cannot be read: it is not UTF-8 text"),
        (b" \n", "is empty"),
    ],
)
def test_a_file_without_a_key(tmp_path: Path, content: bytes | None, told: str) -> None:
    secret = tmp_path / "key"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load({"OPENAI_API_KEY_FILE": str(secret), "ASKQ_WORKERS": "0"}, folder=tmp_path)
    assert caught.value.problems[0] == f"OPENAI_API_KEY_FILE={secret} (from environment) {told}"
    assert len(caught.value.problems) == 2


def test_a_file_of_a_key_that_is_a_folder_or_holds_more_than_a_key(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load({"OPENAI_API_KEY_FILE": str(tmp_path)}, folder=tmp_path)
    secret = tmp_path / "key"
    secret.write_text("sk-canary\nsk-other\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load({"OPENAI_API_KEY_FILE": str(secret)}, folder=tmp_path)
    assert f"OPENAI_API_KEY=… (from {secret} (environment)) is not a key" in str(caught.value)
    assert "canary" not in str(caught.value)


SECRET = {
    "OPENAI_API_KEY": "sk-canary",
    "ASKQ_CHAT_API_KEY": "sk-canary",
    "ASKQ_FLOWER_PASSWORD": "canary",
    "REDIS_URL": "redis://user:canary@host:6379/0",
    "CELERY_BROKER_URL": "amqp://user:canary@host//",
    "OPENAI_BASE_URL": "https://user:canary@host/v1",
}


def test_secrets_do_not_show(tmp_path: Path) -> None:
    settings = load(SECRET, folder=tmp_path)
    assert settings.api_key is not None
    child = settings.child_environment()
    for shown in (
        repr(settings),
        str(settings),
        str(settings.api_key),
        f"{settings.api_key!r}",
        repr(child),
        str(child),
    ):
        assert "canary" not in shown
    assert "host:6379" in repr(settings), "an address without its password is no secret"
    assert "OPENAI_API_KEY" in repr(child)
    assert settings.api_key.reveal() == "sk-canary"
    assert {name: child[name] for name in SECRET} == SECRET


@pytest.mark.parametrize("variable", SECRET)
def test_secrets_do_not_show_in_what_is_told_about_them(tmp_path: Path, variable: str) -> None:
    wrong = "canary " if variable.endswith("PASSWORD") else f"smtp://user:canary@ho st/{SECRET[variable]}"
    with pytest.raises(SettingsError) as caught:
        load({variable: wrong, "ASKQ_WORKERS": "0"}, folder=tmp_path)
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "redis:/user:canary@host:6379/0",
        "user:canary@host:6379",
        "redis://:can ary@host:6379/0",
        "redis://:canary\n@host:6379/0",
        "redis://host:70000/0?password=can@ary",
        "redis://host:70000/0?db=1&PASSWORD=canary#x",
    ],
)
def test_no_spelling_of_an_address_shows_its_password(tmp_path: Path, address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"REDIS_URL": address}, folder=tmp_path)
    assert "REDIS_URL=" in str(caught.value)
    assert "can" not in str(caught.value)
    assert "ary" not in str(caught.value)
    assert "host:" in str(caught.value), "what is no secret helps to find the mistake"


def test_a_password_among_the_parameters_does_not_show(tmp_path: Path) -> None:
    shown = repr(load({"REDIS_URL": "redis://host:1/0?db=2&password=canary"}, folder=tmp_path))
    assert "redis_url='redis://host:1/0?db=2&password=…'" in shown
    both = "sentinel://:canary@h1;sentinel://:canary@h2"
    assert "canary" not in repr(load({"CELERY_BROKER_URL": both}, folder=tmp_path))


@pytest.mark.parametrize(
    "address",
    [
        "redis+sentinel://:pw@h1:1,h2,[::1]:3/my-service/2?sentinel_password=x",
        "rediss+sentinel://h/s",
        "redis+cluster://u:pw@h1:1,h2:2",
        "rediss+cluster://h/0?ssl_cert_reqs=none",
    ],
)
def test_redis_may_be_many_servers(tmp_path: Path, address: str) -> None:
    settings = load({"REDIS_URL": address, "CELERY_BROKER_URL": "amqp://h//"}, folder=tmp_path)
    assert settings.redis_url == address
    assert "pw" not in repr(settings)


def test_a_cluster_needs_another_broker(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="which Celery cannot use as its broker"):
        load({"REDIS_URL": "redis+cluster://h"}, folder=tmp_path)


@pytest.mark.parametrize(
    ("given", "url", "options", "ssl"),
    [
        ("amqp://h//", "amqp://h//", {}, None),
        ("redis://h/1", "redis://h/1", {}, None),
        (
            "redis+sentinel://:p%40w@h1,h2:5/my%20service",
            "sentinel://:p%40w@h1:26379/0;sentinel://:p%40w@h2:5/0",
            {"master_name": "my service"},
            None,
        ),
        (
            "rediss+sentinel://h/s/3?sentinel_username=u&sentinel_password=p%20w&ssl_ca_certs=ca.pem",
            "sentinel://h:26379/3",
            {
                "master_name": "s",
                "sentinel_kwargs": {
                    "username": "u",
                    "password": "p w",
                    "ssl": True,
                    "ssl_cert_reqs": "required",
                    "ssl_ca_certs": "ca.pem",
                },
            },
            {"ssl_cert_reqs": "required", "ssl_ca_certs": "ca.pem"},
        ),
    ],
)
def test_celery_gets_the_address_of_its_broker_as_it_wants_it(
    given: str, url: str, options: dict[str, object], ssl: dict[str, object] | None
) -> None:
    told = celery_options(given)
    assert (told["broker_url"], told["broker_use_ssl"]) == (url, ssl)
    assert {name: told["broker_transport_options"].get(name) for name in options} == options


def test_a_key_given_as_its_file_does_not_show(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"OPENAI_API_KEY_FILE": "sk-canary"}, folder=tmp_path)
    assert str(caught.value) == (
        "OPENAI_API_KEY_FILE=… (from environment) is a key, not a file that holds one; set OPENAI_API_KEY"
    )


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("https://api.example/v1", False),
        ("http://127.0.0.1:8080/v1", False),
        ("http://127.1.2.3/v1", False),
        ("http://[::1]:8080/v1", False),
        ("http://0.0.0.0:8000/v1", False),
        ("http://[::]:8000/v1", False),
        ("http://localhost/v1", False),
        ("http://LOCALHOST.:80/v1", False),
        ("http://api.localhost/v1", False),
        ("http://api.example/v1", True),
        ("http://192.168.1.5:8000/v1", True),
        ("http://169.254.169.254/latest", True),
        ("http://[fe80::1]/v1", True),
        ("http://localhost.example/v1", True),
        ("http://127.0.0.1.example/v1", True),
        ("http://127.0.0.1@api.example/v1", True),
        ("http://2130706433/v1", True),
    ],
)
def test_keys_leave_this_machine_encrypted_unless_told_otherwise(tmp_path: Path, address: str, *, plain: bool) -> None:
    given = {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "sk-canary"}
    told = load(given | {"ASKQ_ALLOW_PLAIN_HTTP": "yes"}, folder=tmp_path)
    assert told.base_url == address
    if not plain:
        assert load(given, folder=tmp_path).base_url == address
        return
    with pytest.raises(SettingsError) as caught:
        load(given, folder=tmp_path)
    (problem,) = caught.value.problems
    assert "unencrypted to another machine" in problem
    assert "ASKQ_ALLOW_PLAIN_HTTP=1" in problem
    assert "canary" not in problem


def test_a_child_process_gets_exactly_these_settings(tmp_path: Path) -> None:
    given = {
        "REDIS_URL": "redis://:pw@h:1/0",
        "OPENAI_API_KEY": "sk-x",
        "ASKQ_LEASE_S": "2.5",
        "ASKQ_SHOW_TEXT": "no",
        "ASKQ_SCRIPT": "s.json",
        "ASKQ_FLOWER_PASSWORD": "pw",
    }
    settings = load(given, folder=tmp_path)
    assert load(settings.child_environment(), folder=tmp_path) == settings
    assert settings.child_environment()["OPENAI_API_KEY"] == "sk-x"


def test_whatever_is_set_reaches_a_child_process(tmp_path: Path) -> None:
    other = {
        "REDIS_URL": "rediss://h:1/0",
        "OPENAI_BASE_URL": "https://h/v1",
        "ASKQ_PROTOCOL": "assistants",
        "ASKQ_LOCAL_ENGINE": "chat",
        "ASKQ_CHAT_URL": "http://h/v1",
        "ASKQ_SHOW_TEXT": "off",
        "ASKQ_ALLOW_UNSAFE_REDIS": "on",
        "ASKQ_ALLOW_PLAIN_HTTP": "on",
        "ASKQ_LOG_LEVEL": "ERROR",
        "ASKQ_ROOT": "allow",
    }
    given = {variable: other.get(variable, "7") for variable in VARIABLES if variable != "OPENAI_API_KEY_FILE"}
    settings = load(given, folder=tmp_path)
    for field in dataclasses.fields(Settings):
        if field.name != "sources":
            assert getattr(settings, field.name) != field.default, field.name
            assert settings.sources[field.name] == "environment"
    assert load(settings.child_environment(), folder=tmp_path) == settings


def test_a_key_from_a_file_reaches_a_child_process_that_sees_the_file_too(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-a-file", "utf-8")
    environment = {"OPENAI_API_KEY_FILE": str(secret)}
    settings = load(environment, folder=tmp_path)
    secret.unlink()
    assert load(environment | settings.child_environment(), folder=tmp_path) == settings


def test_reading_settings_loads_nothing_but_dotenv() -> None:
    """Every process does it first."""
    program = "import sys; before = set(sys.modules); import config.settings\n"
    program += "new = {name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names\n"
    program += "sys.exit(sorted(new - {'config', 'dotenv'}) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


EXAMPLE = (ROOT / ".env.example").read_text("utf-8")


def test_the_example_lists_exactly_the_settings_there_are() -> None:
    listed = re.findall(r"^# ([A-Z_]+)=", EXAMPLE, re.MULTILINE)
    assert sorted(listed) == sorted(VARIABLES)


def test_the_example_sets_nothing_by_itself(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(EXAMPLE, "utf-8")
    assert load({}, folder=tmp_path) == Settings()


def test_the_example_uncommented_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^# ([A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text, "utf-8")
    settings = load({}, folder=tmp_path)
    for field in dataclasses.fields(Settings):
        if field.name != "sources" and field.default is not None:
            assert getattr(settings, field.name) == field.default, field.name


def test_a_password_of_flower_is_one_password(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ASKQ_FLOWER_PASSWORD=… .* is not a password without commas"):
        load({"ASKQ_FLOWER_PASSWORD": "can,ary"}, folder=tmp_path)
    settings = load({"ASKQ_FLOWER_PASSWORD": "can:ary=;"}, folder=tmp_path)
    assert settings.flower_password is not None
    assert settings.flower_password.reveal() == "can:ary=;"
