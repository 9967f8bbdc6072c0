"""Upstreams whose sessions are bound to one process, over two workers: whoever does not hold them asks the holder."""

import asyncio
import json
from typing import Any

import pytest

from tests.asgi import Client
from tests.talk import OWN, STREAM, call, initialize, next_message, request, tell

pytestmark = [pytest.mark.anyio, pytest.mark.system]


def text(answer: Any) -> str:
    found: str = answer["result"]["content"][0]["text"]
    return found


async def register(worker: Client, **spec: Any) -> Any:
    status, _, stored = await worker.ask("PUT", "/mcp/servers/demo", value=spec)
    assert (status, stored["state"]) == (200, "ready"), stored
    return stored


@pytest.mark.parametrize("named", [True, False])
async def test_an_old_sse_server_is_found_out_or_named(
    two_real: tuple[Client, Client], upstreams: dict[str, str], named: bool
) -> None:
    spec = {"url": upstreams["sse"]} | ({"transport_type": "sse"} if named else {})
    stored = await register(two_real[0], **spec)
    assert stored["counts"]["tools"] > 20


async def test_both_workers_use_the_one_session_with_an_old_server(
    two_real: tuple[Client, Client], upstreams: dict[str, str]
) -> None:
    await register(two_real[0], url=upstreams["sse"], transport_type="sse")
    session = await initialize(two_real[0])
    for worker in (*two_real, *two_real):
        assert text(await call(worker, session, "test_simple_text")).startswith("This is a simple")
    body = request("tools/call", 3, name="count", arguments={"key": "k"}, _meta={"progressToken": "t"})
    for times, worker in enumerate(two_real, 1):
        async with worker.open("POST", OWN, value=body, headers=session) as stream:
            messages = [json.loads(event.data) for event in await stream.events()]
        assert [each["params"]["progress"] for each in messages[:-1]] == [1, 2, 3, 4, 5]
        assert text(messages[-1]) == f"called {times} times"


@pytest.mark.parametrize("asked_at", [0, 1])
async def test_a_question_of_an_old_server_is_answered_at_either_worker(
    two_real: tuple[Client, Client], upstreams: dict[str, str], asked_at: int
) -> None:
    await register(two_real[0], url=upstreams["sse"], transport_type="sse")
    session = await initialize(two_real[0])
    await call(two_real[0], session, "test_simple_text")  # so that it is the first that holds it
    body = request("tools/call", 3, name="test_sampling", arguments={"prompt": "hello"})
    async with two_real[asked_at].open("POST", OWN, value=body, headers=session) as stream:
        question = await next_message(stream)
        assert question["params"]["messages"][0]["content"]["text"] == "hello"
        result = {"role": "assistant", "content": {"type": "text", "text": "hi"}, "model": "m"}
        assert (await tell(two_real[1 - asked_at], session, {"id": question["id"], "result": result}))[0] == 202
        assert text(await next_message(stream)) == "LLM response: hi"


async def test_the_own_stream_hears_an_old_server_at_either_worker(
    two_real: tuple[Client, Client], upstreams: dict[str, str]
) -> None:
    await register(two_real[0], url=upstreams["sse"], transport_type="sse")
    session = await initialize(two_real[0])
    watched = request("resources/subscribe", uri="test://watched-resource")
    await two_real[0].ask("POST", OWN, value=watched, headers=session)
    for worker in (two_real[1], two_real[0]):
        async with worker.open("GET", OWN, headers={**session, **STREAM}) as stream:
            hearing = asyncio.create_task(next_message(stream))
            async with asyncio.timeout(15):
                while not hearing.done():
                    await call(two_real[0], session, "touch")
                    await asyncio.sleep(0.2)
            assert (await hearing)["params"] == {"uri": "test://watched-resource"}
