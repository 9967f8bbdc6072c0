// The page: signing in, the frame around all views, and which view an address (#/…) shows.

import { html, render, useEffect, useRef, useState } from './vendored/preact.js';
import { ask, onSignedOut, send } from './api.js';
import { leave, open, state, changed, useFeed, useList } from './feed.js';
import { Boundary, Problem, go, link } from './parts.js';
import { Servers } from './views/servers.js';
import { Items } from './views/items.js';
import { Toolsets } from './views/toolsets.js';
import { Calls } from './views/calls.js';
import { Keys } from './views/keys.js';
import { Audit } from './views/audit.js';
import { Replicas } from './views/replicas.js';
import { Connect } from './views/connect.js';

const VIEWS = [
  ['servers', 'Servers', Servers],
  ['tools', 'Tools', Items],
  ['resources', 'Resources', Items],
  ['prompts', 'Prompts', Items],
  ['toolsets', 'Toolsets', Toolsets],
  ['calls', 'Calls', Calls],
  ['keys', 'Keys', Keys, 'is_admin'],
  ['audit', 'Audit', Audit],
  ['replicas', 'Replicas', Replicas, 'is_operator'],
  ['connect', 'Connect', Connect],
];

const place = () => location.hash.replace(/^#\/?/, '').split('?')[0].split('/').map(decode).filter(Boolean);
function decode(text) { try { return decodeURIComponent(text); } catch { return text; } }

function SignIn() {
  const [key, setKey] = useState('');
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await ask('POST', '/page/session', { key });
      setKey('');
      state.notice = '';
      if (!(await ask('GET', '/page/session')).signed_in) throw new Error('The browser did not keep the session: are cookies switched off here?');
      state.signedIn = true;
      changed();
      open(true);
    } catch (refused) { setError(refused); } finally { setBusy(false); }
  };
  return html`<main class="sign-in"><form onSubmit=${submit}>
    <h1>MCP gateway</h1>
    <p>The tools, resources and prompts of several MCP servers at one address. Sign in with the key that you were given, or with the master key.</p>
    ${state.notice && html`<p class="problem" role="alert">${state.notice}</p>`}
    ${!isSecureContext && html`<p class="problem" role="alert">This page was opened by plain HTTP, at an address other than localhost: a browser keeps no session there, and a key would be sent in clear. Open it by HTTPS.</p>`}
    <label for="key">Key</label>
    <input id="key" type="password" autocomplete="current-password" required autofocus value=${key} onInput=${(event) => setKey(event.target.value)} />
    <${Problem} error=${error} />
    <button class="primary" disabled=${busy || !key}>${busy ? 'Signing in' : 'Sign in'}</button>
    <p class="hint">The key is sent once. A session of this browser stands for it, for 12 hours.</p>
  </form></main>`;
}

