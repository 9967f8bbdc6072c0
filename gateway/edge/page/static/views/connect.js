// How clients connect: the snippet for each, with this gateway's address.

import { html, useState } from '../vendored/preact.js';
import { useFeed, useList } from '../feed.js';
import { Code } from '../parts.js';

const json = (value) => JSON.stringify(value, null, 2);
const bearer = { Authorization: 'Bearer YOUR_KEY' };
const CLIENTS = [
  ['Claude Code', 'In a terminal.', (url) => `claude mcp add --transport http gateway ${url} --header "Authorization: Bearer $KEY"`],
  ['Claude Desktop', 'claude_desktop_config.json (Settings, Developer). It runs mcp-remote, which needs Node.js.', (url) => json({ mcpServers: { gateway: { command: 'npx', args: ['-y', 'mcp-remote', url, '--header', 'Authorization:${AUTH}'], env: { AUTH: 'Bearer YOUR_KEY' } } } })],
  ['Cursor', '~/.cursor/mcp.json, or .cursor/mcp.json of a project.', (url) => json({ mcpServers: { gateway: { url, headers: bearer } } })],
  ['VS Code', '.vscode/mcp.json, or "MCP: Open User Configuration".', (url) => json({ servers: { gateway: { type: 'http', url, headers: bearer } } })],
  ['Windsurf', '~/.codeium/windsurf/mcp_config.json.', (url) => json({ mcpServers: { gateway: { serverUrl: url, headers: bearer } } })],
  ['Zed', 'settings.json.', (url) => json({ context_servers: { gateway: { url, headers: bearer } } })],
  ['Python', 'pip install mcp.', (url) => `import asyncio, os\nfrom mcp import ClientSession\nfrom mcp.client.streamable_http import streamablehttp_client\n\nasync def main():\n    headers = {"Authorization": f"Bearer {os.environ['KEY']}"}\n    async with streamablehttp_client("${url}", headers=headers) as (read, write, _):\n        async with ClientSession(read, write) as session:\n            await session.initialize()\n            print([tool.name for tool in (await session.list_tools()).tools])\n\nasyncio.run(main())`],
  ['TypeScript', 'npm install @modelcontextprotocol/sdk.', (url) => `import { Client } from "@modelcontextprotocol/sdk/client/index.js";\nimport { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";\n\nconst client = new Client({ name: "me", version: "1" });\nawait client.connect(new StreamableHTTPClientTransport(new URL("${url}"), {\n  requestInit: { headers: { Authorization: \`Bearer \${process.env.KEY}\` } },\n}));\nconsole.log((await client.listTools()).tools.map((tool) => tool.name));`],
  ['curl', 'No client at all.', (url) => `curl -H "Authorization: Bearer $KEY" -H "Accept: application/json" ${url}/tools\ncurl -H "Authorization: Bearer $KEY" -H "Accept: application/json" ${url}/tools/call -d '{"name": "server__tool", "arguments": {}}'`],
];

export function Connect() {
  const feed = useFeed();
  const [server, setServer] = useState('');
  const base = feed.hello?.url || '';
  const toolsets = (useList('toolsets').items || []).filter((each) => each.enabled);
  const url = server ? `${base}/mcp/${server}/mcp` : `${base}/mcp`;
  return html`<div class="view narrow"><div class="bar"><h1>Connect</h1></div>
    <p>All that you may see is at one address. It takes a key as <code>Authorization: Bearer …</code>, never in the URL.</p>
    <label class="inline">Address of <select value=${server} onChange=${(event) => setServer(event.target.value)}><option value="">all servers</option>${(feed.servers || []).map((each) => html`<option key=${each.name} value=${`servers/${encodeURIComponent(each.name)}`}>${each.name}</option>`)}${toolsets.map((each) => html`<option key=${`toolset ${each.slug}`} value=${`toolsets/${each.slug}`}>toolset ${each.slug}</option>`)}</select></label>
    <${Code} text=${url} label="address" />
    ${CLIENTS.filter(([name]) => !(server && name === 'curl')).map(([name, where, make]) => html`<section><h2>${name}</h2><p class="muted">${where}</p><${Code} text=${make(url)} label=${name} /></section>`)}
  </div>`;
}
