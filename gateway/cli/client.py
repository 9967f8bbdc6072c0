"""A running gateway from the command line's side: requests over HTTP, errors as exit codes.

Knows the REST faces only; nothing of the gateway's inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from gateway.settings import DEMO_KEY, LOOPBACK

_SECONDS = 30.0


class Exit(IntEnum):
    """What the command line's exit codes mean."""

    DONE = 0
    FAILED = 1  # the gateway refused, the tool failed, or a check found something
    USAGE = 2
    UNREACHABLE = 3
    UNAUTHORIZED = 4
    DRIFT = 5  # what is offered is not what the lock file has


class Refused(Exception):
    """The gateway did not do it; the text says why, `code` what to exit with."""

    def __init__(self, text: str, code: Exit, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.problem = problem or {"detail": text}


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event with its JSON."""

    name: str
    data: Any


class Remote:
    """One gateway at a URL."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/").removesuffix("/mcp")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise Refused(f"{url!r} is no URL of a gateway; http://localhost:4000 is one.", Exit.USAGE)
        key = (key or "").partition(",")[0].strip() or None  # GATEWAY_MASTER_KEY may hold two, the newest first
        if key is None and urlsplit(self.url).hostname in LOOPBACK:
            key = DEMO_KEY  # what `make run` and `make ha` serve with
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(headers=headers, timeout=_SECONDS, trust_env=False)

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return its JSON. Raises Refused."""
        with self._errors():
            answer = self.http.request(method, self.url + path, json=body, headers={"accept": "application/json"})
        return _checked(answer)

    def events(self, path: str, body: Any = None, *, beats: bool = False) -> Iterator[Event]:
        """Send one request, a GET where it has no body, and yield its events as they come. Raises Refused.

        With `beats` also what says that nothing is new, as events without a name.
        """
        headers = {"accept": "text/event-stream"}
        with (
            self._errors(),
            self.http.stream(
                "GET" if body is None else "POST", self.url + path, json=body, headers=headers, timeout=None
            ) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                _checked(answer)
            yield from read_events(answer, beats=beats)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Refused(
                f"There is no gateway at {self.url} ({_plain(error)}). Is it running? "
                "--url or GATEWAY_URL says where it is.",
                Exit.UNREACHABLE,
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused(f"{self.url} did not answer properly: {error}", Exit.UNREACHABLE) from None


def server_path(name: str) -> str:
    """The address of one server."""
    return f"/mcp/servers/{quote(name, safe='')}"


def toolset_path(slug: str) -> str:
    """The address of one toolset."""
    return f"/mcp/toolsets/{quote(slug, safe='')}"


def read_events(answer: httpx.Response, *, beats: bool = False) -> Iterator[Event]:
    """The events of a stream, as they come; with `beats` also its comments, as events without a name."""
    name, data = "message", ""
    for line in answer.iter_lines():
        field, _, value = line.partition(":")
        if field == "event":
            name = value.strip()
        elif field == "data":
            data += value.removeprefix(" ")
        elif beats and line.startswith(":"):
            yield Event("", None)
        elif not line and data:
            yield Event(name, json.loads(data))
            name, data = "message", ""


def _plain(error: Exception) -> str:
    """The system's words without its number."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error))


def _checked(answer: httpx.Response) -> Any:
    try:
        value = answer.json()
    except ValueError:
        value = None
    if answer.status_code == 401:
        said = str(value.get("detail", "")) if isinstance(value, dict) else ""
        hint = said.partition("Check the Authorization header.")[2]  # what is wrong with its text, if that can be told
        known = said if said.startswith("This key") else f"The gateway does not know this key.{hint}"
        raise Refused(f"{known} --key, GATEWAY_KEY or GATEWAY_MASTER_KEY is what it takes.", Exit.UNAUTHORIZED)
    if answer.status_code >= 400:
        detail = value.get("detail") if isinstance(value, dict) and "title" in value else None
        if answer.status_code == 404 and detail is None:
            where = f"There is something at {answer.url.host}:{answer.url.port or 80}, but no gateway"
            raise Refused(f"{where}; --url or GATEWAY_URL says where the gateway is.", Exit.UNREACHABLE)
        raise Refused(str(detail or f"HTTP {answer.status_code}"), Exit.FAILED, value if detail else None)
    if value is None:
        raise Refused(
            f"What answers at {answer.url.host}:{answer.url.port or 80} is no gateway; --url or GATEWAY_URL says where "
            "it is.",
            Exit.UNREACHABLE,
        )
    return value
