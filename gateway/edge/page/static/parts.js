// Small pieces that all views are made of.

import { Component, html, useEffect, useRef, useState } from './vendored/preact.js';
import { hiddenPlaces } from './hidden.js';

export const go = (path) => { location.hash = `#/${path}`; };
export const link = (...parts) => `#/${parts.map(encodeURIComponent).join('/')}`;

/** A state by shape, word and colour. */
export function State({ of }) {
  const marks = { ready: '●', starting: '◐', unreachable: '▲', disabled: '○', ok: '●', error: '▲', tool_error: '▲', refused: '■', limited: '■' };
  return html`<span class="state state-${of}"><span aria-hidden="true">${marks[of] || '◆'}</span> ${of.replace(/_/g, ' ')}</span>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2><div>${children}</div></div>`;
}

export function Problem({ error }) {
  if (!error) return null;
  const asked = error.problem?.did_you_mean;
  return html`<div class="problem" role="alert"><strong>${error.problem?.title || 'It did not work'}</strong> ${error.message}${asked ? html` Did you mean ${asked.join(', ')}?` : ''}</div>`;
}

/** What can't be drawn becomes a sentence, and takes nothing else along; `of` says when to try again. */
export class Boundary extends Component {
  componentDidCatch(error) { this.setState({ error, of: this.props.of }); }
  componentDidUpdate() { if (this.state.error && this.state.of !== this.props.of) this.setState({ error: null }); }
  render({ of, children }, { error, of: failed }) {
    if (!error || of !== failed) return children;
    return html`<div class="problem" role="alert"><strong>This can't be shown.</strong> What the server sent is of an unexpected shape.</div>`;
  }
}

/** Lines that stand where something will be. */
export function Skeleton({ rows = 6 }) {
  return html`<div class="skeleton" aria-busy="true" aria-label="loading">${Array.from({ length: rows }, () => html`<div></div>`)}</div>`;
}

export function Copy({ text, label = 'Copy' }) {
  const [done, set] = useState(false);
  const copy = async () => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = document.createElement('textarea');
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
    set(true);
    setTimeout(() => set(false), 1500);
  };
  return html`<button class="small" onClick=${copy}>${done ? 'Copied' : label}</button>`;
}

export function Code({ text, label }) {
  return html`<div class="code"><pre tabindex="0" aria-label=${label || 'code'}>${text}</pre><${Copy} text=${text} /></div>`;
}

/** A modal dialog; Escape and the cross close it. */
export function Dialog({ title, onClose, children, wide }) {
  const ref = useRef(null);
  useEffect(() => {
    const dialog = ref.current;
    if (!dialog.open) dialog.showModal();
    return () => dialog.open && dialog.close();
  }, []);
  return html`<dialog ref=${ref} class=${wide ? 'wide' : ''} aria-label=${title} onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <header><h2>${title}</h2><button class="quiet" aria-label="Close" onClick=${onClose}>✕</button></header>
    <div class="body">${children}</div>
  </dialog>`;
}

export function Confirm({ text, action, onYes, danger }) {
  const [asking, ask] = useState(false);
  return html`<button class=${danger ? 'danger' : ''} onClick=${() => ask(true)}>${action}</button>
    ${asking && html`<${Dialog} title=${action} onClose=${() => ask(false)}><p>${text}</p>
      <div class="actions"><button onClick=${() => ask(false)}>Cancel</button>
      <button class=${danger ? 'danger primary' : 'primary'} onClick=${() => { ask(false); onYes(); }}>${action}</button></div><//>`}`;
}

let fields = 0;
/** A labelled input; `error` is shown at it. */
export function Field({ label, hint, error, children, required }) {
  const id = useRef(`f${++fields}`).current;
  return html`<div class="field ${error ? 'wrong' : ''}">
    <label for=${id}>${label}${required ? html`<span class="required" aria-hidden="true"> *</span>` : ''}</label>
    ${typeof children === 'function' ? children(id) : children}
    ${hint && html`<p class="hint">${hint}</p>`}
    ${error && html`<p class="error" role="alert">${error}</p>`}
  </div>`;
}

