import pytest

from gateway.access.authenticator import Authenticator
from gateway.edge.doors import Doors
from gateway.errors import Forbidden, KeyInQuery, Unauthorized
from gateway.protocol.headers import Headers
from gateway.settings import Settings

DOORS = Doors.of(Settings(public_url="https://mcp.example.org/base", allowed_origins=("https://app.example",)))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:4000", "127.0.0.1:4000", "[::1]:4000", "MCP.example.org", "localhost.", None]
)
def test_our_own_names_are_let_in(host: str | None) -> None:
    DOORS.check_host(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "[::2]", "[::1", "localhost:999999", "localhost:<script>"]
)
def test_other_names_are_not(host: str) -> None:
    with pytest.raises(Forbidden):
        DOORS.check_host(host)


def test_any_name_comes_in_where_that_was_said() -> None:
    Doors.of(Settings(allowed_hosts=("*",))).check_host("evil.example")
    Doors.of(Settings(host="0.0.0.0", master_key="long-enough")).check_host("anything")


@pytest.mark.parametrize(
    "origin", [None, "http://localhost:3000", "https://127.0.0.1", "https://app.example", "https://mcp.example.org"]
)
def test_pages_of_ours_are_let_in(origin: str | None) -> None:
    DOORS.check_origin(origin)


@pytest.mark.parametrize("host", ["mcp.example.org", "MCP.example.org:8443"])
def test_pages_of_the_very_host_are_let_in(host: str) -> None:
    DOORS.check_origin(f"https://{host.lower()}", host)
    with pytest.raises(Forbidden):
        DOORS.check_origin("https://other.example", host)


def test_pages_of_a_host_that_nobody_vetted_are_not() -> None:
    """Any name comes in there, also one that a hostile page has pointed here."""
    with pytest.raises(Forbidden):
        Doors.of(Settings(allowed_hosts=("*",))).check_origin("http://evil.example", "evil.example")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[::1"])
def test_pages_of_others_are_not(origin: str) -> None:
    with pytest.raises(Forbidden):
        DOORS.check_origin(origin)


def sent(authorization: list[str]) -> Headers:
    """A request's headers with these of its credentials."""
    return Headers([(b"host", b"x"), *((b"authorization", value.encode()) for value in authorization)])


@pytest.mark.anyio
@pytest.mark.parametrize("key", ["the-master-key", "the-old-one"])
async def test_the_master_key_opens_and_the_one_before_it(key: str) -> None:
    doors = Authenticator(["the-master-key", "the-old-one"])
    for found in (doors.known(sent([f"Bearer {key}"]), b""), await doors.identify(sent([f"bearer  {key}"]), b"")):
        assert found is not None
        assert (found.id, found.role, found.grants) == ("master", "admin", None)
        assert key not in repr(found)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "authorization",
    [[], ["Bearer wrong"], ["the-master-key"], ["Basic the-master-key"], ["Bearer"], ["Bearer the-master-key"] * 2],
)
async def test_anything_else_is_401_with_a_challenge(authorization: list[str]) -> None:
    doors = Authenticator(["the-master-key"])
    assert doors.known(sent(authorization), b"") is None
    with pytest.raises(Unauthorized) as refusal:
        await doors.identify(sent(authorization), b"")
    assert refusal.value.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.anyio
@pytest.mark.parametrize("query", [b"key=x", b"a=1&api_key=x", b"ACCESS_TOKEN=", b"%74oken=x"])
async def test_a_key_in_the_query_is_refused_even_beside_a_good_one(query: bytes) -> None:
    doors = Authenticator(["the-master-key"])
    with pytest.raises(KeyInQuery):
        doors.known(sent(["Bearer the-master-key"]), query)
    with pytest.raises(KeyInQuery):
        await doors.identify(sent(["Bearer the-master-key"]), query)
