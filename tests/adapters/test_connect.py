"""Connections go to vetted addresses only, whatever the name server says the next time."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address

import httpx
import pytest

from gateway.model.addresses import Address
from gateway.upstream.connect import AddressRefused, Dialer, NotResolved, Vetting

pytestmark = pytest.mark.anyio


class Names:
    """A name server that gives one answer after the other, and the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str) -> list[Address]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ip_address(text) for text in answer]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "0x7f.1", "2130706433", "017700000001", "127.0.0.1.", "::1", "::ffff:10.0.0.1", "1.2.3.4.5"],
)
async def test_an_address_is_judged_in_every_spelling(host: str) -> None:
    with pytest.raises(AddressRefused):
        await Vetting(allow_private=False).addresses(host)


async def test_of_several_answers_all_must_be_good() -> None:
    vetting = Vetting(allow_private=False, resolve=Names(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(AddressRefused):
        await vetting.addresses("two.test")


async def test_an_unknown_name_is_no_refusal() -> None:
    with pytest.raises(NotResolved):
        await Vetting(allow_private=False).addresses("no-such-host.invalid")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        host = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(host), host))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_the_connection_goes_to_the_judged_address_and_the_name_stays_in_host(port: int) -> None:
    names = Names(["127.0.0.1"])
    async with Dialer(Vetting(allow_private=True, resolve=names), connect_seconds=5, via="us").client({}) as client:
        answer = await client.get(f"http://server.test:{port}/")
    assert answer.text.lower() == f"host: server.test:{port}"
    assert names.asked == 1


async def test_a_name_that_changes_its_mind_is_judged_again_at_each_connect(port: int) -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with Dialer(Vetting(allow_private=True, resolve=names), connect_seconds=5, via="us").client({}) as client:
        assert (await client.get(f"http://server.test:{port}/")).status_code == 200
        with pytest.raises(AddressRefused):
            await client.get(f"http://server.test:{port}/")


async def test_the_next_address_is_tried_when_one_does_not_answer(port: int) -> None:
    names = Names(["::1", "127.0.0.1"])
    async with Dialer(Vetting(allow_private=True, resolve=names), connect_seconds=5, via="us").client({}) as client:
        assert (await client.get(f"http://server.test:{port}/")).status_code == 200


async def test_a_slow_name_server_is_bounded() -> None:
    async def never(host: str) -> list[Address]:
        await asyncio.Event().wait()
        return []

    async with Dialer(Vetting(allow_private=True, resolve=never), connect_seconds=0.05, via="us").client({}) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://server.test/")
