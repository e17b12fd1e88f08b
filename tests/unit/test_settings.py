"""Settings: environment over `.env` over default, every wrong one told at once, secrets never shown."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

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
            "REDIS_URL=http://example (from environment) is not a valid address that begins with redis:// or rediss://",
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
        ("OPENAI_BASE_URL", "api.openai.com/v1"),
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
        "ASKQ_LOG_LEVEL": "ERROR",
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
