"""A browser, pages that are signed in, and servers that do as the tests say. Run when they are asked for by name.

Playwright keeps a loop running in the process, in which no other test could run its own (`make test-page`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_stack import KEY, Running
from tests.page.chromium import ARGUMENTS, chromium
from tests.system.test_cli_lock import Changing, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

Open = Callable[..., "Page"]
_HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    asked = [(config.invocation_params.dir / each.partition("::")[0]).resolve() for each in config.args]
    return None if any(each.is_relative_to(_HERE) for each in asked) else True


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    where = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=where.path, args=ARGUMENTS, env={**os.environ, **where.environment}
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, stack: Running) -> Iterator[Open]:
    """Open the page in a browser of its own, signed in with a key; what its scripts do wrong fails the test."""
    contexts, wrong = [], list[str]()

    def heard(line: ConsoleMessage) -> None:
        if line.type == "error" and _is_ours(line.text):
            wrong.append(line.text)

    def open(key: str | None = KEY, url: str | None = None, path: str = "#/servers", **how: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **how})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console", lambda line: wrong.append(line.text) if line.type == "error" and _is_ours(line.text) else None
        )
        page.goto(f"{url or stack.url}/{path}")
        if key is not None:
            sign_in(page, key)
        return page

    yield open
    for context in contexts:
        context.close()
    assert wrong == []


def _is_ours(text: str) -> bool:
    """A line of the console that is no refusal, which the tests bring about."""
    return "Failed to load resource" not in text and "ERR_" not in text


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Views").wait_for()


@pytest.fixture
def server(stack: Running) -> Iterator[Changing]:
    """A server that the tests change; what they registered is removed."""
    with serving() as changing:
        yield changing
    with stack.client() as client:
        for each in client.get("/mcp/servers", headers={"accept": "application/json"}).json()["servers"]:
            client.delete(f"/mcp/servers/{each['name']}")


@pytest.fixture
def register(stack: Running, server: Changing) -> Callable[..., None]:
    def register(name: str, url: str = "", **fields: Any) -> None:
        with stack.client() as client:
            answer = client.put(f"/mcp/servers/{name}", json={"url": url or server.url, **fields})
            assert answer.status_code == 200, answer.text

    return register


@pytest.fixture
def stub(stack: Running, register: Callable[..., None]) -> Running:
    """The stack, with its stub registered."""
    register("stub", stack.stub)
    return stack
