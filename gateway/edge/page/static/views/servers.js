// Servers: their state, adding and editing them, what they changed.

import { html, useEffect, useRef, useState } from '../vendored/preact.js';
import { ask, serverPath } from '../api.js';
import { useFeed } from '../feed.js';
import { quantile, recent } from '../figures.js';
import { Confirm, Dialog, Empty, Field, Problem, Skeleton, State, ago, go, link, ms } from '../parts.js';

const isProgram = (server) => server.transport_type === 'stdio';
const placeOf = (server) => server.url || [server.command, ...(server.args || [])].filter(Boolean).join(' ');

export function Servers({ where }) {
  const feed = useFeed();
  const [tag, setTag] = useState('');
  const [words, setWords] = useState('');
  const servers = feed.servers;
  const manages = feed.hello?.is_operator;
  const chosen = servers?.find((server) => server.name === where[0]);
  if (!servers) return html`<${Skeleton} />`;
  const tags = [...new Set(servers.flatMap((server) => server.tags))].sort();
  const shown = servers.filter((server) => (!tag || server.tags.includes(tag)) && `${server.name} ${server.title || ''} ${server.description}`.toLowerCase().includes(words.toLowerCase()));
  return html`<div class="view"><div class="bar"><h1>Servers</h1>
      <input type="search" placeholder="Filter" aria-label="Filter servers" value=${words} onInput=${(event) => setWords(event.target.value)} />
      ${tags.length > 0 && html`<select aria-label="Tag" value=${tag} onChange=${(event) => setTag(event.target.value)}><option value="">all tags</option>${tags.map((each) => html`<option>${each}</option>`)}</select>`}
      <span class="fill"></span>${manages && html`<button onClick=${() => go('servers/import')}>Import</button><button class="primary" onClick=${() => go('servers/+')}>Add a server</button>`}</div>
    ${servers.length === 0 ? html`<${Empty} title="No server yet">${manages
    ? html`<p><a href="#/servers/+">Add one</a> by its URL, <a href="#/servers/import">import</a> the <code>mcp.json</code> that you have, or use the command line: <code>mcp-gateway servers add NAME URL</code>.</p><p>To try it: the stub of this gateway speaks MCP at <code>http://localhost:9100/mcp</code> where <code>make run</code> or <code>make ha</code> runs.</p>`
    : html`<p>Your key is granted nothing yet: an administrator can change that.</p>`}<//>`
    : html`<div class="table" tabindex="0" role="region" aria-label="Servers"><table><thead><tr><th>Name</th><th>State</th><th class="number">Tools</th><th class="number">Resources</th><th class="number">Prompts</th><th>Protocol</th>${manages && html`<th class="number" title="of the last five minutes">Calls</th><th class="number" title="of the last five minutes">p95</th><th>Asked</th><th>Where</th>`}<th>Tags</th></tr></thead>
      <tbody>${shown.map((server) => [server, manages && recent(feed, server.name)]).map(([server, came]) => html`<tr key=${server.name} class=${chosen === server ? 'chosen' : ''}>
        <td><a class="mono" href=${link('servers', server.name)}>${server.name}</a></td>
        <td><${State} of=${server.state} />${server.changes ? html` <a class="tag warn" href=${link('servers', server.name)}>${server.changes} to approve</a>` : ''}${server.flags ? html` <span class="tag warn" title="what looks suspicious in its lists">⚑ ${server.flags}</span>` : ''}</td>
        <td class="number">${server.counts.tools}</td><td class="number">${server.counts.resources + (server.counts.templates || 0)}</td><td class="number">${server.counts.prompts}</td>
        <td>${server.protocol_version || ''}</td>${manages && html`<td class="number">${came.calls || ''}${came.errors > 0 && html` <span class="tag warn">${came.errors} failed</span>`}</td><td class="number">${came.calls ? ms(quantile(came.buckets, 0.95)) : ''}</td><td>${ago(server.discovered_at)}</td><td class="mono cut" title=${placeOf(server)}>${placeOf(server)}</td>`}
        <td>${server.tags.map((each) => html`<span class="tag">${each}</span>`)}</td></tr>`)}</tbody></table></div>`}
    ${shown.length === 0 && servers.length > 0 && html`<p class="muted">No server fits.</p>`}
    ${where[0] === 'import' && manages && html`<${Import} onClose=${() => go('servers')} />`}
    ${where[0] === '+' && manages && html`<${Edit} onClose=${() => go('servers')} />`}
    ${where[0] && !['+', 'import'].includes(where[0]) && (chosen ? html`<${Server} key=${chosen.name} server=${chosen} manages=${manages} />` : html`<p class="muted">There is no server ${where[0]}.</p>`)}
  </div>`;
}

const ACTIONS = { add: '+ add', change: '~ change', same: '= same', skip: '! not taken', refused: '! refused' };

/** Servers of another product's file: what would be done is shown first. */
function Import({ onClose }) {
  const [text, setText] = useState('');
  const [values, setValues] = useState({});
  const [replace, setReplace] = useState(false);
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [over, setOver] = useState(false);
  const [left, setLeft] = useState([]);
  const [done, setDone] = useState('');
  const turn = useRef(0);
  const asked = JSON.stringify([text, values, replace]);
  const isFresh = found?.asked === asked; // what is shown is of what stands there now
  const wanted = found ? found.servers.filter((each) => !each.problem && each.action !== 'same' && !left.includes(each.name)) : [];
  const send = async (dry) => {
    turn.current += 1;
    const mine = turn.current; // what would be done is shown of the last question only
    if (!dry) setBusy(true);
    setError(null);
    try {
      const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value));
      const body = { text, values: given, replace, dry_run: dry };
      const answer = await ask('POST', '/mcp/import', dry ? body : { ...body, only: wanted.map((each) => each.name) });
      if (dry) {
        if (mine === turn.current) setFound({ ...answer, asked });
        return;
      }
      const bad = answer.servers.filter((each) => each.problem);
      if (!bad.length) { onClose(); return; }
      setDone(`${answer.servers.length - bad.length} imported. Not taken: ${bad.map((each) => `${each.name} (${each.problem})`).join(' ')}`);
      await send(true);
    } catch (refused) { if (!dry || mine === turn.current) { setError(refused); setFound(null); } } finally { if (!dry) setBusy(false); }
  };
  useEffect(() => { // what it would do, as one types
    turn.current += 1;
    setDone('');
    if (!text.trim()) { setFound(null); return undefined; }
    const timer = setTimeout(() => send(true), 300);
    return () => clearTimeout(timer);
  }, [text, replace, JSON.stringify(values)]);
  const take = async (files) => { if (files[0]) setText(await files[0].text()); };
  const drop = (event) => { event.preventDefault(); setOver(false); take(event.dataTransfer.files); };
  const count = wanted.length;
  const choose = (name, yes) => setLeft(yes ? left.filter((each) => each !== name) : [...left, name]);
  return html`<${Dialog} title="Import servers" wide onClose=${onClose}><p class="hint">From Claude, Cursor, VS Code, Windsurf, Zed, LiteLLM, ContextForge or a registry: mcp.json, settings.json, config.yaml, server.json.</p>
    <div class="drop ${over ? 'over' : ''}" onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)} onDrop=${drop}>
      <${Field} label="File">${(id) => html`<input id=${id} type="file" accept=".json,.jsonc,.yaml,.yml,.code-workspace" onChange=${(event) => take(event.target.files)} />`}<//>
      <${Field} label="or its text">${(id) => html`<textarea id=${id} class="mono" rows="6" spellcheck=${false} placeholder='{"mcpServers": {…}}' value=${text} onInput=${(event) => setText(event.target.value)}></textarea>`}<//></div>
    <${Problem} error=${error} />
    ${done && html`<p class="problem" role="status">${done}</p>`}
    ${found && html`<p><strong>${found.format}</strong> ${found.notes.join(' ')}</p>
      <div class="table" tabindex="0" role="region" aria-label="What would be done"><table><thead><tr><th></th><th>Server</th><th>Where</th><th>Notes</th></tr></thead><tbody>${found.servers.map((each) => html`<tr key=${each.name}><td>${each.problem || each.action === 'same' ? '' : html`<input type="checkbox" aria-label=${`Import ${each.name}`} checked=${!left.includes(each.name)} onChange=${(event) => choose(each.name, event.target.checked)} /> `}<span class="tag ${each.problem ? 'warn' : ''}">${ACTIONS[each.action] || each.action}</span></td><td class="mono">${each.name}</td><td class="mono cut">${each.server ? placeOf(each.server) : ''}</td><td class="wrap">${[each.problem, (each.changes || []).join(', '), ...each.notes].filter(Boolean).join(' ')}</td></tr>`)}</tbody></table></div>
      ${found.variables.length > 0 && html`<h3>Values</h3><p class="hint">What the file leaves open. Without a value <code>env:…</code> stays a reference to the gateway's own environment, which administrators alone may write.</p><div class="columns">${found.variables.map((name) => html`<${Field} key=${name} label=${name}>${(id) => html`<input id=${id} type="password" autocomplete="off" value=${values[name] || ''} onInput=${(event) => setValues({ ...values, [name]: event.target.value })} />`}<//>`)}</div>`}
      ${found.servers.some((each) => each.action === 'change') && html`<label class="check"><input type="checkbox" checked=${replace} onChange=${(event) => setReplace(event.target.checked)} /> Change servers that are there and differ</label>`}`}
    <div class="actions"><button onClick=${onClose}>Cancel</button><button class="primary" disabled=${busy || !count || !isFresh} onClick=${() => send(false)}>${count ? `Import ${count}` : 'Import'}</button></div><//>`;
}

