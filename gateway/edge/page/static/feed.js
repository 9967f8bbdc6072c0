// What the page knows: fed by one stream for all tabs (a SharedWorker holds it), and by lists that are asked for once.

import { useEffect, useState } from './vendored/preact.js';
import { ask, root } from './api.js';

const MAX_CALLS = 500;
const KINDS = { tools: '/mcp/tools', resources: '/mcp/resources', prompts: '/mcp/prompts', toolsets: '/mcp/toolsets' };

export const state = {
  signedIn: null, // null: not known yet
  connected: false,
  hello: null,
  servers: null,
  lists: {}, // kind: {items, templates, error}
  calls: [],
  revision: 0,
  stale: new Set(), // lists that changed while they were asked for
  slots: new Map(),
  now: 0,
  workers: null,
  sessions: null,
  notice: '', // for who signs in next
};
const listeners = new Set();
let planned = false;
let version = 0;

export function changed() {
  version += 1;
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    for (const call of [...listeners]) call();
  });
}

/** Draw again whenever the state changes; returns it. */
export function useFeed() {
  const [, draw] = useState(0);
  const drawn = version;
  useEffect(() => {
    const call = () => draw((count) => count + 1);
    listeners.add(call);
    if (version !== drawn) call(); // it changed before anybody listened
    return () => listeners.delete(call);
  }, []);
  return state;
}

/** The list of a kind; asked for when it is first needed, and again when the gateway says that it changed. */
export function useList(kind) {
  useFeed();
  const list = state.lists[kind];
  useEffect(() => { if (!list) load(kind); }, [kind, list]);
  return list || { items: null };
}

let loading = new Set();
let turn = 0; // of who is signed in: what was asked for before is of somebody else
async function load(kind) {
  if (loading.has(kind)) { // what comes may be older than what changed just now
    state.stale.add(kind);
    return;
  }
  loading.add(kind);
  const mine = turn;
  try {
    let found = await ask('GET', KINDS[kind]);
    for (let tries = 0; found.revision < state.revision && tries < 8; tries += 1) { // of a worker that has not heard yet
      await new Promise((go) => setTimeout(go, 100 * (tries + 1)));
      if (turn !== mine) return;
      found = await ask('GET', KINDS[kind]);
    }
    const items = found[kind];
    const templates = kind === 'resources' ? found.resourceTemplates : [];
    for (const item of [...items, ...templates]) {
      item.key = item.slug || (item.name && kind !== 'resources' ? item.name : item.uri || item.uriTemplate);
      item.text = `${item.key} ${item.name || ''} ${item.title || ''} ${item.description || ''}`.toLowerCase();
    }
    if (turn === mine) state.lists[kind] = { items: [...items, ...templates] };
  } catch (error) {
    if (turn === mine && !state.lists[kind]) state.lists[kind] = { items: null, error: error.message };
  } finally {
    if (turn === mine) {
      loading.delete(kind);
      changed();
      if (state.stale.delete(kind)) load(kind);
    }
  }
}

const takes = {
  open: () => { state.connected = true; },
  away: () => { state.connected = false; },
  out: () => { if (state.signedIn) leave(); },
  hello: (value) => { // also after the stream was away: what changed meanwhile was not told
    if (state.hello && state.hello.me.id !== value.me.id) forget(); // somebody else signed in, in another tab
    const isBack = state.hello !== null;
    if (!value.is_operator) Object.assign(state, { slots: new Map(), workers: null, sessions: null });
    Object.assign(state, { hello: value, signedIn: true, connected: true, revision: value.revision });
    if (isBack) for (const kind of Object.keys(state.lists)) load(kind);
  },
  servers: (value) => { state.servers = value.servers; },
  changed: (value) => { state.revision = value.revision; for (const kind of value.kinds) if (state.lists[kind]) load(kind); },
  calls: (value) => {
    const known = new Set(state.calls.map(keyOf));
    const fresh = value.rows.filter((row) => !known.has(keyOf(row)));
    state.calls = [...fresh, ...state.calls].sort((a, b) => (a.at < b.at ? 1 : -1)).slice(0, MAX_CALLS);
  },
  figures: (value) => {
    state.now = value.now;
    for (const slot of value.slots) state.slots.set(slot.number, slot.servers);
    for (const number of [...state.slots.keys()]) if (number < value.now - 360) state.slots.delete(number);
  },
  workers: (value) => { state.workers = value.workers; state.sessions = value.sessions; },
};

const keyOf = (row) => `${row.at} ${row.request_id} ${row.tool}`;

export function take(name, value) {
  if (takes[name]) {
    takes[name](value);
    changed();
  }
}

let port = null;
let alone = null;

/** Begin to listen; `isNew` if somebody just signed in. */
export function open(isNew = false) {
  if (port || alone) return;
  const address = `${root}/page/events`;
  if (window.SharedWorker) {
    const worker = new SharedWorker(`${root}/page/worker.js`, { name: `gateway ${root}` });
    port = worker.port;
    port.onmessage = (message) => take(message.data.name, message.data.value);
    port.postMessage({ say: 'open', address, isNew });
    return;
  }
  alone = new EventSource(address);
  alone.onopen = () => take('open');
  alone.onerror = () => {
    take('away');
    if (alone && alone.readyState === EventSource.CLOSED) {
      alone = null;
      setTimeout(look, 2000);
    }
  };
  for (const name of ['hello', 'servers', 'changed', 'calls', 'figures', 'workers']) {
    alone.addEventListener(name, (event) => take(name, JSON.parse(event.data)));
  }
}

/** The stream was refused: is the session over, or is the gateway away for a moment? */
async function look() {
  if (alone || !state.signedIn) return;
  try {
    if (!(await ask('GET', '/page/session')).signed_in) { leave(); return; }
  } catch { /* it is away */ }
  open();
}

function close(say = 'close') {
  if (port) port.postMessage({ say });
  if (alone) alone.close();
  port = alone = null;
}
addEventListener('pagehide', () => close());
addEventListener('pageshow', (event) => { if (event.persisted && state.signedIn) open(); });

const forgets = [];
/** Have something called when what belongs to the user is to be forgotten. */
export const onForget = (call) => forgets.push(call);

/** Forget what the user saw, typed and opened. */
function forget() {
  turn += 1;
  loading = new Set();
  Object.assign(state, { hello: null, servers: null, lists: {}, calls: [], revision: 0, stale: new Set(), slots: new Map(), now: 0, workers: null, sessions: null });
  for (const call of forgets) call();
}

/** The session is over; `isOurs` if it was ended here, and other tabs must hear of it. */
export function leave(isOurs = false) {
  close(isOurs ? 'end' : 'close');
  forget();
  Object.assign(state, { signedIn: false, connected: false });
  changed();
}
