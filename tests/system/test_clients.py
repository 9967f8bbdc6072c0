"""The official client through nginx, and a public server that nobody here wrote."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.fix_stack import KEY, Running, each_worker, registered

pytestmark = [pytest.mark.system, pytest.mark.anyio]


@asynccontextmanager
async def connect(url: str, mode: Literal["legacy", "auto"], **callbacks: Any) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, follow_redirects=True) as http_client,
        Client(streamable_http_client(url, http_client=http_client), mode=mode, **callbacks) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(("address", "prefix"), [("/mcp", "sdk__"), ("/mcp/servers/sdk/mcp", "")])
async def test_the_python_sdk_lists_and_calls_while_progress_arrives(
    stack: Running, address: str, prefix: str, mode: Literal["legacy", "auto"]
) -> None:
    steps: list[tuple[float, float | None]] = []
    logs: list[Any] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        steps.append((time.monotonic(), progress))

    async def logged(params: Any) -> None:
        logs.append(params.data)

    with registered(stack, "sdk"):
        async with connect(stack.url + address, mode, logging_callback=logged) as client:
            tools = (await client.list_tools()).tools
            assert f"{prefix}stub.echo" in {tool.name for tool in tools}
            echoed = await client.call_tool(f"{prefix}stub.echo", {"text": "hello"})
            assert echoed.structured_content == {"text": "hello"}
            arguments = {"steps": 3, "seconds": 0.9}
            done = await client.call_tool(f"{prefix}stub.progress", arguments, progress_callback=progressed)
            finished = time.monotonic()
            assert not done.is_error
            failed = await client.call_tool(f"{prefix}stub.fail", {})
            assert failed.is_error
            assert len((await client.list_resources()).resources) >= 2
            assert len((await client.list_resource_templates()).resource_templates) >= 1
            read = await client.read_resource("stub://test-resource-1")
            assert "test-resource-1" in str(read.contents[0])
            prompts = (await client.list_prompts()).prompts
            assert f"{prefix}greet" in {prompt.name for prompt in prompts}
            got = await client.get_prompt(f"{prefix}greet", {"name": "Ada"})
            assert "Ada" in str(got.messages[0].content)
    assert [progress for _, progress in steps] == [1, 2, 3]
    assert finished - steps[0][0] > (finished - steps[-1][0]) + 0.1, "progress came in one burst at the end"
    assert logs == ["step 1", "step 2", "step 3"]


@contextmanager
def everything(stack: Running, url: str) -> Iterator[httpx.Client]:
    with registered(stack, "everything", url=url) as stored, stack.client() as client:
        assert stored["state"] == "ready", stored["reason"]
        yield client


def test_a_public_server_is_registered_listed_and_called_through_nginx(stack: Running, everything_server: str) -> None:
    with everything(stack, everything_server) as client:
        names = [
            tool["name"] for tool in client.get("/mcp/tools", headers={"accept": "application/json"}).json()["tools"]
        ]
        assert "everything__echo" in names
        call = {"name": "everything__echo", "arguments": {"message": "hello"}}
        answers = each_worker(stack, lambda worker: worker.post("/mcp/tools/call", json=call).json())
        assert {answer["result"]["content"][0]["text"] for answer in answers.values()} == {"Echo: hello"}
        refused = client.post("/mcp/tools/call", json={"name": "everything__echo", "arguments": {}}).json()
        assert refused["result"]["isError"] is True


async def test_the_python_sdk_reaches_the_public_server_at_its_own_address(
    stack: Running, everything_server: str
) -> None:
    with everything(stack, everything_server):
        async with connect(f"{stack.url}/mcp/servers/everything/mcp", "legacy") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert "echo" in names
            assert "Echo: hi" in str(await client.call_tool("echo", {"message": "hi"}))
            assert (await client.list_prompts()).prompts
            assert (await client.list_resources()).resources is not None
