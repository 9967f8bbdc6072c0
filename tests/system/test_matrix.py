"""Every client revision with every server revision: what comes through two replicas is what comes direct.

The client is the official SDK's, told to be of a revision; the server speaks but one. Both ends of 2024-11-05 use its
own transport, HTTP+SSE.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import mcp_types as types
import pytest
from mcp.client import session as sdk
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError

from tests.fix_everything import everything
from tests.fix_stack import KEY, Running, registered
from tests.sdk import Talk, connect

pytestmark = [
    pytest.mark.system,
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
WATCHED = "test://watched-resource"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """The URL of a server of each revision."""
    with ExitStack() as parts:
        urls = {}
        for version in VERSIONS:
            how = ("sse",) if version == "2024-11-05" else ()
            port = parts.enter_context(everything(*how, version))
            urls[version] = f"http://127.0.0.1:{port}/{'sse' if how else 'mcp'}"
        yield urls


async def outcome(work: Any) -> Any:
    """A result as JSON, or the error."""
    try:
        result = await work
    except MCPError as error:
        return {"error": error.error.code, "message": error.error.message}
    return result.model_dump(mode="json", by_alias=True, exclude={"meta"}) if result is not None else None


async def play(client: ClientSession, talk: Talk, *, elicits: bool) -> dict[str, Any]:
    """Everything that a client of this revision can do with the server; what came of it."""
    seen: dict[str, Any] = {}
    for name in ("list_tools", "list_resources", "list_resource_templates", "list_prompts"):
        seen[name] = await outcome(getattr(client, name)())
    calls: dict[str, dict[str, Any]] = {
        "test_simple_text": {},
        "test_image_content": {},
        "test_audio_content": {},
        "test_embedded_resource": {},
        "test_multiple_content_types": {},
        "test_error_handling": {},
        "structured": {"width": 2, "height": 3},
        "links": {},
        "large": {"size": 300_000},
        "no_such_tool": {},
        "test_sampling": {"prompt": "hello"},
        "roots": {},
        "test_tool_with_logging": {},
        **({"test_elicitation": {"message": "Name?"}} if elicits else {}),
    }
    for name, arguments in calls.items():
        seen[name] = await outcome(client.call_tool(name, arguments))
    steps: list[Any] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        steps.append([progress, total, message])

    await client.call_tool("test_tool_with_progress", {}, None, progressed)
    seen["progress"] = steps
    for uri in ("test://static-text", "test://static-binary", "test://template/7/data", "test://nothing"):
        seen[uri] = await outcome(client.read_resource(uri))
    seen["prompt"] = await outcome(client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"}))
    seen["image prompt"] = await outcome(client.get_prompt("test_prompt_with_image"))
    seen["no prompt"] = await outcome(client.get_prompt("no_such_prompt"))
    reference = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
    seen["completion"] = await outcome(client.complete(reference, {"name": "arg1", "value": "pa"}))
    seen["level"] = await outcome(client.set_logging_level("info"))
    seen["ping"] = await outcome(client.send_ping())
    seen["subscribe"] = await outcome(client.subscribe_resource(WATCHED))
    async with asyncio.timeout(20):
        while talk.told.empty():
            await client.call_tool("touch", {})
            await asyncio.sleep(0.1)
    seen["updated"] = talk.told.get_nowait()
    seen["unsubscribe"] = await outcome(client.unsubscribe_resource(WATCHED))
    seen["asked"], seen["logs"] = talk.asked, talk.logs
    return seen


@pytest.mark.parametrize("server", VERSIONS)
@pytest.mark.parametrize("client", VERSIONS)
async def test_through_the_gateway_is_as_direct(
    stack: Running, servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, client: str, server: str
) -> None:
    monkeypatch.setattr(sdk, "LATEST_HANDSHAKE_VERSION", client)
    elicits = min(client, server) >= "2025-06-18"
    direct, through = Talk(), Talk()
    async with connect(servers[server], client, direct) as session:
        expected = await play(session, direct, elicits=elicits)
    with registered(stack, "matrix", url=servers[server], prefix="") as stored:
        assert (stored["state"], stored["protocol_version"]) == ("ready", server), stored
        url = f"{stack.url}/sse" if client == "2024-11-05" else f"{stack.url}/mcp/servers/matrix/mcp"
        async with connect(url, client, through, KEY) as session:
            came = await play(session, through, elicits=elicits)
    assert len(expected["large"]["content"][0]["text"]) == 300_000
    assert len(expected["progress"]) == 3
    if client == "2024-11-05":  # at the aggregate, whose lists are sorted, as are its words for what is not there
        for name in ("list_tools", "list_resources", "list_resource_templates", "list_prompts"):
            [kind] = [key for key in expected[name] if isinstance(expected[name][key], list)]
            expected[name][kind].sort(key=json.dumps)
            came[name][kind].sort(key=json.dumps)
        assert "error" in came.pop("test://nothing")
        expected.pop("test://nothing")
    for name in ("no_such_tool", "no prompt"):  # what a server does not list is not sent to it
        assert "error" in came.pop(name)
        expected.pop(name)
    for name, value in expected.items():
        assert came[name] == value, name
