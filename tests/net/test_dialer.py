"""Connections go to vetted addresses only, whatever the name server says the next time."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address

import httpx
import pytest

from gateway.errors import AddressRefused
from gateway.model.address_policy import Address, Allowed
from gateway.net.dialer import Dialer, NotResolved, Vetting

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
        await Vetting(Allowed()).addresses(host)


async def test_of_several_answers_all_must_be_good() -> None:
    vetting = Vetting(Allowed(), Names(["8.8.8.8", "10.0.0.1"]))
    with pytest.raises(AddressRefused):
        await vetting.addresses("two.test")


async def test_an_unknown_name_is_no_refusal() -> None:
    with pytest.raises(NotResolved):
        await Vetting(Allowed()).addresses("no-such-host.invalid")


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
    async with Dialer(Vetting(Allowed(everything=True), names), connect_seconds=5, via="us").client({}) as client:
        answer = await client.get(f"http://server.test:{port}/")
    assert answer.text.lower() == f"host: server.test:{port}"
    assert names.asked == 1


async def test_a_name_that_changes_its_mind_is_judged_again_at_each_connect(port: int) -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with Dialer(Vetting(Allowed(everything=True), names), connect_seconds=5, via="us").client({}) as client:
        assert (await client.get(f"http://server.test:{port}/")).status_code == 200
        with pytest.raises(AddressRefused):
            await client.get(f"http://server.test:{port}/")


async def test_the_next_address_is_tried_when_one_does_not_answer(port: int) -> None:
    names = Names(["::1", "127.0.0.1"])
    async with Dialer(Vetting(Allowed(everything=True), names), connect_seconds=5, via="us").client({}) as client:
        assert (await client.get(f"http://server.test:{port}/")).status_code == 200


async def test_a_slow_name_server_is_bounded() -> None:
    async def never(host: str) -> list[Address]:
        await asyncio.Event().wait()
        return []

    async with Dialer(Vetting(Allowed(everything=True), never), connect_seconds=0.05, via="us").client({}) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://server.test/")


@pytest.mark.parametrize(
    ("entries", "host", "address", "may"),
    [
        (["10.0.0.0/8"], "x.test", "10.1.2.3", True),
        (["10.0.0.0/8"], "x.test", "192.168.1.1", False),
        (["10.0.0.1"], "10.0.0.1", "10.0.0.1", True),
        (["fd00::/8"], "x.test", "fd12::1", True),
        (["[::1]"], "[::1]", "::1", True),
        (["*.corp.test"], "a.b.corp.test", "10.0.0.1", True),
        (["*.corp.test"], "A.CORP.test.", "127.0.0.1", True),
        (["*.corp.test"], "corp.test", "10.0.0.1", False),
        (["*.corp.test"], "x.corp.test.evil", "10.0.0.1", False),
        (["db"], "db", "127.0.0.1", True),
        (["*"], "anything", "169.254.169.254", False),
        (["169.254.0.0/16"], "x.test", "169.254.169.254", False),
    ],
)
async def test_private_addresses_are_allowed_by_network_and_by_name(
    entries: list[str], host: str, address: str, may: bool
) -> None:
    vetting = Vetting(Allowed.read(entries), Names([address]))
    if may:
        assert [str(each) for each in await vetting.addresses(host.strip("[]"))] == [address]
    else:
        with pytest.raises(AddressRefused):
            await vetting.addresses(host)
