"""Files of other products, in their documented shapes, as registrations; each names the page that it is taken from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import InvalidParams
from gateway.model.imports import Imported, read_import
from gateway.model.server_fields import parse_spec


def read(value: Any, **values: str) -> dict[str, Imported]:
    text = value if isinstance(value, str) else json.dumps(value)
    found = read_import(text, {name.replace("__", ":"): each for name, each in values.items()})
    for each in found.servers:
        if each.fields and not each.needed:
            parse_spec({"name": each.name, **each.fields})
    return {each.name: each for each in found.servers}


def fields(value: Any, name: str, **values: str) -> dict[str, Any]:
    return dict(read(value, **values)[name].fields)


def test_claude_desktop() -> None:
    """modelcontextprotocol.io/docs/develop/connect-local-servers"""
    found = fields(
        {
            "mcpServers": {
                "filesystem": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/d"]}
            }
        },
        "filesystem",
    )
    args = ["-y", "@modelcontextprotocol/server-filesystem", "/d"]
    assert found == {"transport_type": "stdio", "command": "npx", "args": args}


def test_claude_code_with_its_variables_and_projects() -> None:
    """code.claude.com/docs/en/mcp: .mcp.json, environment variable expansion; ~/.claude.json has projects"""
    value = {
        "mcpServers": {
            "api": {
                "type": "http",
                "url": "${API_BASE_URL:-https://api.example.com}/mcp",
                "headers": {"Authorization": "Bearer ${API_KEY}"},
            }
        },
        "projects": {
            "/home/ann/one": {"mcpServers": {"db": {"type": "stdio", "command": "db", "args": [], "env": {}}}}
        },
        "numStartups": 7,
    }
    found = read(value)
    assert found["api"].fields == {
        "url": "https://api.example.com/mcp",
        "transport_type": "http",
        "headers": {"Authorization": "Bearer ${env:API_KEY}"},
    }
    assert (found["api"].variables, found["api"].needed) == (("env:API_KEY",), ())
    assert found["db"].fields == {"transport_type": "stdio", "command": "db"}
    given = fields(value, "api", env__API_KEY="secret", env__API_BASE_URL="https://own.example")
    assert (given["url"], given["headers"]) == ("https://own.example/mcp", {"Authorization": "Bearer secret"})


def test_cursor_and_windsurf() -> None:
    """docs.cursor.com/context/mcp; docs.windsurf.com/windsurf/cascade/mcp (serverUrl)"""
    value = {
        "mcpServers": {
            "remote": {"url": "https://a.example/mcp", "headers": {"API_KEY": "v"}},
            "surf": {"serverUrl": "https://b.example/mcp", "disabled": True, "alwaysAllow": ["x"]},
            "env": {"command": "python", "args": ["s.py"], "env": {"KEY": "${env:MY_KEY}"}, "envFile": ".env"},
        }
    }
    found = read(value)
    assert found["remote"].fields["headers"] == {"API_KEY": "v"}
    assert (found["surf"].fields["url"], found["surf"].fields["enabled"]) == ("https://b.example/mcp", False)
    assert found["surf"].notes == ("'alwaysAllow' is not taken.",)
    assert found["env"].fields["env"] == {"KEY": "${env:MY_KEY}"}
    assert found["env"].notes == ("'envFile' is not taken.",)


def test_vs_code_with_inputs_and_comments() -> None:
    """code.visualstudio.com/docs/copilot/reference/mcp-configuration"""
    text = """{
      // asked for when it starts
      "inputs": [{"type": "promptString", "id": "perplexity-key", "description": "API Key", "password": true}],
      "servers": {
        "github": {"type": "http", "url": "https://api.githubcopilot.com/mcp"}, /* remote */
        "perplexity": {
          "type": "stdio", "command": "npx", "args": ["-y", "server-perplexity-ask", "${workspaceFolder}"],
          "env": {"PERPLEXITY_API_KEY": "${input:perplexity-key}", "URL": "http://not//a comment"},
        },
      },
    }"""
    found = read(text)
    assert found["github"].fields == {"url": "https://api.githubcopilot.com/mcp", "transport_type": "http"}
    assert found["perplexity"].needed == ("input:perplexity-key",)
    assert "${workspaceFolder}" in found["perplexity"].notes[0]
    given = read_import(text, {"input:perplexity-key": "s"}).servers[1]
    assert given.fields["env"] == {"PERPLEXITY_API_KEY": "s", "URL": "http://not//a comment"}
    assert read({"mcp": {"servers": {"a": {"url": "https://a.example/mcp"}}}})["a"].fields["url"]


def test_zed_old_and_new() -> None:
    """zed.dev/docs/ai/mcp; before 2025-08 `command` was an object"""
    value = {
        "theme": "One Dark",
        "context_servers": {
            "new": {"source": "custom", "command": "some", "args": ["a"], "env": {"B": "c"}},
            "old": {"source": "custom", "command": {"path": "p", "args": ["a"], "env": {"B": "c"}}},
            "remote": {"url": "https://r.example/mcp", "headers": {"Authorization": "Bearer <token>"}},
            "extension": {"source": "extension", "settings": {}},
        },
    }
    found = read(value)
    assert found["new"].fields == {
        "transport_type": "stdio",
        "command": "some",
        "args": ["a"],
        "env": {"B": "c"},
    }
    assert found["old"].fields == {"transport_type": "stdio", "command": "p", "args": ["a"], "env": {"B": "c"}}
    assert found["remote"].fields["url"] == "https://r.example/mcp"
    assert (found["extension"].fields, found["extension"].notes) == ({}, ("It is an extension of Zed's.",))


def test_the_registrys_server_json() -> None:
    """static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json and its examples"""
    remote = {
        "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
        "name": "com.example/acme-analytics",
        "title": "ACME Analytics",
        "description": "Reports",
        "version": "2.0.0",
        "remotes": [
            {
                "type": "streamable-http",
                "url": "https://{tenant}.example.com/mcp",
                "headers": [{"name": "X-API-Key", "isRequired": True, "isSecret": True}, {"name": "X-Region"}],
            },
            {"type": "sse", "url": "https://analytics.example.com/sse"},
        ],
    }
    found = read(remote)["acme-analytics"]
    assert (found.fields["title"], found.fields["transport_type"]) == ("ACME Analytics", "http")
    assert set(found.needed) == {"input:X-API-Key", "input:tenant"}
    given = fields(remote, "acme-analytics", **{"input__X-API-Key": "k", "input__tenant": "t"})
    assert (given["url"], given["headers"]) == ("https://t.example.com/mcp", {"X-API-Key": "k"})
    package = {
        "name": "io.github.user/weather",
        "description": "Weather",
        "packages": [
            {
                "registryType": "npm",
                "identifier": "@user/weather",
                "version": "1.0.2",
                "transport": {"type": "stdio"},
                "packageArguments": [{"type": "named", "name": "--units", "value": "metric"}],
                "environmentVariables": [
                    {"name": "WEATHER_KEY", "isRequired": True, "isSecret": True},
                    {"name": "DEBUG"},
                ],
            }
        ],
    }
    given = fields(package, "weather", input__WEATHER_KEY="k")
    assert (given["command"], given["args"]) == ("npx", ["-y", "@user/weather@1.0.2", "--units", "metric"])
    assert given["env"] == {"WEATHER_KEY": "k"}
    page = {"servers": [{"server": remote, "_meta": {}}, {"server": package}], "metadata": {}}
    assert read(page).keys() == {"acme-analytics", "weather"}


LITELLM = """
model_list: []
general_settings:
  master_key: sk-1234
