"""Names to addresses: names that hang cost nobody else."""

import asyncio
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from gateway.model.address_policy import Address
from gateway.net import resolver as module
from gateway.net.resolver import NotResolved, Resolver
from tests.waiting import until

pytestmark = pytest.mark.anyio
ONE, TWO = [ip_address("192.0.2.1")], [ip_address("192.0.2.2")]


class Names:
    """A name server that answers, refuses or hangs."""

    def __init__(self) -> None:
        self.known: dict[str, list[Address] | NotResolved] = {}
        self.asked: list[str] = []
        self.hanging: set[str] = set()
        self.go_on = threading.Event()
        self.now = 0.0

    def look_up(self, host: str) -> list[Address]:
        self.asked.append(host)
        if host in self.hanging:
            self.go_on.wait(30)
        found = self.known.get(host, NotResolved("there is none", is_final=True))
        if isinstance(found, NotResolved):
            raise found
        return found


@pytest.fixture
def names() -> Iterator[Names]:
    names = Names()
    names.known = {"one.test": ONE}
    yield names
    names.go_on.set()


@pytest.fixture
def resolver(names: Names) -> Resolver:
    return Resolver(names.look_up, lambda: names.now)


async def test_names_that_hang_do_not_hold_up_others(names: Names, resolver: Resolver) -> None:
    names.hanging = {f"slow{number}.test" for number in range(module._AT_ONCE - 1)}
    hanging = [asyncio.create_task(resolver.resolve(host)) for host in names.hanging for _ in range(3)]
    async with asyncio.timeout(10):
        assert await resolver.resolve("one.test") == ONE
        await until(lambda: len(names.asked) == module._AT_ONCE)
        assert len(set(names.asked)) == len(names.asked)  # a name is looked up once at a time
    for each in hanging:
        each.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_look_ups_are_bounded(names: Names, resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 1)
    names.hanging = {"slow.test"}
    hanging = asyncio.create_task(resolver.resolve("slow.test"))
    await until(lambda: names.asked == ["slow.test"])
    with pytest.raises(NotResolved, match="hang"):
        await resolver.resolve("one.test")
    names.go_on.set()
    with pytest.raises(NotResolved):
        await hanging
    assert await resolver.resolve("one.test") == ONE


async def test_what_was_found_is_good_for_a_while_and_serves_on_while_a_look_up_hangs(
    names: Names, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HANGS_SECONDS", 0.05)
    for _ in range(3):
        assert await resolver.resolve("one.test") == ONE
    assert names.asked == ["one.test"]
    names.known["one.test"] = TWO
    names.hanging = {"one.test"}
    names.now += module._FRESH_SECONDS
    async with asyncio.timeout(10):
        assert await resolver.resolve("one.test") == ONE
    names.go_on.set()
    await until(lambda: resolver._known["one.test"].addresses == TWO)
    assert await resolver.resolve("one.test") == TWO


async def test_a_name_server_that_fails_for_now_is_not_believed_and_one_that_says_no_is(
    names: Names, resolver: Resolver
) -> None:
    assert await resolver.resolve("one.test") == ONE
    names.known["one.test"] = NotResolved("try again", is_final=False)
    names.now += module._FRESH_SECONDS
    for _ in range(2):
        assert await resolver.resolve("one.test") == ONE
    assert len(names.asked) == 2  # a failure is remembered for a moment
    names.now += module._FAILED_SECONDS
    names.known["one.test"] = NotResolved("there is none", is_final=True)
    with pytest.raises(NotResolved):
        await resolver.resolve("one.test")
    names.known["one.test"] = NotResolved("try again", is_final=False)
    names.now += module._FAILED_SECONDS
    with pytest.raises(NotResolved):
        await resolver.resolve("one.test")


async def test_what_is_an_hour_old_does_not_serve(names: Names, resolver: Resolver) -> None:
    assert await resolver.resolve("one.test") == ONE
    names.now += module._STALE_SECONDS
    names.known["one.test"] = NotResolved("try again", is_final=False)
    with pytest.raises(NotResolved):
        await resolver.resolve("one.test")


async def test_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ip_address("127.0.0.1") in await Resolver().resolve("localhost")
    with pytest.raises(NotResolved):
        await Resolver().resolve("\ud800.test")
