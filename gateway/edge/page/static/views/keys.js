// Keys: making them, what they may see, replacing and ending them.

import { html, useEffect, useMemo, useState } from '../vendored/preact.js';
import { ask } from '../api.js';
import { useFeed } from '../feed.js';
import { Confirm, Copy, Dialog, Empty, Field, Problem, Skeleton, ago, go, link } from '../parts.js';
import { RULE, Rules, formOf, ruleOf, words } from '../rules.js';

const isLive = (key) => !key.revoked_at && !(key.expires_at && new Date(key.expires_at) < new Date());
const stateOf = (key) => (key.revoked_at ? 'revoked' : key.expires_at && new Date(key.expires_at) < new Date() ? 'expired' : 'live');

export function Keys({ where }) {
  const [keys, setKeys] = useState(null);
  const [error, setError] = useState(null);
  const [words, setWords] = useState('');
  const [every, setEvery] = useState(false);
  const [made, setMade] = useState(null);
  const load = async () => {
    try {
      const found = [];
      let cursor = '';
      do {
        const page = await ask('GET', `/keys?limit=1000${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`);
        found.push(...page.keys);
        cursor = page.next_cursor;
      } while (cursor && found.length < 10_000);
      setKeys(found);
      setError(null);
    } catch (refused) { setError(refused); }
  };
  useEffect(() => { load(); }, []);
  if (!keys) return error ? html`<${Problem} error=${error} />` : html`<${Skeleton} />`;
  const shown = keys.filter((key) => (every || isLive(key)) && `${key.name} ${key.owner || ''} ${key.tags.join(' ')}`.toLowerCase().includes(words.toLowerCase()));
  const chosen = keys.find((key) => key.id === where[0]);
  return html`<div class="view"><div class="bar"><h1>Keys</h1><input type="search" placeholder="Name or owner" aria-label="Filter keys" value=${words} onInput=${(event) => setWords(event.target.value)} />
      <label class="check"><input type="checkbox" checked=${every} onChange=${(event) => setEvery(event.target.checked)} /> ended ones too</label><span class="fill"></span><button class="primary" onClick=${() => go('keys/+')}>Make a key</button></div>
    <${Problem} error=${error} />
    ${shown.length === 0 ? html`<${Empty} title=${keys.length ? 'No key fits' : 'No key yet'}><p>Each person, agent and pipeline gets a key of its own, which sees its own tools and can be ended by itself.</p><//>`
    : html`<div class="table" tabindex="0" role="region" aria-label="Keys"><table><thead><tr><th>Name</th><th>Role</th><th>Owner</th><th>State</th><th>Expires</th><th>Last used</th><th>Tags</th></tr></thead><tbody>${shown.slice(0, 500).map((key) => html`<tr key=${key.id} class=${chosen === key ? 'chosen' : ''}><td><a href=${link('keys', key.id)}>${key.name}</a></td><td>${key.role}</td><td>${key.owner || ''}</td><td>${stateOf(key)}${key.warning ? html` <span class="tag warn" title=${key.warning}>ends soon</span>` : ''}</td><td>${key.expires_at ? new Date(key.expires_at).toLocaleDateString() : 'never'}</td><td>${ago(key.last_used_at) || 'never'}</td><td>${key.tags.map((tag) => html`<span class="tag">${tag}</span>`)}</td></tr>`)}</tbody></table></div>`}
    ${shown.length > 500 && html`<p class="muted">The first 500 of ${shown.length}: filter to see others.</p>`}
    ${where[0] === '+' && html`<${Edit} onClose=${() => go('keys')} onDone=${(key) => { setMade(key); load(); go('keys'); }} />`}
    ${chosen && html`<${Key} key=${chosen.id} of=${chosen} onChange=${load} onMade=${setMade} />`}
    ${made && html`<${Dialog} title="The key, this once" onClose=${() => setMade(null)}><p>The gateway keeps a digest only: copy it now and hand it over by a safe way.</p><pre class="mono secret" tabindex="0">${made.key}</pre><div class="actions"><${Copy} text=${made.key} label="Copy the key" /><button class="primary" onClick=${() => setMade(null)}>Done</button></div><//>`}
  </div>`;
}

function Key({ of: key, onChange, onMade }) {
  const [seen, setSeen] = useState(null);
  const [error, setError] = useState(null);
  const [editing, edit] = useState(false);
  const path = `/keys/${encodeURIComponent(key.id)}`;
  useEffect(() => { ask('GET', `${path}/access`).then(setSeen, setError); }, [key.id, JSON.stringify(key.grants)]);
  const run = async (method, address, body) => {
    setError(null);
    try { const value = await ask(method, address, body); onChange(); return value; } catch (refused) { setError(refused); return null; }
  };
  return html`<section class="detail" aria-label=${key.name}><div class="bar"><h2>${key.name}</h2><span class="tag">${key.role}</span><span class="tag">${stateOf(key)}</span><span class="fill"></span>
    ${!key.revoked_at && html`<button onClick=${() => edit(true)}>Edit</button>
      <${Confirm} action="Rotate" text="Give it a new secret? The old one is taken for an hour more, and sessions of this page go on. A key that leaked is better revoked." onYes=${async () => { const value = await run('POST', `${path}/rotate`, {}); if (value) onMade(value); }} />
      <${Confirm} action="Revoke" danger text=${`End ${key.name} for good? What it has open ends at once.`} onYes=${() => run('DELETE', path)} />`}
    <a href="#/keys" class="quiet button" aria-label="Close">✕</a></div><${Problem} error=${error} />
    <dl class="facts">${[['id', key.id], ['owner', key.owner], ['made', new Date(key.created_at).toLocaleString()], ['expires', key.expires_at && new Date(key.expires_at).toLocaleString()], ['limits', key.limits && JSON.stringify(key.limits)], ['grants', key.role === 'user' ? JSON.stringify(key.grants || {}) : 'everything']].filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd class=${['id', 'limits', 'grants'].includes(name) ? 'mono' : ''}>${value}</dd>`)}</dl>
    ${seen && html`<${Access} of=${seen} />`}
    ${editing && html`<${Edit} of=${key} onClose=${() => edit(false)} onDone=${() => { edit(false); onChange(); }} />`}</section>`;
}

