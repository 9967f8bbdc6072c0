"""Write `reference.rst` from the code: addresses, methods, errors, settings, figures. `make reference` runs it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from gateway.edge import openapi
from gateway.edge.routes import BELOW_KEYS, BELOW_SERVERS, BELOW_TOOLSETS, PATHS, Door, Route
from gateway.errors import GatewayError
from gateway.methods import all_servers, audit, keys, servers, toolsets
from gateway.methods.table import METHODS
from gateway.observability.metrics import Metrics
from gateway.settings import Settings

HERE = Path(__file__).parent
_FAULT = "A fault of the gateway's own; its log has the cause."
_HEAD = """=========
Reference
=========

.. Written by docs/generate.py (make reference) from the code; change the code.

"""


def table(rows: Iterable[tuple[str, ...]], head: tuple[str, ...], widths: str) -> str:
    """A list-table, which takes cells of any length."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [head, *rows]:
        for number, cell in enumerate(row):
            lines.append(f"   {'* -' if number == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"


def said(text: str | None) -> str:
    """The first paragraph of a docstring as one line of reStructuredText."""
    paragraph = " ".join((text or "").strip().partition("\n\n")[0].split()).partition(" Raises ")[0]
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", paragraph)


def addresses() -> str:
    """Every route."""
    documented = openapi.document("")["paths"]

    def roles(path: str) -> str:
        needed: dict[str, list[str]] = {}
        for method, operation in documented.get(path, {}).items():
            if method != "parameters" and (role := operation.get("x-role")):
                needed.setdefault(role, []).append(method.upper())
        return "".join(f"; {', '.join(methods)}: {role}" for role, methods in needed.items())

    doors = {
        Door.OPEN: "anybody",
        Door.READY: "anybody",
        Door.METRICS: "GATEWAY_METRICS",
        Door.KEY: "a key",
        Door.SIGN_IN: "the page",
    }

    def row(path: str, route: Route) -> tuple[str, ...]:
        handler: Any = route.handler
        text = said((handler.func if isinstance(handler, partial) else handler).__doc__)
        return (
            f"``{path}``",
            ", ".join(route.methods or ("any",)),
            route.protocol.value,
            doors[route.door] + roles(path),
            text,
        )

    below = {f"/mcp/servers/{{name}}{'/' + rest if rest else ''}": route for rest, route in BELOW_SERVERS.items()}
    below |= {f"/mcp/toolsets/{{slug}}{'/' + rest if rest else ''}": route for rest, route in BELOW_TOOLSETS.items()}
    below |= {f"/keys/{{id}}{'/' + rest if rest else ''}": route for rest, route in BELOW_KEYS.items()}
    everything = {**PATHS, **below, "/v0.1/servers/{name}/versions[/{version}]": PATHS["/v0.1/servers"]}
    head = ("address", "methods", "refusals in", "for", "what")
    return table((row(path, route) for path, route in sorted(everything.items())), head, "24 14 10 14 38")


def methods() -> str:
    """MCP's methods at the aggregate and at `/rpc`, and our own."""

    def row(name: str, handler: Callable[..., Any]) -> tuple[str, ...]:
        spelled = f"``{name}``" if name in all_servers.METHODS else f"``{name}``, ``{name.replace('.', '/')}``"
        needed = METHODS["rest"][name].needs
        return spelled, "" if needed is None else needed[0], said(inspect.getdoc(handler))

    rows = [
        row(name, handler)
        for part in (all_servers, servers, toolsets, keys, audit)
        for name, handler in part.METHODS.items()
    ]
    return table(rows, ("method", "role", "what"), "36 10 54")


def errors() -> str:
    """Every error that has a name, by code."""

    def below(kind: type[GatewayError]) -> list[type[GatewayError]]:
        return [each for child in kind.__subclasses__() for each in (child, *below(child))]

    kinds = [each for each in below(GatewayError) if "title" in each.__dict__] + [GatewayError]
    names = {kind: re.sub(r"[^a-z0-9]+", "-", kind.title.lower()).strip("-") for kind in kinds}
    rows = [
        (
            str(kind.code),
            str(kind.status) if isinstance(kind.status, int) else "",
            f"``{names[kind]}``",
            said(_FAULT if kind is GatewayError else kind.__doc__),
        )
        for kind in sorted(kinds, key=lambda kind: (-kind.code, kind.title))
    ]
    return table(rows, ("JSON-RPC", "REST", "problem type", "meaning"), "12 8 24 56")


def settings() -> str:
    """Every setting."""
    rows = []
    for each in fields(Settings):
        default = "" if each.default in (None, "", (), MISSING) else f"``{_shown(each.default)}``"
        unit = each.metadata.get("unit", "")
        names = ", ".join(f"``{name}``" for name in each.metadata["names"])
        rows.append((names, f"{default} {unit}".strip(), said(each.metadata["doc"])))
    return table(rows, ("variable", "default", "what"), "34 16 50")


def figures() -> str:
    """Every figure, as Prometheus shows it."""
    text = Metrics("r", by_tool=True).exposition().decode()
    found = re.findall(r"^# HELP (\w+) (.*)\n# TYPE \w+ (\w+)", text, re.MULTILINE)
    rows = [(f"``{name}``", kind, said(what)) for name, what, kind in found if not name.endswith("_created")]
    return table(rows, ("figure", "kind", "what"), "42 12 46")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def reference() -> str:
    """The whole document."""
    parts = [_HEAD]
    for title, text, body in (
        ("Addresses", _ADDRESSES, addresses()),
        ("Methods", _METHODS, methods()),
        ("Errors", _ERRORS, errors()),
        ("Settings", _SETTINGS, settings()),
        ("Figures", _FIGURES, figures()),
    ):
        parts.append(f"{title}\n{'=' * len(title)}\n\n{text}\n\n{body}\n")
    return "\n".join(parts).rstrip() + "\n"


_ADDRESSES = """\
Everything below any mount point. A key is ``Authorization: Bearer <key>``; a key in the URL is refused. POST
addresses with REST refusals take a JSON-RPC body as well, which is then refused and answered as JSON-RPC."""
_METHODS = """\
At ``/rpc`` all of them are served, but for those that belong to a session; at ``/mcp`` MCP's; at the REST addresses
the one that the address is for. Parameters and results of our own are the REST bodies."""
_ERRORS = """\
REST answers a problem document (RFC 9457), its ``type`` ``urn:mcp-gateway:problem:`` and the name below, its
``detail`` what to do. JSON-RPC answers an error with one clear sentence, the same facts in ``data``, and the
request's own id. At ``/rpc`` and the REST addresses a JSON-RPC error travels with HTTP 200, except 400 for what is
no JSON-RPC message (-32700, -32600), and 401 and 403 at the door; at the MCP addresses with the status below. A
server's own error is passed on as it is; an error beside ``field`` names the parameter, ``candidates`` and
``did_you_mean`` name what may have been meant, ``retry_after`` is in seconds."""
_SETTINGS = """\
From the environment; each is also a field of ``gateway.Settings``. A wrong value stops the start with one line that
names it. Keys, secrets and URLs may stand in a file instead: ``GATEWAY_MASTER_KEY_FILE``,
``GATEWAY_METRICS_KEY_FILE``, ``GATEWAY_SECRET_FILE``, ``DATABASE_URL_FILE``, ``REDIS_URL_FILE`` and
``REDIS_PASSWORD_FILE`` hold its path."""
_FIGURES = "At ``/metrics``, in Prometheus' text format, over all workers of the replica that answers, by ``replica``."

if __name__ == "__main__":
    (HERE / "reference.rst").write_text(reference())
