// Replicas and their workers, sessions and streams.

import { html } from '../vendored/preact.js';
import { useFeed } from '../feed.js';
import { Empty, Skeleton, bytes } from '../parts.js';

export function Replicas() {
  const feed = useFeed();
  if (!feed.workers) return html`<${Skeleton} />`;
  if (!feed.workers.length) return html`<${Empty} title="No worker says anything"><p>Workers tell of themselves over Redis, every few seconds. <code>mcp-gateway check</code> says whether Redis answers.</p><//>`;
  const newest = Math.max(...feed.workers.map((worker) => worker.revision));
  const sum = (name) => feed.workers.reduce((total, worker) => total + (worker[name] || 0), 0);
  return html`<div class="view"><div class="bar"><h1>Replicas</h1></div>
    <dl class="numbers"><div><dt>workers</dt><dd>${feed.workers.length}</dd></div><div><dt>MCP sessions</dt><dd>${feed.sessions ?? '–'}</dd></div><div><dt>streams</dt><dd>${sum('streams')}</dd></div><div><dt>requests now</dt><dd>${sum('in_flight')}</dd></div><div><dt>memory</dt><dd>${bytes(sum('memory'))}</dd></div></dl>
    <div class="table" tabindex="0" role="region" aria-label="Workers"><table><thead><tr><th>Replica</th><th>Worker</th><th>State</th><th class="number">Revision</th><th class="number">Lag</th><th class="number">Sessions known</th><th class="number">Streams</th><th class="number">Requests</th><th class="number">Memory</th><th>Version</th></tr></thead>
      <tbody>${feed.workers.map((worker) => html`<tr key=${`${worker.replica} ${worker.worker}`}><td class="mono">${worker.replica}</td><td class="mono">${worker.worker}</td><td>${worker.degraded ? html`<span class="state state-unreachable">▲ ${worker.degraded}</span>` : worker.revision < newest ? html`<span class="state state-starting">◐ catching up</span>` : html`<span class="state state-ready">● current</span>`}</td><td class="number">${worker.revision}</td><td class="number">${worker.lag === null ? '' : `${worker.lag.toFixed(1)} s`}</td><td class="number">${worker.sessions}</td><td class="number">${worker.streams}</td><td class="number">${worker.in_flight}</td><td class="number">${bytes(worker.memory)}</td><td>${worker.version}</td></tr>`)}</tbody></table></div></div>`;
}