function Access({ of: seen }) {
  return html`<h3>What it sees</h3><p>${seen.servers.length} servers, ${seen.tools.length} tools, ${seen.prompts.length} prompts, ${seen.resources.length} resources.</p>
    ${seen.unmatched.length > 0 && html`<p class="problem">Nothing matches ${seen.unmatched.join(', ')}.</p>`}
    ${seen.tools.length > 0 && html`<details><summary>Tools</summary><p class="mono names">${seen.tools.slice(0, 300).map((tool) => html`<span>${tool}</span> `)}${seen.tools.length > 300 ? `… and ${seen.tools.length - 300} more` : ''}</p></details>`}`;
}

function Edit({ of: key, onClose, onDone }) {
  const feed = useFeed();
  const known = { allow: (key?.grants?.allow || []).map(formOf), deny: (key?.grants?.deny || []).map(formOf) };
  const isPlain = ![...known.allow, ...known.deny].includes(null);
  const [fields, setFields] = useState({ name: key?.name || '', role: key?.role || 'user', owner: key?.owner || '', tags: (key?.tags || []).join(', '), days: '', rate: key?.limits?.calls_per_second ?? '', concurrent: key?.limits?.concurrent ?? '', perDay: key?.limits?.calls_per_day ?? '' });
  const [allow, setAllow] = useState(isPlain ? (key ? known.allow : [{ ...RULE }]) : []);
  const [deny, setDeny] = useState(isPlain ? known.deny : []);
  const [json, setJson] = useState(JSON.stringify(key?.grants || { allow: [] }, null, 2));
  const [raw, setRaw] = useState(!isPlain);
  const [error, setError] = useState(null);
  const [seen, setSeen] = useState(null);
  const put = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const grants = useMemo(() => {
    if (raw) { try { return JSON.parse(json); } catch { return null; } }
    const rules = (list) => list.map(ruleOf).filter((rule) => Object.keys(rule).length);
    return { allow: rules(allow), ...(rules(deny).length ? { deny: rules(deny) } : {}) };
  }, [raw, json, allow, deny]);
  useEffect(() => { // what it would see, of this gateway as it is now
    if (!grants || fields.role !== 'user' || !key) return undefined;
    const timer = setTimeout(() => ask('POST', `/keys/${encodeURIComponent(key.id)}/access`, { grants }).then(setSeen, () => setSeen(null)), 300);
    return () => clearTimeout(timer);
  }, [JSON.stringify(grants), fields.role]);
  const at = (name) => ((error?.field || '').split(/[.[]/)[0] === name ? error.message : null);
  const valueNow = () => {
    const number = (text) => (text === '' ? undefined : Number(text));
    const limits = Object.fromEntries(Object.entries({ calls_per_second: number(fields.rate), concurrent: number(fields.concurrent), calls_per_day: number(fields.perDay) }).filter(([, value]) => value !== undefined));
    return { name: fields.name, role: fields.role, owner: fields.owner || null, tags: words(fields.tags), limits: Object.keys(limits).length ? { ...limits, ...(key?.limits?.burst ? { burst: key.limits.burst } : {}) } : null, ...(fields.role === 'user' ? { grants } : { grants: null }), ...(fields.days !== '' ? { expires_in: Math.round(Number(fields.days) * 86400) } : {}) };
  };
  const [first] = useState(key ? valueNow() : {});
  const submit = async (event) => {
    event.preventDefault();
    setError(null);
    if (fields.role === 'user' && !grants) { setError(Object.assign(new Error('The grants are not whole JSON.'), { field: 'grants' })); return; }
    // only what was changed: what somebody else changed meanwhile stays
    const value = Object.fromEntries(Object.entries(valueNow()).filter(([name, each]) => JSON.stringify(each) !== JSON.stringify(first[name])));
    if (!Object.keys(value).length) { onClose(); return; }
    try { onDone(await ask(key ? 'PATCH' : 'POST', key ? `/keys/${encodeURIComponent(key.id)}` : '/keys', value)); } catch (refused) { setError(refused); }
  };
  const servers = (feed.servers || []).map((server) => server.name);
  return html`<${Dialog} title=${key ? `Edit ${key.name}` : 'Make a key'} wide onClose=${onClose}><form onSubmit=${submit}>
    <div class="columns"><${Field} label="Name" required error=${at('name')}>${(id) => html`<input id=${id} required value=${fields.name} onInput=${put('name')} autofocus />`}<//>
      <${Field} label="Role" error=${at('role')}>${(id) => html`<select id=${id} value=${fields.role} onChange=${put('role')}><option value="user">user: calls what it is granted</option><option value="operator">operator: manages servers</option><option value="admin">admin: everything</option></select>`}<//>
      <${Field} label="Owner" error=${at('owner')}>${(id) => html`<input id=${id} value=${fields.owner} onInput=${put('owner')} placeholder="ann@example.org" />`}<//>
      <${Field} label="Tags" error=${at('tags')}>${(id) => html`<input id=${id} value=${fields.tags} onInput=${put('tags')} />`}<//>
      <${Field} label="Expires in days" error=${at('expires_in')} hint=${key ? 'Empty: as it is.' : 'Empty: never.'}>${(id) => html`<input id=${id} type="number" min="0" step="any" value=${fields.days} onInput=${put('days')} />`}<//></div>
    ${fields.role === 'user' && html`<div class="bar"><h3>Grants</h3><span class="fill"></span><button type="button" class="small" aria-pressed=${raw} onClick=${() => { if (!raw) setJson(JSON.stringify(grants, null, 2)); setRaw(!raw); }} disabled=${raw && !isPlain}>as JSON</button></div>
      ${raw ? html`<textarea class="mono" aria-label="grants as JSON" rows="8" spellcheck=${false} value=${json} onInput=${(event) => setJson(event.target.value)}></textarea>`
    : html`<${Rules} title="May see and call" hint="In a rule all must match. * and ? are wildcards; tools by the servers' own names." rules=${allow} onChange=${setAllow} /><${Rules} title="But never" hint="What matches here is taken away again." rules=${deny} onChange=${setDeny} />`}
      ${at('grants') && html`<p class="error" role="alert">${at('grants')}</p>`}
      ${key && seen ? html`<${Access} of=${seen} />` : html`<p class="hint">Servers: ${servers.slice(0, 20).join(', ') || 'none yet'}.</p>`}`}
    <details open=${Boolean(key?.limits)}><summary>Limits</summary><div class="columns"><${Field} label="Calls per second">${(id) => html`<input id=${id} type="number" min="0" step="any" value=${fields.rate} onInput=${put('rate')} />`}<//><${Field} label="At once">${(id) => html`<input id=${id} type="number" min="1" value=${fields.concurrent} onInput=${put('concurrent')} />`}<//><${Field} label="Per day (UTC)">${(id) => html`<input id=${id} type="number" min="1" value=${fields.perDay} onInput=${put('perDay')} />`}<//></div>${at('limits') && html`<p class="error" role="alert">${at('limits')}</p>`}</details>
    ${error && !['name', 'role', 'owner', 'tags', 'expires_in', 'grants', 'limits'].some(at) && html`<${Problem} error=${error} />`}
    <div class="actions"><button type="button" onClick=${onClose}>Cancel</button><button class="primary">${key ? 'Save' : 'Make the key'}</button></div></form><//>`;
}
