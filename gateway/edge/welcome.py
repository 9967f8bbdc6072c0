"""What a browser gets at the address of a gateway: a short page that says what this is, and nothing at favicon.ico.

Shows nothing of what is registered: it is served without a key.
"""

from __future__ import annotations

from html import escape

from gateway import version
from gateway.edge.request import Http
from gateway.edge.response import send_bytes, send_empty
from gateway.settings import Settings

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MCP gateway</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}}
pre{{background:#8881;padding:.8rem;overflow-x:auto}}</style></head><body>
<h1>MCP gateway</h1>
<p>This is an <a href="https://modelcontextprotocol.io">MCP</a> gateway ({name} {version}): the tools, resources and
prompts of several MCP servers at one address. Clients talk to it with a key.</p>
<p>MCP clients connect to <code>{base}/mcp</code> with the header <code>Authorization: Bearer &lt;key&gt;</code>:</p>
<pre>claude mcp add --transport http gateway {base}/mcp --header "Authorization: Bearer $KEY"</pre>
<p>Scripts need no client:</p>
<pre>curl -H "Authorization: Bearer $KEY" -H "Accept: application/json" {base}/mcp/tools</pre>
<p>The REST addresses are described in <code>{base}/openapi.json</code> (with the key).</p>
</body></html>
"""


async def page(http: Http, settings: Settings) -> None:
    """Answer `GET /` of a browser."""
    text = _PAGE.format(
        name=version.NAME, version=version.VERSION, base=escape(http.base_url(settings.public_url), quote=True)
    )
    policy = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    headers = [(b"content-security-policy", policy), (b"cache-control", b"no-cache")]
    await send_bytes(http, 200, text.encode(), b"text/html; charset=utf-8", headers)


async def quiet(http: Http, settings: Settings) -> None:
    """What browsers and crawlers ask for by themselves: nothing here is for them, and no line is in the log."""
    if http.path == "/robots.txt":
        await send_bytes(http, 200, b"User-agent: *\nDisallow: /\n", b"text/plain; charset=utf-8")
    else:
        await send_empty(http, 204)