/** Somebody else's text, with what hides in it marked. */
export function Told({ text }) {
  const found = [...String(text)];
  const parts = [];
  let last = 0;
  for (const at of hiddenPlaces(found)) {
    parts.push(found.slice(last, at).join(''), html`<span class="tag warn" title="a character that is not seen">U+${found[at].codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}</span>`);
    last = at + 1;
  }
  return html`${parts}${found.slice(last).join('')}`;
}

/** A value as a tree; `room` is how many nodes it may draw by itself, which its parts share: what is larger opens when it is clicked. */
export function Tree({ value, name, room = 400 }) {
  const isObject = value !== null && typeof value === 'object';
  const [open, toggle] = useState(() => name === undefined || (isObject && Object.keys(value).length <= room));
  const label = name === undefined ? '' : html`<span class="key">${name}</span>: `;
  if (!isObject) return html`<div class="leaf">${label}<span class="value ${typeof value}">${typeof value === 'string' ? cut(JSON.stringify(value), 2000) : String(value)}</span></div>`;
  const entries = Object.entries(value);
  const what = Array.isArray(value) ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return html`<div class="leaf">${label}${Array.isArray(value) ? '[]' : '{}'}</div>`;
  return html`<div class="branch"><button class="quiet" aria-expanded=${open} onClick=${() => toggle(!open)}>${open ? '▾' : '▸'} ${label}${what}</button>
    ${open && html`<div class="inside">${entries.slice(0, 200).map(([key, each]) => html`<${Tree} key=${key} name=${key} value=${each} room=${room / Math.min(entries.length, 200) - 1} />`)}
    ${entries.length > 200 && html`<div class="leaf muted">… and ${entries.length - 200} more</div>`}</div>`}</div>`;
}

export const cut = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

/** Rows of one height, of which only those that are seen are drawn. */
export function Rows({ items, height = 32, draw, label, selected }) {
  const ref = useRef(null);
  const [top, setTop] = useState(0);
  const [room, setRoom] = useState(600);
  useEffect(() => {
    const box = ref.current;
    const measure = () => setRoom(box.clientHeight || 600);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(box);
    return () => observer.disconnect();
  }, []);
  useEffect(() => { // what was scrolled to may be gone by now
    const most = Math.max(0, items.length * height - room);
    if (top > most) { ref.current.scrollTop = most; setTop(most); }
  }, [items.length]);
  const first = Math.max(0, Math.floor(top / height) - 8);
  const last = Math.min(items.length, Math.ceil((top + room) / height) + 8);
  return html`<div class="rows" ref=${ref} tabindex="0" role="list" aria-label=${label} onScroll=${(event) => setTop(event.currentTarget.scrollTop)}>
    <div style=${{ height: `${items.length * height}px`, position: 'relative' }}>
      <div style=${{ position: 'absolute', top: `${first * height}px`, left: 0, right: 0 }}>
        ${items.slice(first, last).map((item, at) => draw(item, first + at, selected))}
      </div>
    </div>
  </div>`;
}

export const ago = (time) => {
  if (!time) return '';
  const seconds = Math.max(0, (Date.now() - new Date(time).getTime()) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
};
export const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });
export const bytes = (count) => (count === null || count === undefined ? '' : count < 1024 ? `${count} B` : count < 1 << 20 ? `${(count / 1024).toFixed(1)} KB` : `${(count / (1 << 20)).toFixed(1)} MB`);
export const ms = (value) => (value === null || value === undefined ? '' : value < 10 ? `${value.toFixed(1)} ms` : value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`);

const HINTS = [
  ['readOnlyHint', true, 'reads only'], ['destructiveHint', true, 'destructive'],
  ['idempotentHint', true, 'idempotent'], ['openWorldHint', true, 'open world'],
];
export function Hints({ of }) {
  const said = HINTS.filter(([name, value]) => of?.[name] === value);
  return html`${said.map(([name, , text]) => html`<span class="tag hint-${name}">${text}</span>`)}`;
}