mcp_servers:
  deepwiki_mcp:
    url: "https://mcp.deepwiki.com/mcp"   # no key
  github_mcp:
    url: "https://api.githubcopilot.com/mcp"
    auth_type: "bearer_token"
    auth_value: os.environ/GITHUB_TOKEN
    extra_headers: ["x-custom-header"]
    allowed_tools: ["list_tools"]
  sse_one:
    url: "https://s.example/sse"
    transport: "sse"
    static_headers: {"X-A": "b"}
    mcp_info: {description: "An SSE server"}
  circle:
    transport: "stdio"
    command: "npx"
    args: ["-y", "@circleci/mcp-server-circleci"]
    env:
      CIRCLECI_TOKEN: os.environ/CIRCLECI_TOKEN
      CIRCLECI_BASE_URL: "https://circleci.com"
"""


def test_litellm() -> None:
    """docs.litellm.ai/docs/mcp"""
    found = read(LITELLM)
    assert found["deepwiki_mcp"].fields == {"url": "https://mcp.deepwiki.com/mcp", "transport_type": "http"}
    assert found["github_mcp"].fields["headers"] == {"Authorization": "Bearer ${env:GITHUB_TOKEN}"}
    assert any("grants" in note for note in found["github_mcp"].notes)
    assert "'extra_headers' is not taken." in found["github_mcp"].notes
    assert found["sse_one"].fields == {
        "url": "https://s.example/sse", "transport_type": "sse", "headers": {"X-A": "b"}, "description": "An SSE server"
    }  # fmt: skip
    assert found["circle"].fields["env"]["CIRCLECI_TOKEN"] == "${env:CIRCLECI_TOKEN}"


def test_contextforge() -> None:
    """mcpgateway/services/export_service.py of IBM/mcp-context-forge"""
    value = {
        "version": "2025-03-26",
        "exported_at": "2025-01-01T00:00:00Z",
        "encryption_method": "AES-256-GCM",
        "entities": {
            "gateways": [
                {
                    "name": "my server", "url": "https://g.example/sse", "description": "d", "transport": "SSE",
                    "capabilities": {}, "health_check": {"interval": 30}, "is_active": False,
                    "tags": ["a"], "passthrough_headers": [], "auth_type": "bearer", "auth_value": "gAAAA",
                }
            ],
            "tools": [{"name": "t"}],
            "roots": [],
        },
    }  # fmt: skip
    found = read(value)["my-server"]
    assert found.fields == {
        "url": "https://g.example/sse", "transport_type": "sse", "description": "d", "enabled": False, "tags": ["a"]
    }  # fmt: skip
    assert "gAAAA" not in repr(found)
    assert any("encrypted" in note for note in found.notes)
    assert "tools (1)" in read_import(json.dumps(value)).notes[0]


def test_our_own_export() -> None:
    value = {
        "format": "mcp-gateway export",
        "version": 1,
        "servers": {"a": {"url": "https://a.example/mcp", "tags": ["x"]}},
    }
    assert read(value)["a"].fields == {"url": "https://a.example/mcp", "tags": ["x"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"mcpServers": {"a": {"url": }}}', "line 1, column 30"),
        ('{\n  "mcpServers": {\n    "a": x\n  }\n}', "line 3, column 10"),
        ('{"mcpServers": {"a": {}, "a": {}}}', "'a' stands twice in one place of the file: again at line 1, column 26"),
        (
            '{"a": "\\"a\\": {", // a: "a":\n'
            ' "mcpServers": {"x": {"a": [{"a": 1}]}, "b": {"a": {},\n'
            '  "\\u0061" : {}}}}',
            "'a' stands twice in one place of the file: again at line 3, column 3",
        ),
        (
            "mcp_servers:\n  a:\n    url: x\n  a:\n    url: y\n",
            "'a' stands twice in one place of the file: again at line 4, column 3",
        ),
        ("mcp_servers:\n  a: [1, 2\n", "line 3"),
        ("a: &a [*a]\nb: {? [1]: 2}\n", ""),
        ("{}", "none of the files"),
        ("[]", "must hold an object"),
        ("", "must hold an object"),
        ("just words", "must hold an object"),
        ('{"servers": 1}', "none of the files"),
        ("[" * 100_000, ""),
        ("!!python/object/apply:os.system ['true']", ""),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InvalidParams) as error:
        read_import(text)
    assert said in error.value.detail
    assert error.value.facts["field"] == "text"


def test_what_can_not_be_taken_of_one_server_keeps_no_other() -> None:
    found = read(
        {"mcpServers": {"none": {}, "text": "x", "ok": {"url": "https://a.example/"}, "nothing": {"args": []}}}
    )
    assert [name for name, each in found.items() if each.fields] == ["ok"]
    assert found["none"].notes == ("It has neither a URL nor a command.",)


def test_names_become_ones_that_can_be_had() -> None:
    found = read(
        {
            "mcpServers": {
                each: {"url": "https://a.example/"} for each in ("My Server!", "my server", "My-Server", "ß", "-")
            }
        }
    )
    assert list(found) == ["My-Server", "my-server", "My-Server-2", "server", "server-2"]
    assert "becomes 'My-Server'" in found["My-Server"].notes[0]


ODD: list[Any] = [None, 5, "x", [], [1], {}, {"a": 1}, {"a": []}, [{"a": 1}], [None], True, 1.5]
_PLACES: list[tuple[str, str]] = [
    *(("mcpServers", each) for each in ("args", "env", "headers", "command", "url", "cwd", "type", "disabled")),
    *(("mcp_servers", each) for each in ("static_headers", "auth_type", "auth_value", "env", "args", "mcp_info")),
    *(("entities", each) for each in ("tags", "auth_type", "url", "headers", "description")),
    *(("server.json", each) for each in ("remotes", "packages", "title")),
]


@pytest.mark.parametrize(("format", "member"), _PLACES)
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_member_of_another_kind_keeps_no_other_server_out(format: str, member: str, odd: Any) -> None:
    good = {"url": "https://good.example/mcp"}
    bad = {"url": "https://bad.example/mcp", "auth_type": "api_key", "auth_value": "k", member: odd}
    if member in ("args", "env", "command", "cwd"):
        bad = {"command": "run", member: odd}
    text: dict[str, Any]
    if format == "server.json":
        remote = {"remotes": [{"type": "streamable-http", "url": "https://good.example/mcp"}]}
        text = {
            "servers": [{"server": {"name": "x/bad", **remote, member: odd}}, {"server": {"name": "x/good", **remote}}]
        }
    elif format == "entities":
        text = {"entities": {"gateways": [{"name": "bad", **bad}, {"name": "good", **good}]}}
    else:
        text = {format: {"bad": bad, "good": good}}
    found = {each.name: each for each in read_import(json.dumps(text)).servers}
    assert found["good"].fields["url"] == "https://good.example/mcp"
    assert found["bad"].fields or found["bad"].notes


def test_the_parts_of_a_registry_entry_may_be_of_another_kind() -> None:
    for odd in ODD:
        for inner in (
            {"remotes": [{"url": "https://a.example", "headers": odd}]},
            {"remotes": [odd]},
            {"packages": [odd]},
            {"packages": [{"registryType": "npm", "identifier": "a", "packageArguments": odd}]},
            {"packages": [{"registryType": "npm", "identifier": "a", "environmentVariables": odd, "transport": odd}]},
        ):
            for each in read_import(json.dumps({"name": "x/y", **inner})).servers:
                assert each.fields or each.notes


@pytest.mark.parametrize(
    "text",
    [
        '{"mcpServers": {"\\ud800": {"url": "https://a.example"}}}',
        '{"mcpServers": {"a": {"url": "https://a.example", "timeout": 1' + "0" * 5000 + "}}}",
        "mcp_servers:\n  a: &x {url: https://a.example, env: *x}\n",
        "mcp_servers:\n  a: {url: !!binary abc}\n",
        "mcp_servers:\n  a: {url: !!int abc}\n",
        "mcp_servers:\n  a: {url: !!timestamp 2022-13-45}\n",
        "mcp_servers: {? [1] : 2}\n",
        "{}" + " " * (512 << 10),
    ],
    ids=["surrogate", "number", "alias", "binary", "int", "timestamp", "key", "long"],
)
def test_what_json_can_not_carry_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams):
        read_import(text)


def test_yaml_has_dates_and_numbers_as_they_are_written() -> None:
    text = (
        "mcp_servers:\n 1:\n  url: https://a.example/mcp\n  static_headers: {X-Api-Version: 2022-11-28, X-Count: 5}\n"
    )
    assert fields(text, "1")["headers"] == {"X-Api-Version": "2022-11-28", "X-Count": "5"}


@pytest.mark.parametrize(
    "text",
    [
        '{"' + '\\"' * 200_000,
        "{" + "/* " * 160_000,
        "{" + "," * 500_000,
        "{" + ", " * 250_000,
        '{"a": "' + "/" * 500_000,
    ],
)
def test_a_long_file_is_read_once(text: str) -> None:
    """Each of them took minutes once: the time grew with the square of the length."""
    with pytest.raises(InvalidParams, match="not JSON"):
        read_import(text)


def test_the_name_among_the_fields_is_not_taken() -> None:
    text = json.dumps(
        {
            "format": "mcp-gateway export",
            "version": 1,
            "servers": {"shown": {"name": "hidden", "url": "https://a.example"}},
        }
    )
    (one,) = read_import(text).servers
    assert one.name == "shown"
    assert "name among its fields" in str(one.notes)


def test_a_value_that_comes_where_it_is_shown_is_told() -> None:
    found = read({"mcpServers": {"a": {"command": "run", "args": ["${input:token}"]}}}, input__token="s3cret")["a"]
    assert "stands where it is shown" in str(found.notes)
    kept = read({"mcpServers": {"a": {"command": "run", "env": {"T": "${input:token}"}}}}, input__token="s3cret")["a"]
    assert not kept.notes


def test_a_default_is_taken_until_there_is_a_value() -> None:
    file = {"mcpServers": {"a": {"url": "${BASE:-https://one.example}/mcp"}}}
    found = read(file)["a"]
    assert (found.fields["url"], found.optional, found.variables) == ("https://one.example/mcp", ("env:BASE",), ())
    assert fields(file, "a", env__BASE="https://two.example")["url"] == "https://two.example/mcp"
