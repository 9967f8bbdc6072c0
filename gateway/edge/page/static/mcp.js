// A small MCP client over the gateway's own /mcp: a session, calls with progress, logs and questions, cancelling.

import { Refused, eventsOf, send } from './api.js';
import { onForget } from './feed.js';

const VERSION = '2025-11-25';
const BOTH = { accept: 'application/json, text/event-stream' };
let session = null;
let number = 0;

async function post(message, options = {}) {
  const headers = { ...BOTH, ...(session ? { 'mcp-session-id': session, 'mcp-protocol-version': VERSION } : {}) };
  return send('POST', '/mcp', message, { headers, signal: options.signal });
}

async function open() {
  session = null;
  const params = {
    protocolVersion: VERSION,
    capabilities: { elicitation: { form: {}, url: {} }, sampling: {} },
    clientInfo: { name: 'gateway-page', version: '1' },
  };
  const answer = await post({ jsonrpc: '2.0', id: ++number, method: 'initialize', params });
  const value = await answer.json();
  if (value.error) throw new Refused(answer.status, value.error);
  session = answer.headers.get('mcp-session-id');
  await post({ jsonrpc: '2.0', method: 'notifications/initialized' });
}

onForget(() => { session = null; });

addEventListener('pagehide', () => { // the tab is closed, or left
  if (!session) return;
  send('DELETE', '/mcp', undefined, { headers: { 'mcp-session-id': session, 'mcp-protocol-version': VERSION }, keepalive: true }).catch(() => {});
  session = null;
});

/**
 * One request of MCP: returns its result. Throws Refused with the protocol's error.
 * `on` takes `{progress, log, question}`; a question returns the result that is sent back, or throws to refuse it.
 */
export async function request(method, params, { signal, on = {} } = {}) {
  if (!session) await open();
  const id = ++number;
  const message = { jsonrpc: '2.0', id, method, params: { ...params, _meta: { progressToken: id } } };
  const cancel = () => post({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: id, reason: 'cancelled in the page' } }).catch(() => {});
  signal?.addEventListener('abort', cancel, { once: true }); // also while nothing has come yet
  try {
    let answer = await post(message, { signal });
    if (answer.status === 404) { // the session is over
      await open();
      answer = await post(message, { signal });
    }
    if (!(answer.headers.get('content-type') || '').startsWith('text/event-stream')) return resultOf(answer, await answer.json());
    for await (const event of eventsOf(answer)) {
      const value = JSON.parse(event.data);
      if (value.id === id && !value.method) return resultOf(answer, value);
      if (value.method === 'notifications/progress') on.progress?.(value.params);
      else if (value.method === 'notifications/message') on.log?.(value.params);
      else if (value.method && value.id !== undefined) reply(value, on).catch(() => {}); // the call itself tells who is away
    }
    throw new Refused(502, { detail: 'The stream ended before the answer came.' });
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}

async function reply(asked, on) {
  let message;
  try {
    if (!on.question) throw new Error('Nobody is here to answer.');
    message = { jsonrpc: '2.0', id: asked.id, result: await on.question(asked) };
  } catch (error) {
    message = { jsonrpc: '2.0', id: asked.id, error: { code: -1, message: error.message } };
  }
  await post(message);
}

function resultOf(answer, value) {
  if (value.error) throw new Refused(answer.status, value.error);
  if (!answer.ok) throw new Refused(answer.status, value);
  return value.result;
}
