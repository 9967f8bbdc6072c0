// The audit: who called and changed what, by filters, newest first.

import { html, useEffect, useState } from '../vendored/preact.js';
import { ask } from '../api.js';
import { useFeed } from '../feed.js';
import { Dialog, Empty, Problem, Skeleton, State, Tree, ms } from '../parts.js';

const SINCE = [['3600', 'last hour'], ['86400', 'last day'], ['604800', 'last week'], ['', 'all that is kept']];

export function Audit() {
  const feed = useFeed();
  const [filter, setFilter] = useState({ kind: '', principal: '', server: '', tool: '', outcome: '', request_id: '', seconds: '86400' });
  const [rows, setRows] = useState(null);
  const [next, setNext] = useState(null);
  const [error, setError] = useState(null);
  const [chosen, choose] = useState(null);
  const query = () => {
    const params = new URLSearchParams(Object.entries(filter).filter(([name, value]) => value && name !== 'seconds'));
    if (filter.seconds) params.set('since', new Date(Date.now() - 1000 * Number(filter.seconds)).toISOString());
    return params;
  };
  const load = async (cursor) => {
    setError(null);
    const params = query();
    if (cursor) params.set('cursor', cursor);
    try {
      const page = await ask('GET', `/audit?${params}`);
      setRows((before) => (cursor ? [...before, ...page.rows] : page.rows));
      setNext(page.next_cursor);
    } catch (refused) { setError(refused); setRows((before) => before || []); }
  };
  useEffect(() => { const timer = setTimeout(load, 250); return () => clearTimeout(timer); }, [JSON.stringify(filter)]);
  const put = (name) => (event) => setFilter({ ...filter, [name]: event.target.value.trim() });
  return html`<div class="view"><div class="bar"><h1>Audit</h1><span class="fill"></span><button onClick=${() => load()}>Look again</button></div>
    <div class="bar filters"><select aria-label="Kind" value=${filter.kind} onChange=${put('kind')}><option value="">calls and changes</option><option value="call">calls</option><option value="change">changes</option></select>
      <select aria-label="Since" value=${filter.seconds} onChange=${put('seconds')}>${SINCE.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select>
      ${feed.hello?.is_operator && html`<input placeholder="who" aria-label="Who" value=${filter.principal} onInput=${put('principal')} />`}
      <input placeholder="server" aria-label="Server" value=${filter.server} onInput=${put('server')} /><input placeholder="tool" aria-label="Tool" value=${filter.tool} onInput=${put('tool')} />
      <select aria-label="Outcome" value=${filter.outcome} onChange=${put('outcome')}><option value="">any outcome</option>${['ok', 'tool_error', 'refused', 'limited', 'cancelled', 'timeout', 'unreachable', 'unknown', 'error'].map((each) => html`<option>${each}</option>`)}</select>
      <input placeholder="x-request-id" aria-label="Request id" value=${filter.request_id} onInput=${put('request_id')} /></div>
    <${Problem} error=${error} />
    ${!rows ? html`<${Skeleton} />` : rows.length === 0 ? html`<${Empty} title="Nothing fits"><p>Other filters, or a longer time, may find something.</p><//>`
    : html`<div class="table" tabindex="0" role="region" aria-label="Audit"><table><thead><tr><th>Time</th><th>Who</th><th>What</th><th>On</th><th>Outcome</th><th class="number">Took</th></tr></thead><tbody>${rows.map((row) => html`<tr><td><button class="quiet" onClick=${() => choose(row)}>${new Date(row.at).toLocaleString([], { hour12: false })}</button></td><td>${row.principal}</td><td>${row.method}</td><td class="mono cut">${row.target || [row.server, row.tool].filter(Boolean).join(' ')}</td><td>${row.outcome ? html`<${State} of=${row.outcome} />` : ''}</td><td class="number">${row.ms === undefined || row.ms === null ? '' : ms(row.ms + (row.upstream_ms || 0))}</td></tr>`)}</tbody></table></div>
      ${next && html`<button onClick=${() => load(next)}>Older ones</button>`}`}
    ${chosen && html`<${Dialog} title="One row" wide onClose=${() => choose(null)}><${Tree} value=${Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== null))} /><//>`}
  </div>`;
}