function Server({ server, manages }) {
  const [editing, edit] = useState(false);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState('');
  const [details, setDetails] = useState(null);
  const came = recent(useFeed(), server.name);
  const path = serverPath(server.name);
  useEffect(() => { ask('GET', path).then(setDetails, () => {}); }, [server.state, server.discovered_at]);
  const run = async (what, method, address, body) => {
    setBusy(what);
    setError(null);
    try { await ask(method, address, body); return true; } catch (refused) { setError(refused); return false; } finally { setBusy(''); }
  };
  const facts = [
    ['title', server.title], ['description', server.description], ['where', manages && placeOf(server)],
    ['transport', server.transport_type], ['protocol', server.protocol_version], ['server', server.server_info && `${server.server_info.name} ${server.server_info.version || ''}`],
    ['last five minutes', manages && came.calls > 0 && `${came.calls} calls, ${came.errors} failed, p50 ${ms(quantile(came.buckets, 0.5))}, p95 ${ms(quantile(came.buckets, 0.95))}, p99 ${ms(quantile(came.buckets, 0.99))}`],
    ['document', server.document && `${server.document.title} ${server.document.version}, OpenAPI ${server.document.openapi}: ${server.document.tools} tools, ${server.document.left_out} operations that can be none`],
    ['breaker', details?.breaker], ['unreachable since', server.unreachable_since && ago(server.unreachable_since)],
    ['asked', server.discovered_at && ago(server.discovered_at)], ['lock', server.lock], ['limits', server.limits && JSON.stringify(server.limits)],
    ['headers', server.headers && Object.keys(server.headers).join(', ')], ['renamed', server.renamed && Object.entries(server.renamed).map(([from, to]) => `${from} → ${to}`).join(', ')],
  ].filter(([, value]) => value);
  return html`<section class="detail" aria-label=${server.name}><div class="bar"><h2 class="mono">${server.name}</h2><${State} of=${server.state} /><span class="fill"></span>
    ${manages && html`<button onClick=${() => edit(true)}>Edit</button>
      <button disabled=${busy} onClick=${() => run('refresh', 'POST', `${path}/refresh`)}>${busy === 'refresh' ? 'Asking' : 'Refresh'}</button>
      <button disabled=${busy} onClick=${() => run('toggle', 'PATCH', path, { enabled: !server.enabled })}>${server.enabled ? 'Disable' : 'Enable'}</button>
      <${Confirm} action="Remove" danger text=${`Remove ${server.name}? Its tools vanish for everybody, and its public names may go to others.`} onYes=${async () => { if (await run('remove', 'DELETE', path)) go('servers'); }} />`}
    <a href="#/servers" class="quiet button" aria-label="Close">✕</a></div>
    <${Problem} error=${error} />
    ${server.reason && html`<p class="problem">${server.reason}</p>`}
    <dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd class=${['where', 'limits', 'renamed'].includes(name) ? 'mono' : ''}>${value}</dd>`)}</dl>
    <p><a href=${`${link('tools')}?server=${encodeURIComponent(server.name)}`}>Its ${server.counts.tools} tools</a></p>
    ${manages && (server.changes > 0 || server.flags > 0) && html`<${Changes} server=${server} />`}
    ${editing && html`<${Edit} server=${server} onClose=${() => edit(false)} />`}
  </section>`;
}

function Changes({ server }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const path = serverPath(server.name);
  const look = () => ask('GET', `${path}/changes?limit=1000`).then(setFound, setError);
  useEffect(() => { look(); }, [server.name, server.changes, server.flags, server.discovered_at]);
  const approve = async (tools) => {
    setError(null);
    try { setFound(await ask('POST', `${path}/approve`, { digest: found.digest, ...(tools ? { tools } : {}) })); } catch (refused) { setError(refused); look(); }
  };
  if (!found) return html`<${Problem} error=${error} />`;
  return html`<div class="changes"><${Problem} error=${error} />
    ${found.changes.length > 0 && html`<div class="bar"><h3>To approve</h3><span class="fill"></span>${found.changes.length > 1 && html`<${Confirm} action="Approve all" text=${`Approve all ${found.total} as they are shown?`} onYes=${() => approve()} />`}</div>`}
    ${found.changes.map((change) => html`<article key=${change.tool}><div class="bar"><strong class="mono">${change.tool}</strong> <span class="tag warn">${change.what}</span> ${change.effect !== 'none' && html`<span class="tag">${change.effect}</span>`} <span class="muted">${change.parts.join(', ')}</span><span class="fill"></span><button onClick=${() => approve([change.tool])}>Approve</button></div>
      ${change.doubted && html`<p>It claims what is not believed yet: ${Object.entries(change.doubted).map(([hint, said]) => `${hint} ${said.claimed}`).join(', ')}.</p>`}
      ${change.diff && html`<pre class="diff" tabindex="0" aria-label=${`difference of ${change.tool}`}>${change.diff.split('\n').map((line) => html`<span class=${{ '+': 'plus', '-': 'minus', '@': 'at' }[line[0]] || ''}>${line}\n</span>`)}</pre>`}</article>`)}
    ${found.flags.length > 0 && html`<h3>Looks suspicious</h3><ul class="flags">${found.flags.map((flag) => html`<li><span class="tag warn">${flag.what.replace('_', ' ')}</span> <code>${flag.place}</code> ${flag.detail}</li>`)}</ul>`}</div>`;
}

const lines = (value) => Object.entries(value || {}).map(([name, each]) => `${name}: ${each}`).join('\n');
const pairs = (text, what) => Object.fromEntries(text.split('\n').map((line) => line.trim()).filter(Boolean).map((line) => {
  const at = line.indexOf(':');
  if (at < 1) throw Object.assign(new Error(`${line} is not "Name: value".`), { field: what });
  return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}));

// An API's document: its address, or a file that is sent along and stored.
function Document({ fields, set, put, at, stored }) {
  const take = async (event) => { const [file] = event.target.files; set({ ...fields, spec: file ? await file.text() : '', spec_url: '' }); };
  return html`<${Field} label="Address of its OpenAPI document" error=${at('spec_url')}>${(id) => html`<input id=${id} class="mono" type="url" placeholder="https://api.example.org/openapi.json" disabled=${!!fields.spec} value=${fields.spec_url} onInput=${put('spec_url')} />`}<//>
    <${Field} label="or a file" error=${at('spec')} hint=${stored ? `Stored: ${stored.bytes} bytes.` : 'JSON or YAML, up to 5 MiB.'}>${(id) => html`<input id=${id} type="file" accept=".json,.yaml,.yml" onChange=${take} />`}<//>
    <${Field} label="Only these operations" error=${at('include')} hint="Names, tag:NAME or GET /path*, one per line; all, if there are none.">${(id) => html`<textarea id=${id} class="mono" rows="2" value=${fields.include} onInput=${put('include')}></textarea>`}<//>
    <${Field} label="Not these" error=${at('exclude')}>${(id) => html`<textarea id=${id} class="mono" rows="2" value=${fields.exclude} onInput=${put('exclude')}></textarea>`}<//>`;
}