const THEMES = ['system', 'light', 'dark'];
function Theme() {
  const [theme, set] = useState(localStorage.getItem('gateway-theme') || 'system');
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem('gateway-theme', theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<button class="quiet theme" title="Theme: ${theme}" aria-label="Theme: ${theme}. Switch to ${next}" onClick=${() => set(next)}>${{ system: '◑', light: '☼', dark: '☾' }[theme]}</button>`;
}

/** Servers and tools by name, from anywhere (Ctrl-K). */
function Search() {
  const [words, setWords] = useState('');
  const [at, setAt] = useState(0);
  const [shown, show] = useState(false);
  const input = useRef(null);
  const feed = useFeed();
  const tools = useList('tools');
  useEffect(() => {
    const key = (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'k') { event.preventDefault(); input.current?.focus(); }
    };
    addEventListener('keydown', key);
    return () => removeEventListener('keydown', key);
  }, []);
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  if (wanted.length) {
    for (const server of feed.servers || []) if (wanted.every((word) => server.name.toLowerCase().includes(word))) found.push(['server', server.name, link('servers', server.name)]);
    for (const tool of tools.items || []) {
      if (found.length >= 12) break;
      if (wanted.every((word) => tool.text.includes(word))) found.push(['tool', tool.key, link('tools', tool.key)]);
    }
  }
  const choose = (address) => { location.hash = address; setWords(''); show(false); input.current.blur(); };
  const key = (event) => {
    if (event.key === 'ArrowDown') { event.preventDefault(); setAt(Math.min(at + 1, found.length - 1)); }
    if (event.key === 'ArrowUp') { event.preventDefault(); setAt(Math.max(at - 1, 0)); }
    if (event.key === 'Enter' && found[at]) choose(found[at][2]);
    if (event.key === 'Escape') { setWords(''); input.current.blur(); }
  };
  const isOpen = shown && wanted.length > 0;
  return html`<div class="search"><input ref=${input} type="search" placeholder="Search tools and servers   Ctrl-K" aria-label="Search tools and servers" role="combobox" aria-expanded=${isOpen} aria-controls="found"
      value=${words} onInput=${(event) => { setWords(event.target.value); setAt(0); }} onKeyDown=${key} onFocus=${() => show(true)} onBlur=${() => setTimeout(() => show(false), 150)} />
    ${isOpen && html`<ul id="found" role="listbox" aria-label="Found">${found.length ? found.map(([kind, name, address], number) => html`<li role="option" aria-selected=${number === at} onMouseDown=${() => choose(address)}><span class="tag">${kind}</span> <span class="mono">${name}</span></li>`) : html`<li class="muted" role="option" aria-selected="false">nothing of that name</li>`}</ul>`}</div>`;
}

function Frame() {
  const feed = useFeed();
  const [where, setWhere] = useState(place());
  useEffect(() => {
    const moved = () => setWhere(place());
    addEventListener('hashchange', moved);
    moved(); // it may have moved before anybody listened
    return () => removeEventListener('hashchange', moved);
  }, []);
  const me = feed.hello?.me;
  const views = VIEWS.filter(([, , , needs]) => !needs || feed.hello?.[needs]);
  const [name, , View] = views.find(([each]) => each === where[0]) || views[0];
  useEffect(() => { document.title = `${views.find(([each]) => each === name)[1]} · MCP gateway`; }, [name]);
  const signOut = async () => {
    let said = '';
    try {
      const answer = await send('DELETE', '/page/session');
      if (answer.status === 202) said = (await answer.json()).detail;
      else if (!answer.ok) said = 'The gateway did not take it: close this browser.';
    } catch (error) { said = `${error.message} This browser may still be signed in.`; }
    leave(true);
    state.notice = said;
    changed();
  };
  const servers = feed.servers;
  const tools = servers ? servers.filter((server) => server.enabled).reduce((sum, server) => sum + server.counts.tools, 0) : null;
  const replicas = feed.workers ? new Set(feed.workers.map((worker) => worker.replica)).size : null;
  const count = (number, what) => `${number} ${what}${number === 1 ? '' : 's'}`;
  return html`<div class="frame">
    <header class="top">
      <a class="brand" href="#/servers">gateway</a>
      <span class="connection ${feed.connected ? 'on' : 'off'}" role="status">${feed.connected
    ? html`<span aria-hidden="true">●</span> ${[replicas && count(replicas, 'replica'), servers && count(servers.length, 'server'), tools !== null && count(tools, 'tool')].filter(Boolean).join(', ') || 'connected'}`
    : html`<span aria-hidden="true">▲</span> not connected: trying again`}</span>
      <${Search} />
      <${Theme} />
      <span class="who" title=${me ? `role: ${me.role}` : ''}>${me?.name}</span>
      <button class="small" onClick=${signOut}>Sign out</button>
    </header>
    <nav aria-label="Views">${views.map(([each, title]) => html`<a href=${`#/${each}`} aria-current=${each === name ? 'page' : null}>${title}</a>`)}</nav>
    <main key=${name}><${Boundary} of=${where.join('/')}><${View} kind=${name} where=${where[0] === name ? where.slice(1) : []} /><//></main>
  </div>`;
}

function Page() {
  const feed = useFeed();
  if (feed.signedIn === null) return html`<p class="waiting" role="status">…</p>`;
  return feed.signedIn ? html`<${Frame} />` : html`<${SignIn} />`;
}

async function begin() {
  document.documentElement.dataset.theme = localStorage.getItem('gateway-theme') || 'system';
  onSignedOut(() => { if (state.signedIn) leave(); });
  render(html`<${Page} />`, document.getElementById('page'));
  try {
    state.signedIn = (await ask('GET', '/page/session')).signed_in;
    if (state.signedIn) open();
  } catch { state.signedIn = false; }
  changed();
  if (!location.hash) go('servers');
}

begin();
