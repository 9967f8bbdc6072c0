"""Pictures of the page's views, in `docs/page`: `make screenshots`. People look at them, and the documentation does."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from tests.fix_stack import Running
from tests.page.chromium import ARGUMENTS, chromium
from tests.page.conftest import sign_in

_FOLDER = Path(__file__).parent.parent.parent / "docs" / "page"
_KEY = "sk-master-key-change-me"
_VIEWS = {
    "servers": "servers/docs",
    "tools": "tools/docs__stub.progress",
    "calls": "calls",
    "keys": "keys",
    "audit": "audit",
    "replicas": "replicas",
    "connect": "connect",
}
_SIZES = {"": (1440, 900), "-phone": (390, 844)}


def main() -> int:
    """Start a stack with something to see, and take the pictures."""
    _FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        stack = Running("ha", Path(folder) / "data", Path(folder) / "log")
        try:
            stack.start()
            _fill(stack)
            where = chromium()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=where.path, args=ARGUMENTS, env={**os.environ, **where.environment}
                )
                for size in _SIZES:
                    _take(browser, stack, "light", size)
                    _take(browser, stack, "dark", size)
                browser.close()
        finally:
            stack.stop()
    return 0


def _fill(stack: Running) -> None:
    with stack.client() as client:
        for name, tags in (("docs", ["public"]), ("crm", ["internal"]), ("warehouse", ["internal", "data"])):
            client.put(f"/mcp/servers/{name}", json={"url": stack.stub, "description": f"Our {name}", "tags": tags})
        client.put("/mcp/servers/billing", json={"url": "http://127.0.0.1:9/mcp", "description": "Is down"})
        client.post(
            "/keys", json={"name": "ann", "owner": "ann@example.org", "grants": {"allow": [{"servers": ["*"]}]}}
        )
        client.post(
            "/keys", json={"name": "nightly", "owner": "data-team", "tags": ["pipeline"], "expires_in": 864_000}
        )
        for number in range(40):
            client.post("/mcp/tools/call", json={"name": "docs__stub.echo", "arguments": {"text": f"{number}"}})
            client.post("/mcp/tools/call", json={"name": "crm__stub.sum", "arguments": {"values": [number, 2]}})
        client.post("/mcp/tools/call", json={"name": "warehouse__stub.fail", "arguments": {}})


def _take(browser: Browser, stack: Running, scheme: Literal["light", "dark"], size: str) -> None:
    width, height = _SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(stack.url)
    page.get_by_label("Key", exact=True).wait_for()
    page.screenshot(path=_FOLDER / f"sign-in-{scheme}{size}.png")
    sign_in(page, _KEY)
    page.wait_for_timeout(6_000)  # for the figures
    for name, path in _VIEWS.items():
        page.evaluate("path => { location.hash = path }", f"#/{path}")
        page.wait_for_timeout(1_500)
        if name == "tools":
            page.get_by_role("button", name="Call", exact=True).click()
            page.get_by_role("button", name="Download").wait_for()
        page.screenshot(path=_FOLDER / f"{name}-{scheme}{size}.png")
    context.close()


if __name__ == "__main__":
    sys.exit(main())
