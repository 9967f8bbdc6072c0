import pytest

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
