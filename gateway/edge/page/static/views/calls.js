// Live calls of all replicas, and the last hour in plots.

import { html, useEffect, useMemo, useRef, useState } from '../vendored/preact.js';
import { useFeed } from '../feed.js';
import { quantile, sum } from '../figures.js';
import { Dialog, Empty, State, bytes, clock, ms } from '../parts.js';

function series(feed, server, seconds) {
  const { slots, now } = feed;
  const found = [[], [], [], [], []];
  for (let number = now - 359; number <= now; number += 1) {
    const slot = slots.get(number) || {};
    const { calls, errors, buckets } = sum(server ? [slot[server]].filter(Boolean) : Object.values(slot));
    found[0].push(number * seconds);
    found[1].push(calls / seconds);
    found[2].push(errors / seconds);
    found[3].push(quantile(buckets, 0.5));
    found[4].push(quantile(buckets, 0.99));
  }
  return found;
}

/** Lines over the last hour; with `dots` also values that have no neighbour, which a line can't show. */
function Plot({ title, data, lines, unit, dots = false }) {
  const ref = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const times = { values: (_, marks) => marks.map((at) => new Date(at * 1000).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false })) };
    const axis = { stroke: color('--muted'), grid: { stroke: color('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui' };
    plot.current = new window.uPlot({
      width: ref.current.clientWidth || 400, height: 150, cursor: { y: false }, legend: { live: true },
      scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1)] } },
      series: [{ value: (_, at) => (at ? new Date(at * 1000).toLocaleTimeString([], { hour12: false }) : '') }, ...lines.map(([label, name]) => ({ label, stroke: color(name), width: 1.5, spanGaps: false, points: { show: dots, size: 4, fill: color(name) }, value: (_, each) => (each === null || each === undefined ? '–' : `${each < 10 ? each.toFixed(1) : Math.round(each)} ${unit}`) }))],
      axes: [{ ...axis, ...times, size: 28 }, { ...axis, size: 44 }],
    }, data, ref.current);
    const observer = new ResizeObserver(() => plot.current.setSize({ width: ref.current.clientWidth, height: 150 }));
    observer.observe(ref.current);
    return () => { observer.disconnect(); plot.current.destroy(); };
  }, [title]);
  useEffect(() => { plot.current?.setData(data); }, [data]);
  return html`<figure class="plot"><figcaption>${title}</figcaption><div ref=${ref}></div></figure>`;
}

export function Calls({ where }) {
  const feed = useFeed();
  const [server, setServer] = useState('');
  const [only, setOnly] = useState('');
  const [paused, pause] = useState(null);
  const rows = (paused || feed.calls).filter((row) => (!server || row.server === server) && (!only || (only === 'bad' ? row.outcome !== 'ok' : row.outcome === only)));
  const chosen = feed.calls.find((row) => row.request_id === where[0]);
  const hello = feed.hello;
  const [calls, errors, times] = useMemo(() => {
    const found = series(feed, server, hello?.slot_seconds || 10);
    return [[found[0], found[1], found[2]], null, [found[0], found[3], found[4]]];
  }, [feed.now, feed.slots.size, server, hello]);
  const servers = (feed.servers || []).map((each) => each.name);
  const last = useMemo(() => calls[1].slice(-30).reduce((sum, each) => sum + each, 0) / 30, [calls]);
  return html`<div class="view"><div class="bar"><h1>Calls</h1>
      <select aria-label="Server" value=${server} onChange=${(event) => setServer(event.target.value)}><option value="">all servers</option>${servers.map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <select aria-label="Outcome" value=${only} onChange=${(event) => setOnly(event.target.value)}><option value="">all outcomes</option><option value="bad">not ok</option>${['ok', 'tool_error', 'refused', 'limited', 'cancelled', 'timeout', 'unreachable', 'unknown', 'error'].map((each) => html`<option>${each}</option>`)}</select>
      <span class="fill"></span><button aria-pressed=${paused !== null} onClick=${() => pause(paused ? null : feed.calls)}>${paused ? 'Go on' : 'Pause'}</button></div>
    ${hello?.is_operator && html`<div class="plots"><${Plot} title=${`Calls per second, last hour (now ${last.toFixed(1)})`} data=${calls} lines=${[['calls', '--accent'], ['errors', '--bad']]} unit="/s" /><${Plot} title="Time of a call" data=${times} lines=${[['p50', '--accent'], ['p99', '--warn']]} unit="ms" dots /></div>`}
    ${hello && !hello.has_calls ? html`<${Empty} title="Calls are not recorded here"><p>The audit of calls is off (<code>GATEWAY_AUDIT</code>): there is nothing to list.</p><//>`
    : rows.length ? html`<div class="table" tabindex="0" role="region" aria-label="Calls"><table><thead><tr><th>Time</th><th>Who</th><th>Server</th><th>Tool</th><th>Outcome</th><th class="number">Gateway</th><th class="number">Server took</th><th class="number">Size</th></tr></thead>
      <tbody>${rows.slice(0, 200).map((row) => html`<tr key=${`${row.at}${row.request_id}${row.tool}`}><td><a href=${`#/calls/${encodeURIComponent(row.request_id)}`}>${clock(row.at)}</a></td><td>${row.principal}</td><td class="mono">${row.server || ''}</td><td class="mono cut">${row.tool || ''}</td><td><${State} of=${row.outcome} /></td><td class="number">${ms(row.ms)}</td><td class="number">${ms(row.upstream_ms)}</td><td class="number">${bytes(row.bytes)}</td></tr>`)}</tbody></table></div>`
      : html`<${Empty} title="No call yet"><p>Calls of all replicas appear here a moment after they end. <a href="#/tools">Try a tool</a>.</p><//>`}
    ${where[0] && chosen && html`<${Dialog} title="One call" onClose=${() => history.back()}><dl class="facts">${Object.entries(chosen).filter(([, value]) => value !== null).map(([name, value]) => html`<dt>${name.replace(/_/g, ' ')}</dt><dd class="mono">${typeof value === 'object' ? JSON.stringify(value) : String(value)}</dd>`)}</dl><//>`}
  </div>`;
}
