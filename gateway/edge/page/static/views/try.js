// Try it: a call by a form, with what comes while it runs, its result, the server's questions, and the call as code.

import { html, useEffect, useMemo, useRef, useState } from '../vendored/preact.js';
import { onForget, useFeed } from '../feed.js';
import { Form, Json, initial, missing } from '../form.js';
import { request } from '../mcp.js';
import { Boundary, Code, Dialog, Field, Problem, Tree, bytes, cut, ms } from '../parts.js';

const METHODS = { tools: 'tools/call', resources: 'resources/read', prompts: 'prompts/get' };
const REST = { tools: '/mcp/tools/call', resources: '/mcp/resources/read', prompts: '/mcp/prompts/get' };
const VERBS = { tools: 'Call', resources: 'Read', prompts: 'Get' };
const MAX_TEXT = 100_000;
const MAX_LOGS = 200;
const MAX_MESSAGE = 2_000;
const drafts = new Map(); // what was typed stays, also while another item is looked at
onForget(() => drafts.clear());
const ASKS = ['elicitation/create', 'sampling/createMessage'];

const schemaOf = (kind, item) => (kind === 'tools' ? item.inputSchema || { type: 'object' } : {
  type: 'object',
  properties: Object.fromEntries((kind === 'prompts' ? item.arguments || [] : variables(item)).map((each) => [each.name, { type: 'string', description: each.description }])),
  required: (kind === 'prompts' ? item.arguments || [] : variables(item)).filter((each) => each.required).map((each) => each.name),
});
const variables = (item) => [...(item.uriTemplate || '').matchAll(/\{[+#./;?&]?([^}]+)\}/g)].flatMap((found) => found[1].split(',')).map((name) => ({ name: name.replace(/[*:].*$/, ''), required: true }));
const expand = (template, values) => template.replace(/\{([+#./;?&]?)([^}]+)\}/g, (_, how, names) => names.split(',').map((name) => {
  const value = String(values?.[name.replace(/[*:].*$/, '')] ?? '');
  return how === '+' || how === '#' ? value : encodeURIComponent(value);
}).join(','));

export function Try({ kind, item }) {
  const feed = useFeed();
  const schema = useMemo(() => schemaOf(kind, item), [item]);
  const key = `${kind} ${item.key}`;
  const [value, setValue] = useState(drafts.get(key) ?? initial(schema) ?? {});
  const [asJson, setAsJson] = useState(false);
  const [run, setRun] = useState(null);
  const [questions, setQuestions] = useState([]); // of the server, one after the other
  const [wrong, setWrong] = useState({});
  const abort = useRef(null);
  useEffect(() => { drafts.set(key, value); }, [value]);
  useEffect(() => () => abort.current?.abort(), []);
  const open = useRef(new Set()).current;
  const question = (asked) => new Promise((answer, refuse) => {
    if (!ASKS.includes(asked.method)) throw new Error('This page does not answer that.');
    const one = { asked, by: item.key };
    const end = (how) => (said) => {
      open.delete(one);
      setQuestions([...open]);
      how(said);
    };
    Object.assign(one, { answer: end(answer), refuse: end(refuse) });
    open.add(one);
    setQuestions([...open]);
  });
  const uri = item.uriTemplate ? expand(item.uriTemplate, value) : item.uri;
  const params = kind === 'resources' ? { uri } : { name: item.key, arguments: value };
  const call = async (event) => {
    event.preventDefault();
    const empty = missing(schema, value);
    setWrong(Object.fromEntries(empty.map((name) => [name, 'It is required.'])));
    if (empty.length) return;
    const began = performance.now();
    const now = { progress: null, logs: [], result: null, error: null, running: true, took: 0 };
    const show = () => setRun({ ...now, took: performance.now() - began });
    abort.current = new AbortController();
    show();
    try {
      now.result = await request(METHODS[kind], params, {
        signal: abort.current.signal,
        on: {
          progress: (each) => { now.progress = each; show(); },
          log: (each) => { now.logs = [...now.logs, each].slice(-MAX_LOGS); show(); },
          question,
        },
      });
    } catch (error) {
      now.error = error.name === 'AbortError' ? Object.assign(new Error('You cancelled it; the server was told.'), { problem: { title: 'Cancelled' } }) : error;
    }
    now.running = false;
    for (const one of open) one.refuse(new Error('The call has ended.'));
    show();
  };
  const described = { readOnlyHint: item.annotations?.readOnlyHint, destructive: kind === 'tools' && item.annotations?.readOnlyHint !== true && item.annotations?.destructiveHint !== false };
  return html`<div class="try"><form class="arguments" onSubmit=${call} aria-label="Arguments"><div class="bar"><h3>${VERBS[kind]} it</h3><span class="fill"></span><button type="button" class="small" aria-pressed=${asJson} onClick=${() => setAsJson(!asJson)}>as JSON</button></div>
      ${asJson ? html`<${Field} label="arguments">${(id) => html`<${Json} id=${id} value=${value} onChange=${(next) => setValue(next ?? {})} />`}<//>` : html`<${Boundary} of=${schema}><${Form} schema=${schema} value=${value} onChange=${(next) => setValue(next ?? {})} errors=${wrong} /><//>`}
      ${kind === 'resources' && html`<p class="mono muted">${uri}</p>`}
      <div class="actions">${described.destructive && html`<span class="hint">It may change or destroy something.</span>`}${run?.running ? html`<button key="cancel" type="button" class="danger" onClick=${() => abort.current.abort()}>Cancel</button>` : html`<button key="call" class="primary">${VERBS[kind]}</button>`}</div></form>
    <${Boundary} of=${run}><${Result} run=${run} /><//>
    <${Snippets} kind=${kind} params=${params} url=${feed.hello?.url || ''} />
    ${questions.length > 0 && html`<${Boundary} of=${questions[0]}><${Question} key=${questions[0].asked.id} ...${questions[0]} /><//>`}</div>`;
}

function Result({ run }) {
  const size = useMemo(() => (run?.result ? new Blob([JSON.stringify(run.result)]).size : 0), [run?.result]);
  if (!run) return html`<div class="result" aria-live="polite"><h3>Result</h3><p class="muted">What comes back appears here, also while it runs.</p></div>`;
  return html`<div class="result" aria-live="polite" aria-busy=${run.running}><div class="bar"><h3>Result</h3><span class="fill"></span><span class="muted number">${size ? `${bytes(size)} · ` : ''}${run.running ? 'running' : ms(run.took)}</span></div>
    ${run.progress && html`<div class="progress"><progress max=${run.progress.total || undefined} value=${run.progress.total ? run.progress.progress : undefined} aria-label="progress"></progress> <span>${run.progress.total ? `${Math.round((100 * run.progress.progress) / run.progress.total)} %` : run.progress.progress} ${messageOf(run.progress.message ?? '')}</span></div>`}
    ${run.logs.length > 0 && html`<ul class="logs" aria-label="log">${run.logs.map((log) => html`<li><span class="tag level-${messageOf(log?.level)}">${messageOf(log?.level)}</span> ${log?.logger ? html`<span class="muted">${messageOf(log.logger)}</span> ` : ''}${messageOf(log?.data)}</li>`)}</ul>`}
    ${run.error && html`<${Problem} error=${run.error} />`}
    ${run.result && html`<${Shown} result=${run.result} size=${size} />`}</div>`;
}

const messageOf = (value) => cut(typeof value === 'string' ? value : JSON.stringify(value) ?? '', MAX_MESSAGE);

function Shown({ result, size }) {
  const download = () => {
    const address = URL.createObjectURL(new Blob([JSON.stringify(result, null, 2)], { type: 'application/json' }));
    const anchor = document.createElement('a');
    anchor.href = address;
    anchor.download = 'result.json';
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };
  const blocks = result.content || result.contents || result.messages;
  return html`${result.isError && html`<p class="problem" role="alert"><strong>The tool says that it failed.</strong></p>`}
    ${Array.isArray(blocks) ? blocks.slice(0, 50).map((block, at) => html`<${Block} key=${at} block=${block} />`) : html`<${Tree} value=${result} />`}
    ${blocks?.length > 50 && html`<p class="muted">… and ${blocks.length - 50} more, in the download.</p>`}
    ${result.structuredContent !== undefined && html`<h4>Structured content</h4><${Tree} value=${result.structuredContent} />`}
    <button class="small" onClick=${download}>Download (${bytes(size)})</button>`;
}

const IMAGE = /^image\/(png|jpeg|gif|webp|avif|svg\+xml|bmp)$/;
const AUDIO = /^audio\/[a-z0-9.+-]+$/;
function Block({ block }) {
  const inner = block?.role ? block.content : block;
  const role = block?.role && html`<span class="tag">${messageOf(block.role)}</span>`;
  if (inner === null || typeof inner !== 'object') return html`<div class="block">${role}<${Tree} value=${inner} /></div>`;
  const type = inner.type || (inner.text !== undefined ? 'text' : inner.blob !== undefined ? 'blob' : '');
  const resource = inner.type === 'resource' ? inner.resource : inner;
  const mime = String(typeof inner.mimeType === 'string' ? inner.mimeType : typeof resource?.mimeType === 'string' ? resource.mimeType : '');
  let shown;
  if (type === 'text' && typeof inner.text === 'string') shown = html`<${Text} text=${inner.text} />`;
  else if (type === 'image' && IMAGE.test(mime)) shown = html`<img alt="image of the result" src=${`data:${mime};base64,${inner.data}`} />`;
  else if (type === 'audio' && AUDIO.test(mime)) shown = html`<audio controls src=${`data:${mime};base64,${inner.data}`}></audio>`;
  else if (type === 'resource_link' && typeof inner.uri === 'string') shown = html`<p><a href=${`#/resources/${encodeURIComponent(inner.uri)}`} class="mono">${inner.uri}</a> ${messageOf(inner.title || inner.name || '')}</p>`;
  else if (typeof resource?.text === 'string') shown = html`<p class="mono muted">${resource.uri}</p><${Text} text=${resource.text} />`;
  else if (typeof resource?.blob === 'string' && IMAGE.test(mime)) shown = html`<p class="mono muted">${resource.uri}</p><img alt="image of the resource" src=${`data:${mime};base64,${resource.blob}`} />`;
  else shown = html`<${Tree} value=${inner} />`;
  return html`<div class="block">${role}${shown}</div>`;
}

function Text({ text }) {
  const shown = cut(text, MAX_TEXT);
  let tree = null;
  if (/^\s*[[{]/.test(shown) && text.length <= MAX_TEXT) { try { tree = JSON.parse(text); } catch { /* it is text */ } }
  const [plain, setPlain] = useState(false);
  return html`${tree !== null && html`<button class="quiet small" onClick=${() => setPlain(!plain)}>${plain ? 'as a tree' : 'as text'}</button>`}
    ${tree !== null && !plain ? html`<${Tree} value=${tree} />` : html`<pre class="text" tabindex="0" aria-label="text">${shown}</pre>`}
    ${text.length > MAX_TEXT && html`<p class="muted">The first ${MAX_TEXT.toLocaleString()} of ${text.length.toLocaleString()} characters; the download has all.</p>`}`;
}

/** Where an address leads, for people to look at twice. */
function hostOf(address) {
  try { return new URL(address).host; } catch { return 'an address that can\'t be read'; }
}

function Question({ asked, by, answer, refuse }) {
  const params = Object(asked.params);
  const isForm = asked.method === 'elicitation/create' && params.mode !== 'url';
  const schema = params.requestedSchema || { type: 'object', properties: {} };
  const [value, setValue] = useState(initial(schema) ?? {});
  const [text, setText] = useState('');
  const [wrong, setWrong] = useState({});
  const close = () => (asked.method === 'elicitation/create' ? answer({ action: 'cancel' }) : refuse(new Error('The user did not answer.')));
  if (isForm || params.mode === 'url') {
    const accept = () => {
      const empty = isForm ? missing(schema, value) : [];
      setWrong(Object.fromEntries(empty.map((name) => [name, 'It is required.'])));
      if (!empty.length) answer(isForm ? { action: 'accept', content: value } : { action: 'accept' });
    };
    return html`<${Dialog} title="${by} asks" onClose=${close}><p class="hint">Its server wants to know, not this gateway. Tell it no key of yours.</p><p class="description">${messageOf(params.message ?? '')}</p>
      ${isForm ? html`<${Form} schema=${schema} value=${value} onChange=${setValue} errors=${wrong} />` : html`<p>It wants you to open an address at <strong>${hostOf(params.url)}</strong>: <code>${messageOf(params.url)}</code></p><p class="hint">Open it only if you expect it. The gateway does not vouch for it.</p>`}
      <div class="actions"><button onClick=${() => answer({ action: 'decline' })}>Decline</button><button class="primary" onClick=${accept}>${isForm ? 'Send' : 'I opened it'}</button></div><//>`;
  }
  const send = () => answer({ role: 'assistant', content: { type: 'text', text }, model: 'a person', stopReason: 'endTurn' });
  return html`<${Dialog} title="${by} asks a model" wide onClose=${close}><p class="hint">No model is connected to this page: answer in its place, or refuse.</p>
      ${params.systemPrompt && html`<p class="muted">${messageOf(params.systemPrompt)}</p>`}
      ${[].concat(params.messages ?? []).slice(0, 50).map((message) => [].concat(message?.content ?? []).map((content) => html`<${Block} block=${{ role: message.role || 'message', content }} />`))}
      <${Field} label="Answer">${(id) => html`<textarea id=${id} rows="4" value=${text} onInput=${(event) => setText(event.target.value)}></textarea>`}<//>
      <div class="actions"><button onClick=${() => refuse(new Error('The user refused.'))}>Refuse</button><button class="primary" onClick=${send} disabled=${!text}>Send</button></div><//>`;
}

const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;
const LANGUAGES = {
  curl: (kind, params, url) => `curl -H "Authorization: Bearer $KEY" -H "Accept: application/json" \\\n  ${url}${REST[kind]} \\\n  -d ${quoted(JSON.stringify(params))}`,
  'JSON-RPC': (kind, params, url) => `curl -H "Authorization: Bearer $KEY" ${url}/rpc \\\n  -d ${quoted(JSON.stringify({ jsonrpc: '2.0', id: 1, method: METHODS[kind], params }, null, 1))}`,
  Python: (kind, params, url) => {
    const call = kind === 'tools' ? `call_tool(${JSON.stringify(params.name)}, ${python(params.arguments)})` : kind === 'prompts' ? `get_prompt(${JSON.stringify(params.name)}, ${python(params.arguments)})` : `read_resource(${JSON.stringify(params.uri)})`;
    return `# pip install mcp\nimport asyncio, os\nfrom mcp import ClientSession\nfrom mcp.client.streamable_http import streamablehttp_client\n\nasync def main():\n    headers = {"Authorization": f"Bearer {os.environ['KEY']}"}\n    async with streamablehttp_client("${url}/mcp", headers=headers) as (read, write, _):\n        async with ClientSession(read, write) as session:\n            await session.initialize()\n            print(await session.${call})\n\nasyncio.run(main())`;
  },
  TypeScript: (kind, params, url) => {
    const call = kind === 'tools' ? `callTool(${JSON.stringify(params)})` : kind === 'prompts' ? `getPrompt(${JSON.stringify(params)})` : `readResource(${JSON.stringify(params)})`;
    return `// npm install @modelcontextprotocol/sdk\nimport { Client } from "@modelcontextprotocol/sdk/client/index.js";\nimport { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";\n\nconst client = new Client({ name: "me", version: "1" });\nawait client.connect(new StreamableHTTPClientTransport(new URL("${url}/mcp"), {\n  requestInit: { headers: { Authorization: \`Bearer \${process.env.KEY}\` } },\n}));\nconsole.log(await client.${call});`;
  },
};
const python = (value) => JSON.stringify(value ?? {}, null, 0).replace(/\btrue\b|\bfalse\b|\bnull\b|"(?:[^"\\]|\\.)*"/g, (found) => ({ true: 'True', false: 'False', null: 'None' }[found] || found));

function Snippets({ kind, params, url }) {
  const [language, pick] = useState('curl');
  return html`<details class="snippets"><summary>This call as code</summary><div class="tabs" role="tablist">${Object.keys(LANGUAGES).map((name) => html`<button role="tab" aria-selected=${name === language} onClick=${() => pick(name)}>${name}</button>`)}</div><${Code} text=${LANGUAGES[language](kind, params, url)} label=${`the call in ${language}`} /></details>`;
}