function Edit({ server, onClose }) {
  const feed = useFeed();
  const [first] = useState({
    name: server?.name || '', kind: server && isProgram(server) ? 'stdio' : 'http', url: server?.url || '', transport_type: server && !isProgram(server) ? server.transport_type : 'http',
    command: server?.command || '', args: (server?.args || []).join('\n'), env: lines(server?.env), headers: lines(server?.headers),
    title: server?.title || '', description: server?.description || '', tags: (server?.tags || []).join(', '), prefix: server?.prefix ?? '', noPrefix: server?.prefix === '', lock: server?.lock || '', timeout_seconds: server?.timeout_seconds ?? '',
    validate_arguments: server?.validate_arguments || false, trust_annotations: server?.trust_annotations ?? true,
    spec: '', spec_url: server?.spec_url || '', include: (server?.include || []).join('\n'), exclude: (server?.exclude || []).join('\n'),
  });
  const [fields, setFields] = useState(first);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const put = (name) => (event) => setFields({ ...fields, [name]: event.target.type === 'checkbox' ? event.target.checked : event.target.value });
  const at = (name) => (error?.field || '').split('.')[0] === name ? error.message : null;
  const isApi = fields.kind === 'http' && fields.transport_type === 'openapi';
  const shown = ['name', 'url', 'spec', 'spec_url', 'include', 'exclude', 'command', 'args', 'env', 'headers', 'title', 'description', 'tags', 'prefix', 'timeout_seconds'];
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      // only what was changed is sent: what somebody else changed meanwhile stays. What says where a server is goes with
      // its secrets, so that the gateway can refuse to send them elsewhere.
      const value = {};
      const take = (names, make) => { if (!server || names.some((name) => fields[name] !== first[name])) Object.assign(value, make()); };
      take(['title'], () => ({ title: fields.title || null }));
      for (const name of ['description', 'validate_arguments', 'trust_annotations']) take([name], () => ({ [name]: fields[name] }));
      take(['tags'], () => ({ tags: fields.tags.split(',').map((tag) => tag.trim()).filter(Boolean) }));
      take(['lock'], () => ({ lock: fields.lock || null }));
      take(['timeout_seconds'], () => ({ timeout_seconds: fields.timeout_seconds === '' ? null : Number(fields.timeout_seconds) }));
      take(['prefix', 'noPrefix'], () => ({ prefix: fields.noPrefix ? '' : fields.prefix || null }));
      if (fields.kind === 'stdio') take(['command', 'args', 'env'], () => ({ transport_type: 'stdio', command: fields.command, args: fields.args === '' ? [] : fields.args.replace(/\n$/, '').split('\n'), env: pairs(fields.env, 'env') }));
      else {
        take(['transport_type'], () => ({ transport_type: fields.transport_type }));
        take(['url', 'headers'], () => ({ ...(fields.url && { url: fields.url }), headers: pairs(fields.headers, 'headers') }));
        if (isApi) {
          if (fields.spec) value.spec = fields.spec;
          else take(['spec_url'], () => ({ spec_url: fields.spec_url || null }));
          for (const name of ['include', 'exclude']) take([name], () => ({ [name]: fields[name].split('\n').map((each) => each.trim()).filter(Boolean) }));
        }
      }
      if (server && Object.keys(value).length) await ask('PATCH', serverPath(server.name), value);
      if (!server) await ask('POST', '/mcp/servers', { name: fields.name, ...value });
      if (server) onClose(); else go(`servers/${encodeURIComponent(fields.name)}`);
    } catch (refused) { setError(refused); } finally { setBusy(false); }
  };
  return html`<${Dialog} title=${server ? `Edit ${server.name}` : 'Add a server'} onClose=${onClose}><form onSubmit=${submit}>
    ${!server && html`<${Field} label="Name" required error=${at('name')} hint="Letters, digits, '.', '_' and '-': its tools are called name__tool.">${(id) => html`<input id=${id} required value=${fields.name} onInput=${put('name')} autofocus />`}<//>
      ${feed.hello?.allow_stdio && feed.hello?.is_admin && html`<${Field} label="Kind">${(id) => html`<select id=${id} value=${fields.kind} onChange=${put('kind')}><option value="http">at a URL</option><option value="stdio">a program that the gateway runs</option></select>`}<//>`}`}
    ${fields.kind === 'stdio' ? html`<${Field} label="Command" required error=${at('command')}>${(id) => html`<input id=${id} class="mono" required value=${fields.command} onInput=${put('command')} />`}<//>
      <${Field} label="Arguments" error=${at('args')} hint="One per line.">${(id) => html`<textarea id=${id} class="mono" rows="3" value=${fields.args} onInput=${put('args')}></textarea>`}<//>
      <${Field} label="Environment" error=${at('env')} hint="NAME: value, one per line. What is stored is shown as [redacted]; leave it to keep it.">${(id) => html`<textarea id=${id} class="mono" rows="2" value=${fields.env} onInput=${put('env')}></textarea>`}<//>`
    : html`<${Field} label="URL" required=${!isApi} error=${at('url')} hint=${isApi && 'Where the API is; without it, where its document says.'}>${(id) => html`<input id=${id} class="mono" required=${!isApi} type="url" placeholder=${isApi ? 'https://api.example.org/v1' : 'https://docs.example.org/mcp'} value=${fields.url} onInput=${put('url')} />`}<//>
      <${Field} label="Transport" hint="http finds out by itself what the server speaks.">${(id) => html`<select id=${id} value=${fields.transport_type} onChange=${put('transport_type')}><option value="http">http</option>${server && html`<option value="streamable_http">streamable_http</option>`}<option value="sse">sse</option><option value="rest">rest</option><option value="openapi">openapi</option></select>`}<//>
      ${isApi && html`<${Document} fields=${fields} set=${setFields} put=${put} at=${at} stored=${server?.spec} />`}
      <${Field} label="Headers" error=${at('headers')} hint="Name: value, one per line. What is stored is shown as [redacted]; leave it to keep it.">${(id) => html`<textarea id=${id} class="mono" rows="2" value=${fields.headers} onInput=${put('headers')}></textarea>`}<//>`}
    <${Field} label="Description" error=${at('description')}>${(id) => html`<input id=${id} value=${fields.description} onInput=${put('description')} />`}<//>
    <details><summary>More</summary>
      <${Field} label="Title" error=${at('title')}>${(id) => html`<input id=${id} value=${fields.title} onInput=${put('title')} />`}<//>
      <${Field} label="Tags" error=${at('tags')} hint="Separated by commas.">${(id) => html`<input id=${id} value=${fields.tags} onInput=${put('tags')} />`}<//>
      <${Field} label="Prefix" error=${at('prefix')} hint="In place of its name in public names.">${(id) => html`<input id=${id} value=${fields.prefix} disabled=${fields.noPrefix} onInput=${put('prefix')} />`}<//>
      <label class="check"><input type="checkbox" checked=${fields.noPrefix} onChange=${put('noPrefix')} /> No prefix: tools are called as it calls them</label>
      <${Field} label="Timeout, in seconds" error=${at('timeout_seconds')}>${(id) => html`<input id=${id} type="number" min="0" step="any" value=${fields.timeout_seconds} onInput=${put('timeout_seconds')} />`}<//>
      <${Field} label="When it changes a tool">${(id) => html`<select id=${id} value=${fields.lock} onChange=${put('lock')}><option value="">serve it</option><option value="warn">serve it and warn</option><option value="enforce">hold it until it is approved</option></select>`}<//>
      <label class="check"><input type="checkbox" checked=${fields.validate_arguments} onChange=${put('validate_arguments')} /> Check arguments against the tools' schemas</label>
      <label class="check"><input type="checkbox" checked=${fields.trust_annotations} onChange=${put('trust_annotations')} /> Believe its hints (read only and so on)</label>
    </details>
    ${error && !shown.some(at) && html`<${Problem} error=${error} />`}
    <div class="actions"><button type="button" onClick=${onClose}>Cancel</button><button class="primary" disabled=${busy}>${busy ? 'Saving' : server ? 'Save' : 'Add'}</button></div>
  </form><//>`;
}
