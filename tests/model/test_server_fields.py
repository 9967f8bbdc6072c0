from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.errors import InvalidParams
from gateway.model.redaction import REDACTED, redact_arguments, redact_url
from gateway.model.server import Offers, Server, ServerSpec
from gateway.model.server_fields import parse_spec, patch_spec

GOOD = {"name": "demo", "url": "https://example.org/mcp"}


def test_a_specification_is_read_with_its_aliases() -> None:
    spec = parse_spec({"server_id": "demo", "url": GOOD["url"], "transport": "http", "tags": ["a", "a"]})
    assert spec == ServerSpec("demo", "https://example.org/mcp", tags=("a",))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": "demo\n"}, "name"),
        ({"name": 3}, "name"),
        ({"server_id": "a b"}, "name"),
        ({"type": "http", "transport": "sse"}, "transport"),
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "example.org/mcp"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://a b/"}, "url"),
        ({"url": "http://h:99999/"}, "url"),
        ({"url": "http://[::1/"}, "url"),
        ({"url": "http://u:p@h/"}, "url"),
        ({"url": "http://h/#x"}, "url"),
        ({"url": "http://h/\r\nx"}, "url"),
        ({"url": None}, "url"),
        ({"transport_type": "carrier pigeon"}, "transport_type"),
        ({"headers": {"X-A": "b\r\nX-C: d"}}, "headers.X-A"),
        ({"headers": {"X A": "b"}}, "headers"),
        ({"headers": {"Host": "b"}}, "headers.Host"),
        ({"headers": {"a": "1", "A": "2"}}, "headers.A"),
        ({"headers": {"X-A": REDACTED}}, "headers.X-A"),
        ({"headers": []}, "headers"),
        ({"enabled": "yes"}, "enabled"),
        ({"validate_arguments": 1}, "validate_arguments"),
        ({"prefix": "a b"}, "prefix"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": True}, "timeout_seconds"),
        ({"timeout_seconds": "5"}, "timeout_seconds"),
        ({"tags": "a"}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"x": "y" * 20_000}}, "metadata"),
        ({"description": 3}, "description"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        parse_spec(GOOD | change)
    assert refusal.value.facts["field"] == field


def test_no_secret_is_shown() -> None:
    spec = parse_spec(GOOD | {"url": "https://h/mcp?api_key=s3cret&x=1", "headers": {"Authorization": "Bearer s3cret"}})
    assert "s3cret" not in str(spec.public())
    assert spec.public()["headers"] == {"Authorization": REDACTED}
    assert redact_url(spec.url) == "https://h/mcp?api_key=[redacted]&x=[redacted]"


def test_a_redacted_value_sent_back_means_unchanged() -> None:
    for url in ("https://h/mcp?token=t", "https://h/s3cretabcdefghijklmnop/mcp"):
        stored = parse_spec(GOOD | {"url": url, "headers": {"X-Key": "v"}})
        assert parse_spec(stored.public(), stored) == stored


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/mcp", "https://h/mcp"),
        ("https://h/a/mcp?", "https://h/a/mcp"),
        ("https://h/mcp?code=s3cret&k=s3cret&empty=", "https://h/mcp?code=[redacted]&k=[redacted]&empty=[redacted]"),
        ("https://h/t/s3cretabcdefghijklmnop/sse", "https://h/t/[redacted]/sse"),
        ("https://h/550e8400-e29b-41d4-a716-446655440000/", "https://h/[redacted]/"),
        ("https://u:s3cret@h:1/mcp", "https://[redacted]@h:1/mcp"),
        ("https://h/only-letters-and-dashes-here/v1", "https://h/only-letters-and-dashes-here/v1"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["-m", "server", "--port", "80"], ["-m", "server", "--port", "80"]),
        (["--token", "s3cret", "x"], ["--token", "[redacted]", "x"]),
        (["--token", "--verbose"], ["--token", "--verbose"]),
        (["--token=s3cret", "NAME=s3cret"], ["--token=[redacted]", "NAME=[redacted]"]),
        (["postgresql://u:s3cret@db/x"], ["postgresql://[redacted]@db/x"]),
        (["s3cretabcdefghijklmnop", "/srv/data"], ["[redacted]", "/srv/data"]),
        (["--header", "Authorization: Bearer s3cret"], ["--header", f"Authorization: {REDACTED}"]),
        (["--header", "X-Team: s3cret", "-H", "s3cret"], ["--header", f"X-Team: {REDACTED}", "-H", REDACTED]),
        (["Authorization:Bearer s3cret", "X-API-Key: s3cret"], [f"Authorization:{REDACTED}", f"X-API-Key: {REDACTED}"]),
        (["--header=Authorization: Bearer s3cret"], [f"--header={REDACTED}"]),
        (["mcp-remote", "https://example.org/mcp", "a: b"], ["mcp-remote", "https://example.org/mcp", "a: b"]),
    ],
)
def test_arguments_are_shown_without_what_may_be_a_secret(arguments: list[str], shown: list[str]) -> None:
    assert redact_arguments(arguments) == shown


