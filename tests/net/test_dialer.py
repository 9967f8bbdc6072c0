"""Connections go to vetted addresses only, whatever the name server says the next time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from types import MappingProxyType

import httpx
import pytest

from gateway.errors import AddressRefused
from gateway.model.address_policy import Address, Allowed
from gateway.net.dialer import Dialer, Resolve, Vetting
from gateway.net.http_client import HttpClient
from gateway.net.resolver import NotResolved

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


@asynccontextmanager
async def client_of(
    resolve: Resolve, *, connect_seconds: float = 5, headers: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[HttpClient]:
    vetting = Vetting(Allowed(everything=True), resolve)
    client = Dialer(vetting, connect_seconds=connect_seconds, via="us").client(headers)
    yield client
    client.close()


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
    async with client_of(names) as client:
        answer = await client.send("GET", f"http://server.test:{port}/")
        assert await answer.read(100) == f"host: server.test:{port}".encode()
    assert names.asked == 1


async def test_a_name_that_changes_its_mind_is_judged_again_at_each_connect(port: int) -> None:
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with client_of(names) as client:
        assert (await client.send("GET", f"http://server.test:{port}/")).status == 200
        with pytest.raises(AddressRefused):
            await client.send("GET", f"http://server.test:{port}/")


async def test_the_next_address_is_tried_when_one_does_not_answer(port: int) -> None:
    names = Names(["::1", "127.0.0.1"])
    async with client_of(names) as client:
        assert (await client.send("GET", f"http://server.test:{port}/")).status == 200


async def test_a_slow_name_server_is_bounded() -> None:
    async def never(host: str) -> list[Address]:
        await asyncio.Event().wait()
        return []

    async with client_of(never, connect_seconds=0.05) as client:
        with pytest.raises(httpx.ConnectTimeout, match="resolved"):
            await client.send("GET", "http://server.test/")


async def test_headers_and_target_are_sent_as_they_are_known(port: int) -> None:
    async with client_of(Names(["127.0.0.1"]), headers={"X-Key": "v", "User-Agent": "mine"}) as client:
        endpoint = client.endpoint("POST", f"http://server.test:{port}/a b/ü?q=1#no", {"accept": "text/plain"})
        for url in ("ftp://server.test/", "http://", "/nowhere"):
            with pytest.raises((httpx.UnsupportedProtocol, httpx.InvalidURL)):
                client.endpoint("GET", url)
    assert endpoint.head.decode().split("\r\n") == [
        "POST /a%20b/%C3%BC?q=1 HTTP/1.1",
        f"host: server.test:{port}",
        "user-agent: mine",
        "accept-encoding: identity",
        "via: 1.1 us",
        "x-key: v",
        "accept: text/plain",
        "",
    ]


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
