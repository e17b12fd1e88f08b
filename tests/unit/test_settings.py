"""Settings: environment over `.env` over default, every wrong one told at once, secrets never shown."""

from __future__ import annotations

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


def test_empty_means_unset(tmp_path: Path) -> None:
    assert load({"OPENAI_API_KEY": "", "ASKQ_WORKERS": ""}, folder=tmp_path) == Settings()


def test_everything_wrong_is_told_at_once_with_what_is_allowed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ASKQ_LEASE_S=soon\n", "utf-8")
    wrong = {
        "REDIS_URL": "http://example",
        "ASKQ_WORKERS": "0",
        "ASKQ_PROTOCOL": "smtp",
        "ASKQ_SHOW_TEXT": "perhaps",
        "ASKQ_LEAS_S": "3",
    }
    with pytest.raises(SettingsError) as caught:
        load(wrong, folder=tmp_path)
    told = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 6
    for part in (
        "REDIS_URL=http://example (from environment) is not an address that begins with redis://",
        "ASKQ_WORKERS=0 (from environment) is not a whole number from 1 to 64",
        "ASKQ_PROTOCOL=smtp (from environment) is not one of responses, assistants",
        "ASKQ_SHOW_TEXT=perhaps (from environment) is not true or false",
        f"ASKQ_LEASE_S=soon (from {tmp_path / '.env'}) is not a number from 1 to 300",
        "ASKQ_LEAS_S is not a setting of askq; did you mean ASKQ_LEASE_S?",
    ):
        assert part in told


def test_the_key_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-from-a-file\n", "utf-8")
    settings = load({"OPENAI_API_KEY_FILE": str(secret)}, folder=tmp_path)
    assert settings.api_key == Secret("sk-from-a-file")
    assert str(secret) in settings.sources["api_key"]
    both = load({"OPENAI_API_KEY_FILE": str(secret), "OPENAI_API_KEY": "sk-direct"}, folder=tmp_path)
    assert both.api_key == Secret("sk-direct")
    with pytest.raises(SettingsError, match=r"OPENAI_API_KEY_FILE=.*cannot be read"):
        load({"OPENAI_API_KEY_FILE": str(tmp_path / "nothing")}, folder=tmp_path)


def test_secrets_do_not_show(tmp_path: Path) -> None:
    settings = load({"OPENAI_API_KEY": "sk-canary", "ASKQ_FLOWER_PASSWORD": "sk-canary"}, folder=tmp_path)
    assert settings.api_key is not None
    for shown in (repr(settings), str(settings), str(settings.api_key), f"{settings.api_key!r}"):
        assert "canary" not in shown
    assert settings.api_key.reveal() == "sk-canary"


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


def test_the_example_lists_exactly_the_settings_there_are() -> None:
    text = (ROOT / ".env.example").read_text("utf-8")
    listed = re.findall(r"^# ?([A-Z_]+)=", text, re.MULTILINE)
    assert sorted(listed) == sorted(VARIABLES)
    assert load({}, folder=ROOT / "examples").sources, "an example sets nothing by itself"
    assert not re.search(r"^[A-Z]", text, re.MULTILINE)