def test_arguments_that_are_sent_back_as_shown_are_unchanged_and_no_other_command_gets_them() -> None:
    program = {"name": "p", "transport_type": "stdio", "command": "run", "args": ["--token", "s3cret"]}
    stored = parse_spec(program)
    assert "s3cret" not in str(stored.public())
    assert parse_spec(stored.public(), stored) == stored
    for change in ({"command": "other"}, {"args": ["--token", REDACTED, "more"]}):
        with pytest.raises(InvalidParams) as refusal:
            parse_spec(stored.public() | change, stored)
        assert refusal.value.facts["field"] == "args"


def test_what_is_shown_can_be_sent_back() -> None:
    stored = parse_spec(GOOD)
    born = datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_spec(Server(stored, 1, born, born).public(), stored) == stored


def test_another_origin_never_gets_the_stored_headers() -> None:
    stored = parse_spec(GOOD | {"headers": {"X-Key": "v"}})
    assert patch_spec(stored, {"url": "https://evil.example/mcp"}).headers == {}
    with pytest.raises(InvalidParams):
        patch_spec(stored, {"url": "https://evil.example/mcp", "headers": {"X-Key": REDACTED}})
    assert patch_spec(stored, {"url": "https://example.org/other"}).headers == {"X-Key": "v"}


def test_a_patch_changes_what_it_names() -> None:
    stored = parse_spec(GOOD | {"tags": ["a"]})
    assert patch_spec(stored, {"enabled": False}) == ServerSpec("demo", GOOD["url"], enabled=False, tags=("a",))
    with pytest.raises(InvalidParams):
        patch_spec(stored, {"name": "other"})


def test_one_and_the_same_upstream_has_one_fingerprint() -> None:
    one = parse_spec(GOOD | {"headers": {"X-A": "1"}})
    assert one.fingerprint == parse_spec(GOOD | {"name": "b", "headers": {"x-a": "1"}}).fingerprint
    assert one.fingerprint != parse_spec(GOOD | {"headers": {"X-A": "2"}}).fingerprint
    local = parse_spec(GOOD | {"url": "http://localhost:80/mcp/"})
    assert local.fingerprint == parse_spec(GOOD | {"url": "http://127.0.0.1/mcp"}).fingerprint


def test_offers_survive_storage_verbatim() -> None:
    schema = {"type": "object", "$defs": {"b": 1, "a": {"$ref": "#/x"}}, "x": "\0"}
    offers = Offers(version="2025-11-25", tools=({"name": "t", "inputSchema": schema},))
    again = Offers.from_bytes(offers.to_bytes())
    assert again == offers
    assert list(again.tools[0]["inputSchema"]["$defs"]) == ["b", "a"]


@pytest.mark.parametrize("change", [{"command": "other"}, {"args": ["--other"]}])
def test_another_program_does_not_get_the_variables(change: dict[str, object]) -> None:
    stored = parse_spec({"name": "p", "transport_type": "stdio", "command": "one", "env": {"TOKEN": "secret"}})
    assert patch_spec(stored, {"title": "x"}).env == {"TOKEN": "secret"}
    assert patch_spec(stored, change).env == {}
    with pytest.raises(InvalidParams):
        parse_spec({**stored.public(), **change}, stored)


ROUTEIQ = {
    "server_id": "stub-mcp-1", "name": "test-stub", "url": "http://localhost:9100/mcp", "transport": "streamable_http",
    "tools": ["stub.echo"], "resources": ["stub://resource/demo"], "metadata": {"team": "x"},
}  # fmt: skip


def test_a_registration_of_other_gateways_clients_is_read() -> None:
    spec = parse_spec(ROUTEIQ)
    assert (spec.name, spec.title, spec.metadata) == ("stub-mcp-1", "test-stub", {"team": "x"})
    assert parse_spec({**ROUTEIQ, "title": "A stub"}).title == "A stub"
    assert parse_spec({**ROUTEIQ, "server_id": "test-stub"}).title is None
    assert patch_spec(spec, {"server_id": "stub-mcp-1", "name": "Other words"}).title == "Other words"


@pytest.mark.parametrize(
    ("said", "meant"), [("http", "streamable_http"), ("sse", "sse"), ("streamable-http", "streamable_http")]
)
def test_a_type_is_what_editors_files_call_the_transport(said: str, meant: str) -> None:
    assert parse_spec({**GOOD, "type": said}).transport_type == meant


def test_a_type_of_stdio_is_a_program() -> None:
    assert parse_spec({"name": "p", "type": "stdio", "command": "npx", "args": ["-y"]}).command == "npx"
