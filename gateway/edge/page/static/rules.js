// Rules of grants and toolsets, as a form and as JSON.

import { html } from './vendored/preact.js';

export const words = (text) => text.split(/[,\s]+/).filter(Boolean);
export const RULE = { servers: '', tools: '', tags: '', readOnly: false };
export const ruleOf = (rule) => Object.fromEntries(Object.entries({ servers: words(rule.servers), tools: words(rule.tools), tags: words(rule.tags) }).filter(([, each]) => each.length).concat(rule.readOnly ? [['annotations', { readOnlyHint: true }]] : []));

/** A rule as the form has it; null for one that says what the form can't. */
export function formOf(rule) {
  const { servers, tools, tags, annotations, ...others } = rule;
  const plain = !Object.keys(others).length && (!annotations || (Object.keys(annotations).length === 1 && annotations.readOnlyHint === true));
  return plain ? { servers: (servers || []).join(', '), tools: (tools || []).join(', '), tags: (tags || []).join(', '), readOnly: Boolean(annotations) } : null;
}

export function Rules({ title, hint, rules, onChange }) {
  const put = (at, name, value) => onChange(rules.map((rule, number) => (number === at ? { ...rule, [name]: value } : rule)));
  return html`<fieldset class="rules"><legend>${title}</legend><p class="hint">${hint}</p>${rules.map((rule, at) => html`<div class="rule" key=${at}>
    <label>servers <input class="mono" placeholder="docs, team-*" value=${rule.servers} onInput=${(event) => put(at, 'servers', event.target.value)} /></label>
    <label>tools <input class="mono" placeholder="all" value=${rule.tools} onInput=${(event) => put(at, 'tools', event.target.value)} /></label>
    <label>tags <input class="mono" placeholder="any" value=${rule.tags} onInput=${(event) => put(at, 'tags', event.target.value)} /></label>
    <label class="check"><input type="checkbox" checked=${rule.readOnly} onChange=${(event) => put(at, 'readOnly', event.target.checked)} /> reads only</label>
    <button type="button" class="quiet" aria-label="Remove this rule" onClick=${() => onChange(rules.filter((_, number) => number !== at))}>✕</button></div>`)}
    <button type="button" class="small" onClick=${() => onChange([...rules, RULE])}>+ rule</button></fieldset>`;
}
