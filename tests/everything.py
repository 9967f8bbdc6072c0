"""The everything server of the conformance suite, on the official SDK: the yardstick's other end.

`python -m tests.everything PORT [sse] [VERSION]` serves it on loopback, by streamable HTTP at /mcp or by the old
transport at /sse, and speaks but one revision if told so; `python -m tests.everything stdio` speaks over its pipes.
Beside the suite's names it has tools that the tests of the gateway need: `count` says how often it was called, `touch`
that the watched resource changed, and so on.
"""

import asyncio
import base64
import contextlib
import gc
import json
import logging
import os
import re
import sys
import warnings
from collections import Counter
from typing import Annotated, Any, Literal

import mcp_types as types
import uvicorn
from mcp.server import runner
from mcp.server.lowlevel import NotificationOptions
from mcp.server.mcpserver import Context, MCPServer, UserMessage
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

warnings.simplefilter("ignore")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="

server: MCPServer[Any] = MCPServer("everything", version="1.0.0", instructions="Has everything.", log_level="ERROR")
called: Counter[str] = Counter()
subscribed: dict[str, set[Any]] = {}


class Events(EventStore):
    """Remembers every event, so that a stream can be resumed."""

    def __init__(self) -> None:
        self._events: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        if not 0 < last <= len(self._events):
            return None
        stream = self._events[last - 1][0]
        for number, (owner, message) in enumerate(self._events[last:], last + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


# --- the suite's tools --------------------------------------------------------------------------------------------


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _resource(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    )


_IMAGE = types.ImageContent(type="image", data=PNG, mime_type="image/png")


@server.tool(structured_output=False)
def test_simple_text() -> str:
    """Answer with text."""
    return "This is a simple text response for testing."


@server.tool(structured_output=False)
def test_image_content() -> list[types.ImageContent]:
    """Answer with an image."""
    return [_IMAGE]


@server.tool(structured_output=False)
def test_audio_content() -> list[types.AudioContent]:
    """Answer with a sound."""
    return [types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


@server.tool(structured_output=False)
def test_embedded_resource() -> list[types.EmbeddedResource]:
    """Answer with a resource."""
    return [_resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@server.tool(structured_output=False)
def test_multiple_content_types() -> list[Any]:
    """Answer with text, an image and a resource."""
    return [
        _text("Multiple content types test:"),
        _IMAGE,
        _resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ]


@server.tool(structured_output=False)
async def test_tool_with_logging(context: Context) -> str:
    """Log three messages."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.info(text)
        await asyncio.sleep(0.05)
    return "Tool with logging executed successfully"


@server.tool(structured_output=False)
async def test_tool_with_progress(context: Context) -> str:
    """Report progress three times."""
    for progress in (0, 50, 100):
        await context.report_progress(progress, 100, f"Completed step {progress} of 100")
        await asyncio.sleep(0.05)
    return "done"


@server.tool(structured_output=False)
def test_error_handling() -> str:
    """Fail."""
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool(structured_output=False)
async def test_sampling(prompt: str, context: Context) -> str:
    """Ask the client for a completion."""
    result = await context.session.create_message(
        messages=[types.SamplingMessage(role="user", content=_text(prompt))],
        max_tokens=100,
        related_request_id=context.request_id,
    )
    content = result.content
    return f"LLM response: {content.text if isinstance(content, types.TextContent) else content}"


async def _elicit(context: Context, message: str, schema: type[BaseModel]) -> str:
    result = await context.elicit(message, schema)
    content = result.data.model_dump_json() if result.action == "accept" else "{}"
    return f"action={result.action}, content={content}"


class _Response(BaseModel):
    response: str = Field(description="User's response")


@server.tool(structured_output=False)
async def test_elicitation(message: str, context: Context) -> str:
    """Ask the user something."""
    return f"User response: {await _elicit(context, message, _Response)}"


class _Defaults(BaseModel):
    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: Literal["active", "inactive", "pending"] = Field(default="active", description="User status")
    verified: bool = Field(default=True, description="Verification status")


@server.tool(structured_output=False)
async def test_elicitation_sep1034_defaults(context: Context) -> str:
    """Ask the user with defaults of every primitive type."""
    return f"Elicitation completed: {await _elicit(context, 'Please provide user information', _Defaults)}"


def _titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": const, "title": title} for const, title in pairs]


_ENUMS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {"type": "string", "oneOf": _titled(("value1", "First"), ("value2", "Second"))},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2"]}},
        "titledMulti": {"type": "array", "items": {"anyOf": _titled(("value1", "First"), ("value2", "Second"))}},
    },
    "required": [],
}


@server.tool(structured_output=False)
async def test_elicitation_sep1330_enums(context: Context) -> str:
    """Ask the user with every kind of enumeration."""
    result = await context.session.elicit_form("Please select", _ENUMS, related_request_id=context.request_id)
    return f"Elicitation completed: action={result.action}, content={json.dumps(result.content or {})}"


@server.tool(structured_output=False)
async def test_reconnection(context: Context) -> str:
    """Close the stream in the middle of the call."""
    await context.info("Before disconnect")
    await context.close_sse_stream()
    await asyncio.sleep(0.2)
    await context.info("After reconnect")
    return "Reconnection test completed"


_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@server.tool(structured_output=False)
def json_schema_2020_12_tool(name: str = "") -> str:
    """Have a schema with every keyword of JSON Schema 2020-12."""
    return f"Hello {name}"


server._tool_manager._tools["json_schema_2020_12_tool"].parameters = _SCHEMA


# --- tools for the gateway's own tests -----------------------------------------------------------------------------


@server.tool(structured_output=False)
async def count(key: str, context: Context, steps: int = 5, pause: float = 0.05) -> str:
    """Report progress in steps; say how often this was called with the key."""
    called[key] += 1
    for step in range(1, steps + 1):
        await context.report_progress(step, steps, f"step {step}")
        await asyncio.sleep(pause)
    return f"called {called[key]} times"


@server.tool(structured_output=False)
async def touch(context: Context, uri: str = "test://watched-resource") -> str:
    """Say to every subscriber that the resource changed."""
    for session in subscribed.get(uri, set()):
        await session.send_resource_updated(uri)
    return f"{len(subscribed.get(uri, ()))} subscribers"


@server.tool(structured_output=False)
async def roots(context: Context) -> str:
    """List the client's roots."""
    result = await context.session.list_roots()
    return json.dumps([str(root.uri) for root in result.roots])


@server.tool(structured_output=False)
async def url(context: Context) -> str:
    """Send the user to a URL, and say when that is done."""
    result = await context.session.elicit_url(
        "Please sign in", "https://example.com/sign-in", "elicitation-1", related_request_id=context.request_id
    )
    await context.session.send_elicit_complete("elicitation-1", related_request_id=context.request_id)
    return f"action={result.action}"


class _Shape(BaseModel):
    width: int
    height: int


@server.tool()
def structured(width: int, height: int) -> _Shape:
    """Answer with structured content."""
    return _Shape(width=width, height=height)


@server.tool(structured_output=False)
def links() -> list[types.ResourceLink]:
    """Answer with a link to a resource."""
    return [types.ResourceLink(type="resource_link", uri="test://static-text", name="Static text")]


@server.tool(structured_output=False)
def large(size: int = 1_000_000) -> str:
    """Answer with a lot of text."""
    return "x" * size


@server.tool(structured_output=False)
async def change(context: Context, kind: Literal["tools", "prompts", "resources"] = "tools") -> str:
    """Say that a list changed."""
    session = context.session
    await {
        "tools": session.send_tool_list_changed,
        "prompts": session.send_prompt_list_changed,
        "resources": session.send_resource_list_changed,
    }[kind]()
    return kind


@server.tool(structured_output=False)
async def hang(context: Context, key: str = "hang") -> str:
    """Wait until cancelled."""
    called[key] += 1
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        called[f"{key} cancelled"] += 1
        raise
    return "was not cancelled"


@server.tool(structured_output=False)
def tally(key: str) -> str:
    """How often something happened."""
    return str(called[key])


@server.tool(structured_output=False)
def pid() -> str:
    """This process."""
    return str(os.getpid())


@server.custom_route("/sessions", methods=["GET"])  # type: ignore[untyped-decorator]  # the SDK leaves it bare
async def sessions(_: Request) -> Response:
    """How many sessions there are now, of either transport."""
    over_http = getattr(low, "_session_manager", None)
    streams = [each for each in gc.get_objects() if isinstance(each, SseServerTransport)]
    count = len(over_http._server_instances) if over_http is not None else 0
    return PlainTextResponse(str(count + sum(len(each._read_stream_writers) for each in streams)))


# --- resources, prompts, completion, subscriptions, logging ---------------------------------------------------------


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A static text resource for testing."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """A static binary resource for testing."""
    return base64.b64decode(PNG)


@server.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    """A resource that can be subscribed to."""
    return "Watched resource content"


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    """A resource template with parameter substitution."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.prompt()
def test_simple_prompt() -> list[UserMessage]:
    """A simple prompt."""
    return [UserMessage("This is a simple prompt for testing.")]


@server.prompt()
def test_prompt_with_arguments(
    arg1: Annotated[str, Field(description="First test argument")],
    arg2: Annotated[str, Field(description="Second test argument")],
) -> list[UserMessage]:
    """A prompt with required arguments."""
    return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]


@server.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    """A prompt that includes a resource."""
    return [
        UserMessage(_resource(resourceUri, "text/plain", "Embedded resource content for testing.")),
        UserMessage("Please process the embedded resource above."),
    ]


@server.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    """A prompt that includes an image."""
    return [UserMessage(_IMAGE), UserMessage("Please analyze the image above.")]


@server.completion()  # type: ignore[no-untyped-call, untyped-decorator]  # the SDK leaves it bare
async def complete(ref: Any, argument: types.CompletionArgument, context: Any) -> types.Completion:
    values = [value for value in ("paris", "park", "party") if value.startswith(argument.value)]
    return types.Completion(values=values, total=len(values), has_more=False)


low = server._lowlevel_server


async def subscribe(context: Any, params: types.SubscribeRequestParams) -> types.EmptyResult:
    subscribed.setdefault(str(params.uri), set()).add(context.session)
    called[f"subscribe {params.uri}"] += 1
    return types.EmptyResult()


async def unsubscribe(context: Any, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
    subscribed.get(str(params.uri), set()).discard(context.session)
    return types.EmptyResult()


async def set_level(context: Any, params: types.SetLevelRequestParams) -> types.EmptyResult:
    called[f"level {params.level}"] += 1
    return types.EmptyResult()


low.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
low.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)
low.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)

_options = low.create_initialization_options


def _declared(options: NotificationOptions | None = None, *arguments: Any, **others: Any) -> Any:
    """List changes are declared: the SDK leaves that to whoever runs the server."""
    return _options(NotificationOptions(True, True, True), *arguments, **others)


low.create_initialization_options = _declared  # type: ignore[method-assign, assignment]  # nothing else reaches the SDK's own runner


def main() -> None:
    logging.disable(logging.CRITICAL)
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", sys.argv[-1]):
        vars(runner).update(HANDSHAKE_PROTOCOL_VERSIONS=(sys.argv[-1],), LATEST_HANDSHAKE_VERSION=sys.argv[-1])
    if sys.argv[1] == "stdio":
        server.run("stdio")
        return
    port = int(sys.argv[1])
    app = (
        server.sse_app() if "sse" in sys.argv else server.streamable_http_app(event_store=Events(), retry_interval=100)
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
