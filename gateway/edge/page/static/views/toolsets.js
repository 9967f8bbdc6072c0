// Toolsets: choices of tools at addresses of their own; for operators also making, changing and removing them.

import { html, useEffect, useState } from '../vendored/preact.js';
import { ask } from '../api.js';
import { useFeed, useList } from '../feed.js';
import { Code, Confirm, Dialog, Empty, Field, Problem, Skeleton, State, Told, go, link } from '../parts.js';
import { RULE, Rules, formOf, ruleOf } from '../rules.js';

const path = (slug) => `/mcp/toolsets/${encodeURIComponent(slug)}`;
const MODES = { '': 'as the gateway is set', full: 'full: all tools are listed', search: 'search: found when needed', auto: 'auto: search where they are many' };

export function Toolsets({ where }) {
  const feed = useFeed();
  const list = useList('toolsets');
  const [filter, setFilter] = useState('');
  if (!list.items) return list.error ? html`<${Problem} error=${new Error(list.error)} />` : html`<${Skeleton} />`;
  const shown = list.items.filter((each) => `${each.slug} ${each.text} ${each.servers.join(' ')}`.toLowerCase().includes(filter.toLowerCase()));
  const chosen = list.items.find((each) => each.slug === where[0]);
  const operates = feed.hello?.is_operator;
  return html`<div class="view"><div class="bar"><h1>Toolsets</h1><input type="search" placeholder="Slug, words or server" aria-label="Filter toolsets" value=${filter} onInput=${(event) => setFilter(event.target.value)} /><span class="fill"></span>
      ${operates && html`<button class="primary" onClick=${() => go('toolsets/+')}>Make a toolset</button>`}</div>
    ${shown.length === 0 ? html`<${Empty} title=${list.items.length ? 'No toolset fits' : 'No toolset yet'}><p>A toolset is a choice of tools of any servers at an address of its own: what an agent needs, and no more.</p><//>`
    : html`<div class="table" tabindex="0" role="region" aria-label="Toolsets"><table><thead><tr><th>Slug</th><th>State</th><th>Tools</th><th>Servers</th><th>What for</th></tr></thead><tbody>${shown.map((each) => html`<tr key=${each.slug} class=${chosen === each ? 'chosen' : ''}><td><a href=${link('toolsets', each.slug)}>${each.slug}</a></td><td><${State} of=${each.state} /></td><td>${each.counts.tools}</td><td>${each.servers.join(', ')}</td><td><${Told} text=${each.description || each.title || ''} /></td></tr>`)}</tbody></table></div>`}
    ${where[0] === '+' && operates && html`<${Edit} onClose=${() => go('toolsets')} onDone=${(made) => go(`toolsets/${made.slug}`)} />`}
    ${chosen && html`<${Toolset} key=${chosen.slug} of=${chosen} operates=${operates} base=${feed.hello?.url || ''} />`}
  </div>`;
}

function Toolset({ of: toolset, operates, base }) {
  const [tools, setTools] = useState(null);
  const [error, setError] = useState(null);
  const [editing, edit] = useState(false);
  useEffect(() => {
    let here = true;
    if (toolset.enabled) ask('GET', `${path(toolset.slug)}/tools?tokens=true`).then((found) => here && setTools(found), (refused) => here && setError(refused));
    else setTools(null);
    return () => { here = false; };
  }, [JSON.stringify(toolset)]);
  const run = async (method, body) => {
    setError(null);
    try { await ask(method, path(toolset.slug), body); return true; } catch (refused) { setError(refused); return false; }
  };
  return html`<section class="detail" aria-label=${toolset.slug}><div class="bar"><h2>${toolset.title || toolset.slug}</h2><${State} of=${toolset.state} /><span class="fill"></span>
    ${operates && html`<button onClick=${() => edit(true)}>Edit</button>
      <button onClick=${() => run('PATCH', { enabled: !toolset.enabled })}>${toolset.enabled ? 'Switch off' : 'Switch on'}</button>
      <${Confirm} action="Remove" danger text=${`Forget the toolset ${toolset.slug}? Its servers stay as they are; clients at its address find nothing there.`} onYes=${async () => { if (await run('DELETE')) go('toolsets'); }} />`}
    <a href="#/toolsets" class="quiet button" aria-label="Close">✕</a></div><${Problem} error=${error} />
    <${Code} text=${`${base}${path(toolset.slug)}/mcp`} label="address" />
    ${(toolset.problems || []).map((problem) => html`<p class="problem">${problem}</p>`)}
    <dl class="facts">${[['for', toolset.description], ['told to models', toolset.instructions], ['names', toolset.names], ['tools are listed', toolset.mode], ['holds', `${toolset.counts.tools} tools, ${toolset.counts.prompts} prompts, ${toolset.counts.resources} resources of ${toolset.servers.length} servers`], ['include', toolset.include && JSON.stringify(toolset.include)], ['exclude', toolset.exclude?.length ? JSON.stringify(toolset.exclude) : ''], ['overrides', toolset.overrides && Object.keys(toolset.overrides).length ? JSON.stringify(toolset.overrides) : ''], ['results', toolset.results && JSON.stringify(toolset.results)]].filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd class=${['include', 'exclude', 'overrides', 'results'].includes(name) ? 'mono' : ''}><${Told} text=${value} /></dd>`)}</dl>
    ${tools && html`<p>They take about ${tools.tokens.full.toLocaleString('en')} tokens of a model's context, ${tools.tokens.search.toLocaleString('en')} with tool search.</p>
      <details open=${tools.tools.length <= 20}><summary>Tools</summary><ul class="plain">${tools.tools.slice(0, 300).map((tool) => html`<li key=${tool.name}><span class="mono">${tool.name}</span> <span class="muted">${tool.server}, ${tool.tokens} tokens</span></li>`)}</ul>${tools.tools.length > 300 ? html`<p class="muted">… and ${tools.tools.length - 300} more</p>` : ''}</details>`}
    ${editing && html`<${Edit} of=${toolset} onClose=${() => edit(false)} onDone=${() => edit(false)} />`}</section>`;
}

