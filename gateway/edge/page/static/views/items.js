// Tools, resources and prompts: found while one types, shown, and tried.

import { html, useEffect, useMemo, useState } from '../vendored/preact.js';
import { useFeed, useList } from '../feed.js';
import { quantile, recent } from '../figures.js';
import { ask } from '../api.js';
import { Empty, Hints, Problem, Rows, Skeleton, Told, link, ms } from '../parts.js';
import { rowsOf } from '../form.js';
import { Try } from './try.js';

const TITLES = { tools: 'Tools', resources: 'Resources', prompts: 'Prompts' };
const HINTS = [['', 'any hints'], ['reads', 'reads only'], ['writes', 'may write'], ['destroys', 'destructive']];
const FITS = {
  reads: (item) => item.annotations?.readOnlyHint === true,
  writes: (item) => item.annotations?.readOnlyHint !== true,
  destroys: (item) => item.annotations?.readOnlyHint !== true && item.annotations?.destructiveHint !== false,
};

export function Items({ kind, where }) {
  const feed = useFeed();
  const list = useList(kind);
  const [words, setWords] = useState('');
  const [server, setServer] = useState(new URLSearchParams(location.hash.split('?')[1] || '').get('server') || '');
  const [tag, setTag] = useState('');
  const [hint, setHint] = useState('');
  const items = list.items;
  const tagged = useMemo(() => new Set((feed.servers || []).filter((each) => each.tags.includes(tag)).map((each) => each.name)), [feed.servers, tag]);
  const shown = useMemo(() => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    return (items || []).filter((item) => (!server || item.server === server) && (!tag || tagged.has(item.server)) && (!hint || FITS[hint](item)) && wanted.every((word) => item.text.includes(word)));
  }, [items, words, server, tag, tagged, hint]);
  const name = where[0] || null;
  const chosen = useMemo(() => (items || []).find((item) => item.key === name), [items, name]);
  const servers = (feed.servers || []).map((each) => each.name);
  const tags = [...new Set((feed.servers || []).flatMap((each) => each.tags))].sort();
  const draw = (item) => html`<a key=${item.key} role="listitem" class="row ${item.key === name ? 'chosen' : ''}" href=${link(kind, item.key)}>
    <span class="mono name">${item.key}</span><span class="text">${item.title || item.description || ''}</span>${kind === 'tools' && html`<${Hints} of=${item.annotations} />`}</a>`;
  return html`<div class="view split ${chosen ? 'has-chosen' : ''}"><div class="list">
    <div class="bar"><h1>${TITLES[kind]}</h1><span class="muted count" role="status">${items ? (shown.length === items.length ? items.length : `${shown.length} of ${items.length}`) : ''}</span></div>
    <div class="bar filters"><input type="search" placeholder="Search names and descriptions" aria-label=${`Search ${kind}`} value=${words} onInput=${(event) => setWords(event.target.value)} />
      <select aria-label="Server" value=${server} onChange=${(event) => setServer(event.target.value)}><option value="">all servers</option>${servers.map((each) => html`<option key=${each}>${each}</option>`)}</select>
      ${tags.length > 0 && html`<select aria-label="Tag" value=${tag} onChange=${(event) => setTag(event.target.value)}><option value="">all tags</option>${tags.map((each) => html`<option key=${each}>${each}</option>`)}</select>`}
      ${kind === 'tools' && html`<select aria-label="Hints" value=${hint} onChange=${(event) => setHint(event.target.value)}>${HINTS.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select>`}</div>
    ${!items ? (list.error ? html`<p class="problem" role="alert">${list.error}</p>` : html`<${Skeleton} rows=${12} />`)
    : shown.length ? html`<${Rows} items=${shown} draw=${draw} label=${TITLES[kind]} />`
      : html`<${Empty} title=${items.length ? 'Nothing fits' : `No ${kind} yet`}>${items.length ? html`<p>Other words or filters may find it.</p>` : html`<p>They come with <a href="#/servers">servers</a>.</p>`}<//>`}
  </div>
  ${name && html`<div class="chosen-item">${chosen ? html`<${Item} key=${name} kind=${kind} item=${chosen} />` : items ? html`<${Empty} title="Not here"><p>Nothing of the name <code>${name}</code> is served to you.</p><//>` : html`<${Skeleton} />`}</div>`}
  </div>`;
}

function Item({ kind, item }) {
  const feed = useFeed();
  const server = (feed.servers || []).find((each) => each.name === item.server);
  const rows = kind === 'tools' ? rowsOf(item.inputSchema || {}) : (item.arguments || []).map((each) => ({ name: each.name, type: 'string', required: each.required, text: each.description || '' }));
  const came = feed.hello?.is_operator ? recent(feed, item.server) : null;
  return html`<section class="detail" aria-label=${item.key}><div class="bar"><a class="back button quiet" href=${link(kind)} aria-label="Back to the list">←</a><h2 class="mono">${item.key}</h2></div>
    <p class="where"><a href=${link('servers', item.server)}>${item.server}</a>${server && server.state !== 'ready' && html` <span class="tag warn">${server.state}</span>`}${came?.calls > 0 && html` <span class="muted" title="of all calls of this server in the last five minutes">${ms(quantile(came.buckets, 0.95))} p95</span>`} ${kind === 'tools' && html`<${Hints} of=${item.annotations} />`} ${item.mimeType && html`<span class="tag">${item.mimeType}</span>`}</p>
    ${item.title && html`<h3><${Told} text=${item.title} /></h3>`}
    ${item.description && html`<p class="description"><${Told} text=${item.description} /></p>`}
    ${rows.length > 0 && html`<details><summary>Arguments (${rows.length})</summary><div class="table"><table><thead><tr><th>Name</th><th>Type</th><th>What for</th></tr></thead><tbody>${rows.map((row) => html`<tr><td class="mono">${row.name}${row.required && html`<span class="required" title="required"> *</span>`}</td><td class="mono">${row.type}</td><td><${Told} text=${row.text || ''} />${row.initial !== undefined && html` <span class="muted">(${JSON.stringify(row.initial)})</span>`}</td></tr>`)}</tbody></table></div></details>`}
    ${item.outputSchema && html`<details><summary>Result's schema</summary><pre class="mono small-text" tabindex="0">${JSON.stringify(item.outputSchema, null, 2)}</pre></details>`}
    ${kind === 'tools' && feed.hello?.is_admin && html`<${Seers} tool=${item.key} />`}
    <${Try} kind=${kind} item=${item} />
  </section>`;
}

/** Who may see a tool: asked for when it is unfolded, since all keys are judged for it. */
function Seers({ tool }) {
  const [open, setOpen] = useState(false);
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!open) return;
    setError(null);
    ask('GET', `/keys?sees=${encodeURIComponent(tool)}&role=user&limit=200`).then(setFound, setError);
  }, [open, tool]);
  return html`<details onToggle=${(event) => setOpen(event.target.open)}><summary>Who may see it</summary>
    <${Problem} error=${error} />
    ${found && html`<p>Administrators and operators${found.keys.length ? html`, and ${found.keys.map((key, at) => html`${at ? ', ' : ''}<a href=${link('keys', key.id)}>${key.name}</a>`)}${found.next_cursor ? ' and perhaps more' : ''}` : found.next_cursor ? '; none of the first keys is granted it' : '; no key is granted it'}.</p>`}</details>`;
}
