"""The page's own addresses: files, signing in, whose requests count, the end of a session, its stream."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.edge.page import files
from gateway.errors import StoreUnavailable
from gateway.methods.services import Gateway
from gateway.sessions import page_sessions
from gateway.upstream.memory import MemoryServer
from tests.asgi import Client
from tests.fix_gateway import KEY, Open, Servers
from tests.talk import BOTH, STREAM, request
from tests.talk import inside as inside_app
from tests.waiting import until

pytestmark = pytest.mark.anyio

OWN = {"sec-fetch-site": "same-origin"}
WRITE = {**OWN, "x-gateway-page": "1"}


def inside(client: Client) -> Gateway:
    return inside_app(client.app)  # type: ignore[arg-type]


async def signed_in(client: Client, key: str = KEY, **headers: str) -> dict[str, str]:
    """Sign in; the headers of what the page sends."""
    stranger = Client(client.app)
    status, answered, problem = await stranger.ask("POST", "/page/session", value={"key": key}, headers=WRITE | headers)
    assert status == 204, problem
    cookie = answered["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert key not in cookie
    return {**WRITE, "cookie": cookie.partition(";")[0]}


async def whoami(client: Client, headers: Mapping[str, str]) -> Any:
    status, _, found = await Client(client.app).ask("GET", "/whoami", headers=headers)
    return found["name"] if status == 200 else status


# --- files ------------------------------------------------------------------------------------------------------------


async def test_the_page_and_its_files_need_no_key_and_name_no_other_place(stranger: Client) -> None:
    status, headers, body = await stranger.ask("GET", "/", headers={"accept": "text/html,*/*"})
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    text = body.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", text)
    for name in re.findall(r'(?:src|href)="(/[^"]+)"', text):
        status, headers, found = await stranger.ask("GET", name)
        assert (status, bool(found)) == (200, True), name
        assert headers["x-content-type-options"] == "nosniff"
        assert (await stranger.ask("GET", name, headers={"if-none-match": headers["etag"]}))[0] == 304


async def test_every_import_of_the_scripts_is_served(stranger: Client) -> None:
    waiting, seen = ["app.js", "worker.js"], set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        status, headers, body = await stranger.ask("GET", f"/page/{name}")
        assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8"), name
        folder = name.rpartition("/")[0]
        for found in re.findall(r"from '(\.[^']+)'", body.decode()):
            parts = [part for part in folder.split("/") if part]
            for step in found.split("/"):
                if step == "..":
                    parts.pop()
                elif step != ".":
                    parts.append(step)
            if (path := "/".join(parts)) not in seen:
                waiting.append(path)
    assert len(seen) > 10


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/index.html", "/page/__init__.py", "/page/", "/page/views"])
async def test_nothing_else_is_served_below_the_page(stranger: Client, path: str) -> None:
    assert (await stranger.ask("GET", path))[0] in (401, 404)


async def test_no_script_makes_markup_of_what_a_server_says() -> None:
    for name in files._names():
        if name.endswith(".js") and not name.startswith("vendored/"):
            text = files._text(name)
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|dangerously|document\.write|eval\(|new Function", text
            )


async def test_below_a_mount_point_all_addresses_have_its_path(open_app: Open) -> None:
    async with open_app() as (app, _):
        mounted = Client(app, root_path="/base")
        _, _, body = await mounted.ask("GET", "/", headers={"accept": "text/html"})
        found = re.findall(r'(?:src|href)="([^"]+)"', body.decode())
        assert found
        assert all(each.startswith("/base/page/") for each in found)
        assert (await mounted.ask("GET", "/page/app.js"))[0] == 200


async def test_it_can_be_switched_off(open_app: Open) -> None:
    async with open_app(page=False) as (app, _):
        stranger = Client(app)
        _, _, body = await stranger.ask("GET", "/", headers={"accept": "text/html"})
        assert b"page/app.js" not in body
        assert (await stranger.ask("GET", "/page/app.js"))[0] == 404
        assert (await stranger.ask("POST", "/page/session", value={"key": KEY}, headers=WRITE))[0] == 404


# --- signing in -------------------------------------------------------------------------------------------------------


async def test_a_session_stands_for_the_key(client: Client, registered: MemoryServer) -> None:
    headers = await signed_in(client)
    page = Client(client.app)
    assert await whoami(client, headers) == "master"
    status, _, found = await page.ask("POST", "/mcp/tools/call", value={"name": "demo__echo"}, headers=headers)
    assert (status, found["tool"]) == (200, "demo__echo")
    hello = request(
        "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "p", "version": "1"}
    )
    assert (await page.ask("POST", "/mcp", value=hello, headers=BOTH | headers))[0] == 200
    assert (await page.ask("GET", "/page/session", headers=headers))[2] == {"signed_in": True}


@pytest.mark.parametrize(
    "sent",
    [{}, {"origin": "http://localhost:1"}, *({"sec-fetch-site": site} for site in ("cross-site", "same-site", "none"))],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_cookie_counts_for_the_own_page_only(client: Client, sent: Mapping[str, str], method: str) -> None:
    cookie = {"cookie": (await signed_in(client))["cookie"], "x-gateway-page": "1"}
    path = "/whoami" if method == "GET" else "/mcp/tools/call"
    status, _, _ = await Client(client.app).ask(
        method, path, value=None if method == "GET" else {"name": "x"}, headers={**cookie, **sent}
    )
    assert status == 401


async def test_an_old_browser_says_it_by_the_origin(client: Client) -> None:
    cookie = (await signed_in(client))["cookie"]
    assert await whoami(client, {"cookie": cookie, "origin": "http://localhost"}) == "master"
    assert await whoami(client, {"cookie": cookie, "origin": "https://localhost"}) in (401, 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_write_needs_the_header_of_the_page(client: Client, method: str) -> None:
    headers = OWN | {"cookie": (await signed_in(client))["cookie"]}
    path = "/mcp/tools/call" if method == "POST" else "/mcp/servers/demo"
    status, _, problem = await Client(client.app).ask(method, path, value={}, headers=headers)
    assert (status, "X-Gateway-Page" in problem["detail"]) == (403, True)


async def test_signing_in_is_for_the_own_page(client: Client) -> None:
    for headers in ({}, OWN, {"x-gateway-page": "1"}, {"sec-fetch-site": "cross-site", "x-gateway-page": "1"}):
        status, answered, _ = await Client(client.app).ask("POST", "/page/session", value={"key": KEY}, headers=headers)
        assert (status, "set-cookie" in answered) == (403, False)


@pytest.mark.parametrize("value", [{}, {"key": ""}, {"key": 1}, {"key": None}, {"key": KEY, "more": 1}, []])
async def test_what_is_no_key_is_refused(client: Client, value: Any) -> None:
    assert (await Client(client.app).ask("POST", "/page/session", value=value, headers=WRITE))[0] == 422


async def test_a_wrong_key_is_refused_and_attempts_have_a_limit(client: Client) -> None:
    stranger = Client(client.app)
    answers = [
        await stranger.ask("POST", "/page/session", value={"key": f"wrong-{number}"}, headers=WRITE)
        for number in range(12)
    ]
    assert [status for status, _, _ in answers] == [401] * 10 + [429] * 2
    assert answers[-1][1]["retry-after"]
    from_elsewhere = WRITE | {"x-forwarded-for": "10.9.9.9"}
    assert (await stranger.ask("POST", "/page/session", value={"key": KEY}, headers=from_elsewhere))[0] == 204
    assert (await stranger.ask("POST", "/page/session", value={"key": "\u20ac"}, headers=from_elsewhere))[0] == 401


async def test_an_authorization_header_is_what_counts_beside_a_cookie(client: Client) -> None:
    headers = await signed_in(client)
    assert await whoami(client, headers | {"authorization": "Bearer wrong"}) == 401


async def test_over_https_the_cookie_is_for_https_and_this_host_only(client: Client) -> None:
    stranger = Client(client.app)
    _, answered, _ = await stranger.ask(
        "POST", "/page/session", value={"key": KEY}, headers=WRITE | {"x-forwarded-proto": "https"}
    )
    assert answered["set-cookie"].startswith("__Host-mgw-page-")
    assert "; Secure" in answered["set-cookie"]
    assert "; Path=/;" in answered["set-cookie"]


async def test_over_plain_http_a_session_is_for_loopback_only(open_app: Open) -> None:
    async with open_app(allowed_hosts=("gateway.test",)) as (_, client):
        asked = WRITE | {"host": "gateway.test:4000"}
        status, answered, problem = await Client(client.app).ask(
            "POST", "/page/session", value={"key": KEY}, headers=asked | {"origin": "http://gateway.test:4000"}
        )
        by_a_proxy = await Client(client.app).ask(
            "POST", "/page/session", value={"key": KEY}, headers=asked | {"origin": "https://gateway.test:4000"}
        )
        assert (by_a_proxy[0], "; Secure" in by_a_proxy[1]["set-cookie"]) == (204, True)
    assert (status, "set-cookie" in answered, "HTTPS" in problem["detail"]) == (403, False, True)


async def test_of_two_cookies_none_counts(client: Client) -> None:
    mine = await signed_in(client)
    for cookie in (f"{mine['cookie']}; {mine['cookie']}", f"{mine['cookie'].partition('=')[0]}=x; {mine['cookie']}"):
        assert await whoami(client, mine | {"cookie": cookie}) == 401
    assert await whoami(client, mine | {"cookie": f"other=1; {mine['cookie']}; more=2"}) == "master"


async def test_a_body_that_is_too_long_for_a_key_is_not_read(client: Client) -> None:
    value = {"key": "x" * 10_000}
    assert (await Client(client.app).ask("POST", "/page/session", value=value, headers=WRITE))[0] == 413


async def test_ports_and_mount_points_have_cookies_of_their_own(client: Client) -> None:
    names = set()
    for root, host in (("", "localhost:1"), ("", "localhost:2"), ("/base", "localhost:1")):
        one = Client(client.app, root_path=root)
        _, answered, _ = await one.ask("POST", "/page/session", value={"key": KEY}, headers=WRITE | {"host": host})
        names.add(answered["set-cookie"].partition("=")[0])
    assert len(names) == 3


# --- its end ----------------------------------------------------------------------------------------------------------


async def test_signing_out_ends_it_at_every_worker(open_app: Open) -> None:
    async with open_app() as (_, one), open_app() as (_, two):
        headers = await signed_in(one)
        assert await whoami(two, headers) == "master"
        status, answered, _ = await Client(one.app).ask("DELETE", "/page/session", headers=headers)
        assert (status, "Max-Age=0" in answered["set-cookie"]) == (204, True)
        assert await whoami(one, headers) == 401
        async with asyncio.timeout(10):
            while await whoami(two, headers) != 401:
                await inside(two).sync.catch_up()
        async with open_app() as (_, three):  # a worker that never knew it
            assert await whoami(three, headers) == 401
            assert (await Client(three.app).ask("GET", "/page/session", headers=headers))[2] == {"signed_in": False}


async def test_it_ends_with_its_key_and_survives_a_rotation(client: Client) -> None:
    _, _, key = await client.ask("POST", "/keys", value={"name": "ann", "grants": {"allow": [{"servers": ["*"]}]}})
    headers = await signed_in(client, key["key"])
    assert await whoami(client, headers) == "ann"
    await client.ask("POST", f"/keys/{key['id']}/rotate", value={"overlap_seconds": 0})
    assert await whoami(client, headers) == "ann"
    await client.ask("DELETE", f"/keys/{key['id']}")
    assert await whoami(client, headers) == 401


async def test_a_session_of_the_master_key_ends_when_the_key_is_another_one(open_app: Open) -> None:
    async with open_app(master_key="the-new-key,the-old-key") as (_, one):
        old, new = await signed_in(one, "the-old-key"), await signed_in(one, "the-new-key")
        assert {await whoami(one, old), await whoami(one, new)} == {"master"}
    async with open_app(master_key="the-new-key") as (_, two):
        assert (await whoami(two, old), await whoami(two, new)) == (401, "master")


@pytest.mark.parametrize("id", ["", "x", "a" * 600, "bm90IHNpZ25lZA", "\u00e9"])
async def test_what_is_no_session_is_none(client: Client, id: str) -> None:
    name = (await signed_in(client))["cookie"].partition("=")[0]
    assert await whoami(client, {**OWN, "cookie": f"{name}={id}"}) == 401


async def test_another_spelling_of_a_session_is_none(client: Client) -> None:
    headers = await signed_in(client)
    for other in (headers["cookie"] + "=", headers["cookie"][:-1] + "A", headers["cookie"] + "x"):
        if other != headers["cookie"]:
            assert await whoami(client, headers | {"cookie": other}) == 401


async def test_it_expires(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_sessions, "SECONDS", -1)
    assert await whoami(client, await signed_in(client)) == 401


async def test_a_browser_is_signed_out_also_while_the_database_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = await signed_in(client)

    async def away(id: str) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(inside(client).page_sessions, "end", away)
    status, answered, told = await Client(client.app).ask("DELETE", "/page/session", headers=headers)
    assert (status, "Max-Age=0" in answered["set-cookie"], "could not be recorded" in told["detail"]) == (
        202,
        True,
        True,
    )


# --- its stream -------------------------------------------------------------------------------------------------------


async def test_the_stream_tells_what_there_is_and_what_changes(open_app: Open, servers: Servers) -> None:
    servers["demo"] = MemoryServer()
    async with open_app() as (_, one), open_app() as (_, two):
        headers = await signed_in(one)
        async with Client(one.app).open("GET", "/page/events", headers=headers | STREAM) as stream:
            hello = await stream.event()
            assert hello is not None
            value = json.loads(hello.data)
            assert (hello.name, value["me"]["name"], value["is_admin"]) == ("hello", "master", True)
            await two.ask("POST", "/mcp/servers", value={"name": "demo", "url": "http://demo.test/mcp"})
            await two.ask("POST", "/mcp/tools/call", value={"name": "echo"})  # at another worker
            seen: dict[str, Any] = {}
            async with asyncio.timeout(15):
                while not (
                    {"servers", "changed", "calls", "workers", "figures"} <= seen.keys()
                    and any("demo" in slot["servers"] for slot in seen["figures"]["slots"])
                    and seen["workers"]["workers"]
                ):
                    event = await stream.event()
                    assert event is not None
                    seen[event.name] = json.loads(event.data)
            assert [each["name"] for each in seen["servers"]["servers"]] == ["demo"]
            assert "tools" in seen["changed"]["kinds"]
            assert [row["tool"] for row in seen["calls"]["rows"]] == ["echo"]
            [counts] = [slot["servers"]["demo"] for slot in seen["figures"]["slots"] if "demo" in slot["servers"]]
            assert counts[0] == 1
            assert sum(counts[2:]) == 1
            assert {each["replica"] for each in seen["workers"]["workers"]} == {"test"}


async def test_a_call_is_told_once(client: Client, registered: MemoryServer) -> None:
    headers = await signed_in(client)
    async with Client(client.app).open("GET", "/page/events", headers=headers | STREAM) as stream:
        told: list[str] = []
        for number in range(3):
            await client.ask(
                "POST", "/mcp/tools/call", value={"name": "echo"}, headers={"x-request-id": f"call-{number}"}
            )
            async with asyncio.timeout(10):
                while len(told) <= number:
                    event = await stream.event()
                    assert event is not None
                    if event.name == "calls":
                        told += [row["request_id"] for row in json.loads(event.data)["rows"]]
        assert told == ["call-0", "call-1", "call-2"]


@pytest.mark.parametrize("how", ["signed out", "expired"])
async def test_the_stream_ends_with_the_session(client: Client, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "expired":
        monkeypatch.setattr(page_sessions, "SECONDS", 2)
    headers = await signed_in(client)
    async with Client(client.app).open("GET", "/page/events", headers=headers | STREAM) as stream:
        await stream.event()
        if how == "signed out":
            await Client(client.app).ask("DELETE", "/page/session", headers=headers)
        async with asyncio.timeout(10):
            while await stream.event() is not None:
                pass
    await until(lambda: inside(client).admission.streams == 0)


async def test_a_stream_with_a_key_is_none_of_a_sessions(client: Client) -> None:
    async with client.open("GET", "/page/events", headers=STREAM) as stream:
        async with asyncio.timeout(10):
            names = {event.name async for event in until_figures(stream)}
    assert {"hello", "servers", "figures"} <= names


async def until_figures(stream: Any) -> Any:
    count = 0
    while count < 2:  # for longer than one turn
        event = await stream.event()
        assert event is not None
        count += event.name == "figures"
        yield event


async def test_the_stream_tells_of_another_role(client: Client) -> None:
    _, _, key = await client.ask("POST", "/keys", value={"name": "ann", "role": "operator"})
    headers = await signed_in(client, key["key"])
    async with Client(client.app).open("GET", "/page/events", headers=headers | STREAM) as stream:
        event = await stream.event()
        assert event is not None
        assert json.loads(event.data)["is_operator"] is True
        await client.ask("PATCH", f"/keys/{key['id']}", value={"role": "user", "grants": {"allow": []}})
        async with asyncio.timeout(10):
            while (event := await stream.event()) is not None and event.name != "hello":
                pass
        assert event is not None
        assert json.loads(event.data)["is_operator"] is False


async def test_the_stream_ends_with_the_key(client: Client) -> None:
    _, _, key = await client.ask("POST", "/keys", value={"name": "ann", "role": "operator"})
    headers = await signed_in(client, key["key"])
    async with Client(client.app).open("GET", "/page/events", headers=headers | STREAM) as stream:
        await stream.event()
        await client.ask("DELETE", f"/keys/{key['id']}")
        async with asyncio.timeout(10):
            while await stream.event() is not None:
                pass
    await until(lambda: inside(client).admission.streams == 0)


def test_what_is_not_ours_is_what_was_taken_in() -> None:
    """`deploy/vendored.py` checks the same against the registry."""
    folder = Path(files.__file__).parent / "static" / "vendored"
    entries = json.loads((folder / "vendored.json").read_text())["files"]
    assert {each["file"] for each in entries} == {
        each.name for each in folder.iterdir() if each.suffix in (".js", ".css")
    }
    for each in entries:
        assert f"sha256:{sha256((folder / each['file']).read_bytes()).hexdigest()}" == each["digest"]
        assert (folder / each["licence"]).is_file()
