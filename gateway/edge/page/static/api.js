// The gateway's addresses as the page asks them: with the session's cookie, and the header that no other page can send.

export const root = document.querySelector('meta[name="gateway-root"]').content;
const OWN = { 'x-gateway-page': '1' };

/** What the gateway refused: `message` for people, `problem` its document (RFC 9457). */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.message || `The gateway answered ${status}.`);
    this.status = status;
    this.problem = problem;
    this.field = problem.field;
  }
}

/** Something happened on the way: there was no answer. */
export class Away extends Error {}

let signedOut = () => {};
export const onSignedOut = (call) => { signedOut = call; };

export async function send(method, path, body, options = {}) {
  let answer;
  try {
    answer = await fetch(root + path, {
      method,
      headers: { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...OWN, ...options.headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: options.signal,
      keepalive: options.keepalive,
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Away('The gateway does not answer.');
  }
  if (answer.status === 401 && path !== '/page/session') signedOut();
  return answer;
}

/** One request and its JSON. Throws Refused or Away. */
export async function ask(method, path, body, options) {
  const answer = await send(method, path, body, options);
  if (answer.status === 204) return null;
  let value = null;
  try { value = await answer.json(); } catch { /* no JSON: the status says it */ }
  if (!answer.ok) throw new Refused(answer.status, value || {});
  return value;
}

export const serverPath = (name) => `/mcp/servers/${encodeURIComponent(name)}`;

/** The events of a response, as they come: `{name, data}`. */
export async function* eventsOf(answer) {
  const reader = answer.body.getReader(); // without a pipe, which would keep an abort to itself
  const decoder = new TextDecoder();
  let rest = '';
  let name = 'message';
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
        if (line === '') {
          if (data.some(Boolean)) yield { name, data: data.join('\n') }; // an empty one only carries an id
          name = 'message';
          data = [];
        } else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
        else if (line.startsWith('event:')) name = line.slice(6).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
