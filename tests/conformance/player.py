"""Plays one client scenario of the conformance suite through the gateway, with a plain client.

`python -m tests.conformance.player GATEWAY URL`: the suite appends the URL of its server, which is registered, played
with and removed again.
"""

import os
import sys

import httpx

from gateway.protocol.sse import SseDecoder
from tests.fix_stack import KEY

_BOTH = {"accept": "application/json, text/event-stream"}


class Player:
    """A plain MCP client: initialize, then requests."""

    def __init__(self, client: httpx.Client, path: str) -> None:
        self._client = client
        self._path = path
        self._headers = dict(_BOTH)
        self._id = 0

    def open(self) -> None:
        params = {
            "protocolVersion": os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25"),
            "capabilities": {},
            "clientInfo": {"name": "player", "version": "1"},
        }
        self.ask("initialize", **params)
        self._client.post(
            self._path, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=self._headers
        ).raise_for_status()

    def ask(self, method: str, **params: object) -> dict[str, object]:
        self._id += 1
        body = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        with self._client.stream("POST", self._path, json=body, headers=self._headers) as answer:
            if session := answer.headers.get("mcp-session-id"):
                self._headers["mcp-session-id"] = session
            if answer.headers["content-type"] == "application/json":
                answer.read()
                return dict(answer.json())
            return self._streamed(answer)

    def _streamed(self, answer: httpx.Response) -> dict[str, object]:
        """The answer on a stream; one that ends before it is taken up again."""
        decoder = SseDecoder()
        while True:
            for chunk in answer.iter_raw():
                for event in decoder.feed(chunk):
                    message = httpx.Response(200, content=event.data).json() if event.data else {}
                    if message.get("id") == self._id:
                        return dict(message)
            headers = self._headers | {"accept": "text/event-stream", "last-event-id": decoder.last_id or ""}
            answer = self._client.send(self._client.build_request("GET", self._path, headers=headers), stream=True)
            answer.raise_for_status()


def main() -> None:
    gateway, url = sys.argv[1], sys.argv[-1]
    with httpx.Client(
        base_url=gateway, headers={"authorization": f"Bearer {KEY}"}, timeout=30, trust_env=False
    ) as client:
        client.put("/mcp/servers/suite", json={"url": url}).raise_for_status()
        try:
            player = Player(client, "/mcp/servers/suite/mcp")
            player.open()
            tools = player.ask("tools/list")["result"]["tools"]  # type: ignore[index]
            match os.environ["MCP_CONFORMANCE_SCENARIO"]:
                case "tools_call":
                    player.ask("tools/call", name="add_numbers", arguments={"a": 5, "b": 3})
                case "sse-retry":
                    player.ask("tools/call", name=tools[0]["name"], arguments={})
        finally:
            client.delete("/mcp/servers/suite").raise_for_status()


if __name__ == "__main__":
    main()
