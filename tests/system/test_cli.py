"""The command line against a running stack, as a person and as a script would use it."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.run.embedded import nginx_binary
from tests.command_line import Run, runner
from tests.fix_stack import Running, free_ports

pytestmark = pytest.mark.system


@pytest.fixture
def run(stack: Running) -> Iterator[Run]:
    """Run a command against the stack; the server it may have added is gone afterwards."""
    run = runner(stack.url)
    yield run
    with stack.client() as client:
        client.delete("/mcp/servers/cli")


def test_a_server_is_added_listed_shown_refreshed_and_removed(run: Run, stack: Running) -> None:
    added = run("servers", "add", "cli", stack.stub, "--description", "mine", "--header", "X-Key: v", "--tag", "a")
    assert added.stdout.strip() == "cli is ready with 9 tools"
    assert "cli" in run("servers", "list").stdout
    shown = json.loads(run("servers", "show", "cli", "--json").stdout)
    assert (shown["description"], shown["headers"], shown["tags"]) == ("mine", {"X-Key": "[redacted]"}, ["a"])
    assert "mine" in run("servers", "show", "cli").stdout
    assert "ready" in run("servers", "refresh", "cli").stdout
    again = run("servers", "add", "cli", stack.stub, "--description", "other", code=1)
    assert "different server" in again.stderr
    assert "--replace" in again.stderr
    assert "PUT" not in again.stderr
    run("servers", "add", "cli", stack.stub, "--description", "other", "--replace")
    assert run("servers", "remove", "cli").stdout.strip() == "cli is removed"
    assert "`servers list` shows what there is" in run("servers", "show", "cli", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["text=hello", "n=3"], {"text": "hello", "n": 3}),
        (['{"text": "x=y"}'], {"text": "x=y"}),
        (["list=[1, 2]", "flag=true"], {"list": [1, 2], "flag": True}),
    ],
)
def test_a_tool_is_called_with_arguments(run: Run, stack: Running, arguments: list[str], said: Any) -> None:
    run("servers", "add", "cli", stack.stub)
    assert json.loads(run("tools", "call", "cli__stub.echo", *arguments).stdout) == said
    answer = json.loads(run("tools", "call", "cli__stub.echo", *arguments, "--json").stdout)
    assert answer["result"]["structuredContent"] == said


def test_tools_are_listed_and_progress_does_not_disturb_scripts(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    assert "values*" in run("tools", "list", "--server", "cli").stdout
    names = [tool["name"] for tool in json.loads(run("tools", "list", "--server", "cli", "--json").stdout)["tools"]]
    assert len(names) == 9
    done = run("tools", "call", "cli__stub.progress", "steps=3", "seconds=0.3")
    assert done.stdout == "3 steps done\n"
    assert "step 1" in done.stderr


def on_terminal(stack: Running, words: list[str], typed: str) -> str:
    """What a command says on a terminal where this is typed."""
    screen, terminal = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "GATEWAY_URL": stack.url}
    command = [sys.executable, "-m", "gateway", *words]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        os.write(screen, typed.encode())
        said = b""
        try:
            while data := os.read(screen, 4096):
                said += data
        except OSError:  # its other end is closed
            pass
        finally:
            os.close(screen)
        assert process.wait(30) == 0, said.decode()
    return said.decode()


def test_what_a_tool_requires_is_asked_for_on_a_terminal(run: Run, stack: Running) -> None:
    """A value that does not fit is asked for again; what was given is not."""
    run("servers", "add", "cli", stack.stub)
    said = on_terminal(stack, ["tools", "call", "cli__stub.sum"], "seven\n[3, 4]\n")
    assert "values (array)" in said
    assert "It takes array." in said
    assert said.rstrip().endswith("7")
    said = on_terminal(stack, ["tools", "call", "cli__stub.sum", "values=[1, 2]"], "")
    assert "values (array)" not in said


def test_top_shows_servers_workers_and_calls_of_all_replicas(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    run("tools", "call", "cli__stub.echo", "text=hello")

    def is_there() -> bool:
        found = json.loads(run("top", "--json").stdout)
        workers = {each["replica"] for each in found["workers"]}
        called = [each for each in found["servers"] if each["name"] == "cli" and each["calls"] and each["p95_ms"]]
        return bool(len(workers) == 2 and called and any(row["tool"] == "stub.echo" for row in found["calls"]))

    assert any(is_there() for _ in range(15))  # figures and rows come a little later, on a busy machine more
    with stack.client() as client:
        made = client.post("/keys", json={"name": "watcher", "grants": {"allow": [{"servers": ["cli"]}]}}).json()
        seen = json.loads(run("top", "--json", GATEWAY_KEY=made["key"]).stdout)
        client.delete(f"/keys/{made['id']}")
    assert ([each["name"] for each in seen["servers"]], seen["workers"], seen["calls"]) == (["cli"], None, [])
    shown = run("top", "--once").stdout
    assert "cli" in shown
    assert "stub.echo" in shown


def test_top_draws_on_a_terminal_until_it_is_interrupted(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    screen, terminal = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "GATEWAY_URL": stack.url}
    command = [sys.executable, "-m", "gateway", "top"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment | {"TERM": "xterm"}
    ) as process:
        os.close(terminal)
        said = b""
        while b"cli" not in said or b"revision" not in said:
            said += os.read(screen, 4096)
        process.send_signal(signal.SIGINT)
        try:
            while os.read(screen, 4096):
                pass
        except OSError:  # its other end is closed
            pass
        os.close(screen)
        assert process.wait(30) == 0


def test_exit_codes_mean_something(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    assert "always fails" in run("tools", "call", "cli__stub.fail", code=1).stdout
    assert "nope" in run("tools", "call", "nope", code=1).stderr
    assert json.loads(run("tools", "call", "nope", "--json", code=1).stdout)["status"] == 404
    run("tools", "call", "nope", "not-a-pair", code=2)
    run("servers", "list", code=4, GATEWAY_MASTER_KEY="a-wrong-key")
    [port] = free_ports(1)
    assert "--url" in run("servers", "list", code=3, GATEWAY_URL=f"http://localhost:{port}").stderr


def test_check_finds_everything_well_through_nginx(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    found = {each["what"]: each for each in json.loads(run("check", "--json").stdout)}
    assert {"gateway", "database, Redis", "key", "server cli", "stream", "session header", "body size"} <= set(found)
    assert all(each["well"] for each in found.values())
    assert "ok" in run("check").stdout


def test_check_names_what_is_wrong_and_what_to_do(run: Run, stack: Running) -> None:
    [port] = free_ports(1)
    added = run("servers", "add", "cli", f"http://127.0.0.1:{port}/mcp", code=1)
    assert "`servers update cli --server-url URL` corrects it" in added.output
    done = run("check", "--json", code=1, DATABASE_URL=f"postgresql://postgres@127.0.0.1:{port}/x")
    wrong = {each["what"]: each for each in json.loads(done.stdout) if not each["well"]}
    assert set(wrong) == {"server cli", "DATABASE_URL"}
    assert "refused" in wrong["server cli"]["said"]
    assert "`servers update cli …`" in wrong["server cli"]["fix"]
    assert wrong["DATABASE_URL"]["fix"].startswith("correct DATABASE_URL")


BUFFERING = """
daemon off; pid nginx.pid; error_log stderr crit; {user}
events {{}}
http {{
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi; access_log off; client_max_body_size 1m; client_body_buffer_size 2m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream}; proxy_set_header Host localhost;
            {lines}
        }}
    }}
}}
"""


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (
            "proxy_ignore_headers X-Accel-Buffering; gzip on; gzip_types text/event-stream; gzip_min_length 0; "
            "gzip_proxied any;",
            {"stream", "body size"},
        ),
        (
            'proxy_set_header X-Request-Id ""; proxy_set_header Mcp-Session-Id "";',
            {"request id", "session header", "body size"},
        ),
    ],
)
def test_check_sees_a_load_balancer_that_buffers_strips_and_limits(
    run: Run, stack: Running, tmp_path: Any, lines: str, named: set[str]
) -> None:
    [port] = free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(
        BUFFERING.format(port=port, upstream=stack.replicas[0], user=user, lines=lines)
    )
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi", "logs"):
        (tmp_path / name).mkdir()
    command = [str(nginx_binary()), "-p", f"{tmp_path}/", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    process = subprocess.Popen(command)
    try:
        done = run("check", "--json", code=1, GATEWAY_URL=f"http://localhost:{port}", GATEWAY_MASTER_KEY=_key(stack))
    finally:
        process.terminate()
        process.wait(10)
    wrong = {each["what"]: each["fix"] for each in json.loads(done.stdout) if not each["well"]}
    assert set(wrong) == named
    assert "client_max_body_size" in wrong["body size"]


def _key(stack: Running) -> str:
    return stack.environment.get("GATEWAY_MASTER_KEY", "sk-master-key-change-me")


def test_a_server_is_disabled_changed_and_enabled_in_the_commands_own_words(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    assert run("servers", "disable", "cli").stdout.strip() == "cli is disabled"
    refused = run("tools", "call", "cli__stub.echo", "text=x", code=1)
    assert "`servers enable cli` switches it on" in refused.stderr
    assert "disabled" in run("servers", "list").stdout
    assert "no tools: server cli is disabled" in run("tools", "list", "--server", "cli").stderr
    assert "no tools with these words" in run("tools", "list", "-q", "nothing of the kind").stderr
    assert run("servers", "update", "cli", "--description", "new words", "--tag", "b").stdout.startswith(
        "cli is changed"
    )
    shown = json.loads(run("servers", "show", "cli", "--json").stdout)
    assert (shown["description"], shown["tags"], shown["enabled"]) == ("new words", ["b"], False)
    assert run("servers", "enable", "cli").stdout.startswith("cli is enabled")
    assert json.loads(run("tools", "call", "cli__stub.echo", "text=x").stdout) == {"text": "x"}
    run("servers", "update", "cli", code=2)


def test_options_stand_before_the_command_too(run: Run, stack: Running) -> None:
    [port] = free_ports(1)
    before = run("--url", stack.url, "--json", "servers", "list", GATEWAY_URL=f"http://localhost:{port}")
    assert "servers" in json.loads(before.stdout)
    run("--url", f"http://localhost:{port}", "servers", "list", "--url", stack.url)
    assert run("--version").stdout.strip() == run("version").stdout.strip() != ""


def test_resources_and_prompts_are_listed_and_read(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    uris = [
        each["uri"] for each in json.loads(run("resources", "list", "--server", "cli", "--json").stdout)["resources"]
    ]
    assert len(uris) == 2
    assert uris[0] in run("resources", "list").stdout
    assert "This is test-resource" in run("resources", "read", uris[0]).stdout
    assert "greet" in run("prompts", "list", "--server", "cli").stdout
    assert run("prompts", "get", "cli__greet", "name=Ada").stdout == "user: Please greet Ada.\n"
    assert "list" in run("resources", "list", "--server", "nobody", code=1).stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("tools", "call", "cli__stub.ehco"), "cli__stub.echo"),
        (("tools", "call", "stub.ehco"), "cli__stub.echo"),
        (("prompts", "get", "cli__gret"), "cli__greet"),
        (("resources", "read", "stub://test-resource-11"), "stub://test-resource-1"),
    ],
)
def test_a_typo_gets_what_was_probably_meant(run: Run, stack: Running, words: tuple[str, ...], meant: str) -> None:
    run("servers", "add", "cli", stack.stub)
    assert f"Did you mean {meant}" in run(*words, code=1).stderr


def test_a_program_is_named_after_two_dashes(run: Run, stack: Running) -> None:
    refused = run("servers", "add", "cli", "-e", "A=b", "--", "npx", "-y", "some-package", "--flag", code=1)
    assert "GATEWAY_ALLOW_STDIO=true" in refused.stderr  # it was read as a program
    run("servers", "add", "cli", "--", code=2)
    run("servers", "add", "cli", code=2)
    run("servers", "add", "cli", stack.stub, "--command", "x", code=2)
    forgotten = run("servers", "add", "cli", "npx", "-y", "some-package", code=2)
    assert "put `--` before the program: servers add cli -- npx -y …" in " ".join(
        forgotten.output.replace("│", "").split()
    )


def test_a_refused_field_is_named_as_the_option_that_sets_it(run: Run, stack: Running) -> None:
    refused = run("servers", "add", "cli", stack.stub, "--transport", "htp", code=1)
    assert "--transport must be one of" in refused.stderr


def test_what_a_schema_declares_as_text_is_sent_as_text(run: Run, stack: Running) -> None:
    run("servers", "add", "cli", stack.stub)
    for name in ("cli__stub.echo", "stub.echo"):
        got = json.loads(run("tools", "call", name, "text=123", "n=3", "--json").stdout)
        assert got["result"]["structuredContent"] == {"text": "123", "n": 3}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (["python3 /tmp/prog.py"], "servers add cli -- python3 /tmp/prog.py"),
        (["localhost:9100/mcp"], "http://localhost:9100/mcp"),
        (["http://a.test/mcp", "http://b.test/mcp"], "name one URL"),
    ],
)
def test_a_place_that_is_none_is_told_from_what_it_looks_like(run: Run, place: list[str], said: str) -> None:
    refused = run("servers", "add", "cli", *place, code=2)
    assert said in " ".join(refused.output.replace("│", "").split())


def test_a_wide_table_wraps_and_cuts_nothing(run: Run, stack: Running) -> None:
    long = "https://example.org/" + "x" * 300
    run("servers", "add", "cli", long, code=1)
    assert run("servers", "list").stdout.replace("\n", "").replace("│", "").replace(" ", "").count("x" * 40) >= 1
    assert "…" not in run("servers", "list").stdout


def test_as_a_process_it_ends_with_its_code_and_one_line(stack: Running) -> None:
    """What only a process shows: the entry point, its exit code, and what follows two dashes."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {"PATH": os.environ["PATH"], "GATEWAY_URL": stack.url, **environment}
        command = [sys.executable, "-m", "gateway", *words]
        return subprocess.run(command, env=known, capture_output=True, text=True, timeout=60, check=False)

    listed = run("servers", "list", "--json")
    assert (listed.returncode, "servers" in json.loads(listed.stdout)) == (0, True)
    program = run("servers", "add", "cli", "--", "one-word")
    assert (program.returncode, "GATEWAY_ALLOW_STDIO=true" in program.stderr) == (1, True)
    wrong = run("servers", "list", GATEWAY_MASTER_KEY="a-wrong-key")
    assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (4, 1)