function Edit({ of: toolset, onClose, onDone }) {
  const known = { include: (toolset?.include || []).map(formOf), exclude: (toolset?.exclude || []).map(formOf) };
  const isPlain = ![...known.include, ...known.exclude].includes(null);
  const [fields, setFields] = useState({ slug: toolset?.slug || '', title: toolset?.title || '', description: toolset?.description || '', instructions: toolset?.instructions || '', names: toolset?.names || 'prefixed', mode: toolset?.mode || '', pinned: (toolset?.pinned || []).join(', ') });
  const [include, setInclude] = useState(toolset && isPlain ? known.include : [{ ...RULE }]);
  const [exclude, setExclude] = useState(isPlain ? known.exclude : []);
  const [more, setMore] = useState(JSON.stringify({ ...(isPlain ? {} : { include: toolset.include, exclude: toolset.exclude }), overrides: toolset?.overrides || {}, results: toolset?.results || null }, null, 2));
  const [error, setError] = useState(null);
  const put = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const at = (name) => ((error?.field || '').split(/[.[]/)[0] === name ? error.message : null);
  const submit = async (event) => {
    event.preventDefault();
    setError(null);
    let rest;
    try { rest = JSON.parse(more || '{}'); } catch { setError(Object.assign(new Error('This is no whole JSON.'), { field: 'overrides' })); return; }
    const rules = (each) => each.map(ruleOf).filter((rule) => Object.keys(rule).length);
    const value = { title: fields.title || null, description: fields.description, instructions: fields.instructions || null, names: fields.names, mode: fields.mode || null, pinned: fields.pinned.split(/[,\s]+/).filter(Boolean), ...(isPlain ? { include: rules(include), exclude: rules(exclude) } : {}), ...rest };
    try { onDone(await ask(toolset ? 'PATCH' : 'POST', toolset ? path(toolset.slug) : '/mcp/toolsets', toolset ? value : { slug: fields.slug, ...value })); } catch (refused) { setError(refused); }
  };
  return html`<${Dialog} title=${toolset ? `Edit ${toolset.slug}` : 'Make a toolset'} wide onClose=${onClose}><form onSubmit=${submit}>
    <div class="columns">${!toolset && html`<${Field} label="Slug" required error=${at('slug')} hint="In its address: small letters, digits, - and _.">${(id) => html`<input id=${id} class="mono" required value=${fields.slug} onInput=${put('slug')} autofocus />`}<//>`}
      <${Field} label="Title" error=${at('title')}>${(id) => html`<input id=${id} value=${fields.title} onInput=${put('title')} />`}<//>
      <${Field} label="What for" error=${at('description')}>${(id) => html`<input id=${id} value=${fields.description} onInput=${put('description')} />`}<//>
      <${Field} label="Names" error=${at('names')}>${(id) => html`<select id=${id} value=${fields.names} onChange=${put('names')}><option value="prefixed">prefixed: as at all servers' address</option><option value="bare">bare: without the servers' prefixes</option></select>`}<//>
      <${Field} label="How tools are listed" error=${at('mode')}>${(id) => html`<select id=${id} value=${fields.mode} onChange=${put('mode')}>${Object.entries(MODES).map(([mode, text]) => html`<option value=${mode}>${text}</option>`)}</select>`}<//>
      <${Field} label="Pinned tools" error=${at('pinned')} hint="Listed in any mode.">${(id) => html`<input id=${id} class="mono" value=${fields.pinned} onInput=${put('pinned')} />`}<//></div>
    <${Field} label="Told to models" error=${at('instructions')}>${(id) => html`<textarea id=${id} rows="3" value=${fields.instructions} onInput=${put('instructions')}></textarea>`}<//>
    ${isPlain ? html`<${Rules} title="Includes" hint="In a rule all must match. * and ? are wildcards; tools by the servers' own names." rules=${include} onChange=${setInclude} /><${Rules} title="But not" hint="What matches here is taken away again." rules=${exclude} onChange=${setExclude} />` : html`<p class="hint">Its rules say more than this form can: they are below.</p>`}
    ${(at('include') || at('exclude')) && html`<p class="error" role="alert">${at('include') || at('exclude')}</p>`}
    <details open=${!isPlain || Boolean(at('overrides') || at('results'))}><summary>Overrides of tools, and large results</summary><textarea class="mono" aria-label="overrides and results as JSON" rows="8" spellcheck=${false} value=${more} onInput=${(event) => setMore(event.target.value)}></textarea>${(at('overrides') || at('results')) && html`<p class="error" role="alert">${at('overrides') || at('results')}</p>`}</details>
    ${error && !['slug', 'title', 'description', 'names', 'mode', 'pinned', 'instructions', 'include', 'exclude', 'overrides', 'results'].some(at) && html`<${Problem} error=${error} />`}
    <div class="actions"><button type="button" onClick=${onClose}>Cancel</button><button class="primary">${toolset ? 'Save' : 'Make the toolset'}</button></div></form><//>`;
}
