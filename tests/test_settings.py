from pathlib import Path

import pytest

from gateway import settings as settings_module
from gateway.errors import SettingsError
from gateway.settings import DEMO_KEY, Settings


def test_the_environment_is_read_with_its_aliases() -> None:
    settings = Settings.from_environment(
        {
            "LITELLM_MASTER_KEY": "sk-something",
            "MCP_GATEWAY_ENABLED": "False",
            "REDIS_HOST": "r.example",
            "REDIS_PASSWORD": "p@ss",
            "GATEWAY_ALLOWED_ORIGINS": "https://a, https://b",
            "DATABASE_URL": "",
        }
    )
    assert settings.master_key == "sk-something"
    assert not settings.enabled
    assert settings.redis_url == "redis://:p%40ss@r.example:6379/0"
    assert settings.allowed_origins == ("https://a", "https://b")
    assert settings.database_url is None


def test_our_own_name_wins_over_the_alias() -> None:
    values = {"LITELLM_MASTER_KEY": "sk-theirs-1", "GATEWAY_MASTER_KEY": "sk-ours-12"}
    assert Settings.from_environment(values).master_key == "sk-ours-12"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_PORT", "eighty"),
        ("GATEWAY_PORT", "70000"),
        ("GATEWAY_WORKERS", "0"),
        ("MCP_GATEWAY_ENABLED", "perhaps"),
        ("GATEWAY_PUBLIC_URL", "example.org"),
        ("GATEWAY_SECRET", "short"),
        ("GATEWAY_MASTER_KEY", "has space"),
        ("GATEWAY_SEPARATOR", "a/b"),
        ("REDIS_PORT", "x"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_setting(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environment({name: value, "REDIS_HOST": "h"})
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)
    if "KEY" in name or "SECRET" in name:
        assert value not in str(refusal.value)


def test_the_public_demo_key_never_leaves_loopback() -> None:
    with pytest.raises(SettingsError):
        Settings.from_environment({"GATEWAY_MASTER_KEY": DEMO_KEY, "GATEWAY_HOST": "0.0.0.0"})


def test_a_ranking_that_needs_what_is_not_installed_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None if name == "wordllama" else object())
    with pytest.raises(SettingsError, match=r"pip install 'mcp-micro-gateway\[semantic\]'"):
        Settings.from_environment({"GATEWAY_TOOL_RANKING": "semantic"})
    monkeypatch.setattr(settings_module, "find_spec", lambda name: object())
    assert Settings.from_environment({"GATEWAY_TOOL_RANKING": "semantic"}).tool_ranking == "semantic"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GATEWAY_WORKER", "did you mean GATEWAY_WORKERS?"),
        ("GATEWAY_MASTERKEY", "did you mean GATEWAY_MASTER_KEY?"),
        ("MCP_GATEWAY_ENABLE", "did you mean MCP_GATEWAY_ENABLED?"),
        ("GATEWAY_COFFEE", "it has no effect"),
    ],
)
def test_a_misspelled_setting_is_told_with_the_near_one(name: str, said: str) -> None:
    [line] = Settings.misspelled({name: "1", "PATH": "/bin"})
    assert line.startswith(f"{name}: there is no such setting")
    assert said in line


def test_what_is_right_or_not_ours_is_no_misspelling() -> None:
    kubernetes = {"GATEWAY_SERVICE_HOST": "10.0.0.1", "GATEWAY_PORT_4000_TCP": "tcp://x", "GATEWAY_SERVICE_PORT": "1"}
    right = {"GATEWAY_WORKERS": "2", "GATEWAY_URL": "http://x", "LITELLM_MASTER_KEY": "x"}
    assert Settings.misspelled(kubernetes | right) == []


@pytest.mark.parametrize("value", ["10.0.0.0/99", "a b", "http://x/", "10.0.0.0/8,x/y"])
def test_an_upstream_that_is_none_is_named(value: str) -> None:
    with pytest.raises(SettingsError, match="GATEWAY_ALLOWED_UPSTREAMS"):
        Settings.from_environment({"GATEWAY_ALLOWED_UPSTREAMS": value})


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-from-a-file\n")
    settings = Settings.from_environment({"GATEWAY_MASTER_KEY_FILE": str(file), "REDIS_HOST": "h"})
    assert settings.master_key == "a-key-from-a-file"
    assert Settings.misspelled({"GATEWAY_MASTER_KEY_FILE": "x", "GATEWAY_SECRET_FILE": "x"}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "No such file"),
        ({"GATEWAY_MASTER_KEY": "long-enough"}, "set one of the two"),
        ({"GATEWAY_MASTER_KEY_FILE": "/dev/null"}, "is empty"),
    ],
)
def test_a_file_that_holds_no_secret_is_one_line(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    values = {"GATEWAY_MASTER_KEY_FILE": str(tmp_path / "nothing"), **changes}
    with pytest.raises(SettingsError, match=said):
        Settings.from_environment(values)


@pytest.mark.parametrize(
    ("changes", "anybody"),
    [
        ({}, False),
        ({"GATEWAY_HOST": "0.0.0.0"}, True),
        ({"GATEWAY_HOST": "::"}, True),
        ({"GATEWAY_HOST": "0.0.0.0", "GATEWAY_ALLOWED_HOSTS": "gw.example"}, False),
        ({"GATEWAY_HOST": "0.0.0.0", "GATEWAY_PUBLIC_URL": "https://gw.example"}, False),
    ],
)
def test_who_listens_everywhere_without_names_lets_any_host_in(changes: dict[str, str], anybody: bool) -> None:
    settings = Settings.from_environment({"GATEWAY_MASTER_KEY": "a-long-key-of-somebody-0123456789", **changes})
    assert settings.lets_any_host_in is anybody
