"""Official clients at `/mcp` with three upstreams at once: Python's, TypeScript's, the Inspector's command line."""

import asyncio
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests import node
from tests.fix_node import Install
from tests.fix_stack import KEY, Running, registered
from tests.sdk import Talk, connect

pytestmark = [
    pytest.mark.system,
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
SIMPLE = "This is a simple text response for testing."


@pytest.fixture(scope="module")
def three(stack: Running, upstreams: dict[str, str], everything_server: str) -> Iterator[Running]:
    """`one` over streamable HTTP, `two` over the old transport, `three` a public server that nobody here wrote."""
    with ExitStack() as parts:
        for name, url in (
            ("one", upstreams["streamable_http"]),
            ("two", upstreams["sse"]),
            ("three", everything_server),
        ):
            stored = parts.enter_context(registered(stack, name, url=url))
            assert stored["state"] == "ready", stored["reason"]
        yield stack


def run(*command: str) -> str:
    done = subprocess.run(
        ["node", *command], env=node.environment(), timeout=90, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_the_python_sdk(three: Running, path: str) -> None:
    talk = Talk()
    async with connect(three.url + path, "2025-11-25", talk, KEY) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"one__test_simple_text", "two__test_simple_text", "three__echo"} <= names

        async def text(name: str, **arguments: Any) -> Any:
            result = await client.call_tool(name, arguments)
            return result.content[0].model_dump()["text"]

        one, two, echo = await asyncio.gather(
            text("one__test_simple_text"), text("two__test_simple_text"), text("three__echo", message="hi")
        )
        assert (one, two, echo) == (SIMPLE, SIMPLE, "Echo: hi")
        assert await text("one__test_sampling", prompt="hello") == "LLM response: hi"
        assert await text("one__test_elicitation", message="Name?") == (
            'User response: action=accept, content={"response":"Ada"}'
        )
        assert await text("two__roots") == '["file:///home"]'
        assert len(talk.asked) == 2
        await client.subscribe_resource("test://watched-resource")
        async with asyncio.timeout(20):
            while talk.told.empty():
                await client.call_tool("one__touch", {})
                await asyncio.sleep(0.1)


def test_the_typescript_sdk(three: Running, npm_install: Install) -> None:
    script = Path(__file__).parent / "client.mjs"
    sdk = npm_install("@modelcontextprotocol/sdk@1.32.2")
    seen = json.loads(run(str(script), str(sdk), f"{three.url}/mcp", KEY))
    assert {"one__count", "two__count", "three__echo"} <= set(seen["tools"])
    assert "one__test_simple_prompt" in seen["prompts"]
    assert seen["resources"] > 6
    assert (seen["one"], seen["two"], seen["three"]) == (SIMPLE, SIMPLE, "Echo: hello")
    assert "roots/list" in seen["asked"]  # `three` may ask as well, by itself
    assert [each for each in seen["asked"] if each != "roots/list"] == ["sampling/createMessage", "elicitation/create"]
    assert seen["sampled"] == "LLM response: hi"
    assert "Ada" in seen["elicited"]
    assert seen["roots"] == '["file:///home"]'
    assert seen["progress"] == [1, 2, 3, 4, 5]
    logs = [each for each in seen["logs"] if str(each).startswith("Tool")]  # `three` logs what it was asked, too
    assert logs == ["Tool execution started", "Tool processing data", "Tool execution completed"]
    assert seen["failed"] is True
    assert seen["read"] == "This is the content of the static text resource."
    assert seen["completed"] == ["paris", "park", "party"]
    assert set(seen["updated"]) == {"test://watched-resource"}
    assert seen["changed"] >= 1
    assert seen["unknown"] == -32602
    assert "enough" in seen["aborted"]
    assert seen["cancelled"] == "1"


@pytest.mark.parametrize("path", ["/mcp", "/sse"])
def test_the_inspectors_command_line(three: Running, npm_install: Install, path: str) -> None:
    inspector = npm_install("@modelcontextprotocol/inspector@2.12.0").parent.parent / ".bin" / "mcp-inspector"

    def inspect(*arguments: str) -> Any:
        header = f"Authorization: Bearer {KEY}"
        return json.loads(run(str(inspector), "--cli", three.url + path, "--header", header, "--method", *arguments))

    names = {tool["name"] for tool in inspect("tools/list")["tools"]}
    assert {"one__test_simple_text", "two__test_simple_text", "three__echo"} <= names
    for name in ("one__test_simple_text", "two__test_simple_text"):
        assert inspect("tools/call", "--tool-name", name)["content"][0]["text"] == SIMPLE
    echoed = inspect("tools/call", "--tool-name", "three__echo", "--tool-arg", "message=hi")
    assert echoed["content"][0]["text"] == "Echo: hi"
    assert inspect("resources/read", "--uri", "test://static-text")["contents"][0]["mimeType"] == "text/plain"
    prompt = inspect("prompts/get", "--prompt-name", "one__test_simple_prompt")
    assert prompt["messages"][0]["content"]["type"] == "text"


@pytest.mark.parametrize("key", ["a-wrong-key-of-mine", None])
@pytest.mark.parametrize("client", ["mcp-remote", "inspector"])
def test_a_client_with_a_wrong_key_says_so_and_ends(
    stack: Running, npm_install: Install, tmp_path: Path, client: str, key: str | None
) -> None:
    """Both begin a sign-in at the first 401; on a terminal they would wait for a browser."""
    header = [] if key is None else ["--header", f"Authorization: Bearer {key}"]
    if client == "mcp-remote":
        script = npm_install("mcp-remote@0.15.1") / "dist" / "proxy.js"
        command = ["node", str(script), f"{stack.url}/mcp", "--allow-http", *header]
    else:
        script = npm_install("@modelcontextprotocol/inspector@2.12.0").parent.parent / ".bin" / "mcp-inspector"
        command = ["node", str(script), "--cli", f"{stack.url}/mcp", *header, "--method", "tools/list"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, env=node.environment() | {"HOME": str(tmp_path), "BROWSER": "/bin/true"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        with suppress(OSError):  # it closed its end
            while piece := os.read(ours, 65536):
                said += piece
        assert process.wait(20) != 0
    finally:
        os.close(ours)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert b"it takes a key" in said, said.decode()
