// A form made from a JSON Schema. What it can't draw becomes a JSON editor, with the reason.

import { html, useState } from './vendored/preact.js';
import { Field } from './parts.js';

const MAX_DEPTH = 6;
const TYPES = new Map([['date', 'date'], ['date-time', 'datetime-local'], ['email', 'email'], ['uri', 'url'], ['time', 'time']]);
const KINDS = {
  list: [Array.isArray, ['oneOf', 'anyOf', 'enum', 'enumNames', 'examples', 'required']],
  object: [(value) => value !== null && typeof value === 'object' && !Array.isArray(value), ['properties']],
  text: [(value) => typeof value === 'string', ['title', 'description', 'format']],
  number: [(value) => typeof value === 'number', ['minimum', 'maximum', 'maxLength']],
};

/** A member by a name that a server chose: `constructor` and its like are no members. */
const own = (value, name) => (value !== null && typeof value === 'object' && Object.hasOwn(value, name) ? value[name] : undefined);

/** A schema without those keywords that are of another kind than JSON Schema has them. */
function sound(schema) {
  if (schema === null || typeof schema !== 'object' || Array.isArray(schema)) return schema;
  const found = { ...schema };
  for (const [is, names] of Object.values(KINDS)) for (const name of names) if (Object.hasOwn(found, name) && !is(found[name])) delete found[name];
  if (found.required) found.required = found.required.filter((name) => typeof name === 'string');
  return found;
}

/** The schema that a `$ref` of this document leads to, with what stands beside it. */
function resolved(schema, whole, seen = 0) {
  if (!schema || typeof schema !== 'object' || typeof schema.$ref !== 'string') return sound(schema);
  if (seen > 8 || !schema.$ref.startsWith('#')) return null;
  let found = whole;
  try {
    for (const step of schema.$ref.slice(1).split('/').slice(1)) found = own(found, decodeURIComponent(step).replace(/~1/g, '/').replace(/~0/g, '~'));
  } catch { return null; } // no URI fragment
  const { $ref, ...beside } = schema;
  const target = resolved(found, whole, seen + 1);
  return target && typeof target === 'object' ? sound({ ...target, ...beside }) : null;
}

function typeOf(schema) {
  const types = (Array.isArray(schema.type) ? schema.type : schema.type ? [schema.type] : []).filter((type) => typeof type === 'string' && type !== 'null');
  if (types.length === 1) return types[0];
  if (!types.length && schema.properties) return 'object';
  if (!types.length && schema.enum?.every((each) => typeof each === 'string')) return 'string';
  return null;
}

/** Why a schema can't be drawn; null if it can. */
function reason(schema, depth) {
  if (schema === true || schema === undefined) return 'the schema allows anything';
  if (schema === null) return 'its reference leads nowhere, or in a circle';
  if (typeof schema !== 'object') return 'the schema is no object';
  if (depth > MAX_DEPTH) return 'it is nested too deeply, or leads back to itself';
  if (schema.allOf || schema.not || schema.if || schema.patternProperties) return 'it has conditions that a form can\'t show';
  if (schema.oneOf || schema.anyOf || schema.enum || schema.const !== undefined) return null;
  const type = typeOf(schema);
  if (!type) return 'it may be of several types';
  if (type === 'object' && !schema.properties) return 'it is an object of any members';
  if (type === 'array' && (Array.isArray(schema.items) || schema.prefixItems || schema.items === undefined)) return 'it is a list of anything';
  return null;
}

/** The value that a schema begins with. */
export function initial(schema, whole = schema, depth = 0) {
  const here = resolved(schema, whole);
  if (!here || typeof here !== 'object' || depth > MAX_DEPTH) return undefined;
  if (here.default !== undefined) return structuredClone(here.default);
  if (here.const !== undefined) return here.const;
  if (typeOf(here) === 'object' && here.properties) {
    const found = Object.fromEntries(Object.entries(here.properties).map(([name, each]) => [name, initial(each, whole, depth + 1)]).filter(([, value]) => value !== undefined));
    return Object.keys(found).length || depth === 0 ? found : undefined;
  }
  return undefined;
}

export function Json({ value, onChange, why, id }) {
  const [text, setText] = useState(value === undefined ? '' : JSON.stringify(value, null, 2));
  const [wrong, setWrong] = useState('');
  const type = (event) => {
    setText(event.target.value);
    if (!event.target.value.trim()) { setWrong(''); onChange(undefined); return; }
    try { onChange(JSON.parse(event.target.value)); setWrong(''); } catch (error) { setWrong(error.message); }
  };
  return html`<textarea id=${id} class="mono" rows="4" spellcheck=${false} value=${text} onInput=${type}></textarea>
    ${why && html`<p class="hint">As JSON: ${why}.</p>`}${wrong && html`<p class="error" role="alert">${wrong}</p>`}`;
}

const clean = (value) => Object.fromEntries(Object.entries(value || {}).filter(([, each]) => each !== undefined));
/** A value for an input, or a choice's label: only texts and numbers are as they are. */
const plain = (value) => (typeof value === 'string' || typeof value === 'number' ? value : '');
const labelOf = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

function Input({ schema, whole, value, onChange, id, depth, required, label }) {
  const why = reason(schema, depth);
  if (why) return html`<${Json} id=${id} value=${value} onChange=${onChange} why=${why} />`;
  if (schema.const !== undefined) return html`<code id=${id}>${JSON.stringify(schema.const)}</code>`;
  if (schema.enum) {
    const pick = (event) => onChange(event.target.value === '' ? undefined : schema.enum[Number(event.target.value)]);
    const at = schema.enum.findIndex((each) => JSON.stringify(each) === JSON.stringify(value));
    return html`<select id=${id} value=${at < 0 ? '' : at} onChange=${pick}><option value="">${required ? 'choose…' : '—'}</option>
      ${schema.enum.map((each, number) => html`<option value=${number}>${typeof schema.enumNames?.[number] === 'string' ? schema.enumNames[number] : labelOf(each)}</option>`)}</select>`;
  }
  const choices = schema.oneOf || schema.anyOf;
  if (choices) return html`<${Choice} ...${{ choices, whole, value, onChange, id, depth, required }} />`;
  const type = typeOf(schema);
  if (type === 'boolean') {
    if (required) return html`<input id=${id} type="checkbox" checked=${value === true} onChange=${(event) => onChange(event.target.checked)} />`;
    const pick = (event) => onChange({ true: true, false: false }[event.target.value]);
    return html`<select id=${id} value=${value === undefined ? '' : String(value)} onChange=${pick}><option value="">—</option><option>true</option><option>false</option></select>`;
  }
  if (type === 'number' || type === 'integer') {
    const typed = (event) => onChange(event.target.value === '' ? undefined : Number(event.target.value));
    return html`<input id=${id} type="number" step=${type === 'integer' ? 1 : 'any'} min=${schema.minimum} max=${schema.maximum} value=${plain(value)} onInput=${typed} />`;
  }
  if (type === 'array') return html`<${Items} ...${{ schema, whole, value, onChange, id, depth, label }} />`;
  if (type === 'object') return html`<fieldset id=${id}><${Members} ...${{ schema, whole, value, onChange, depth }} /></fieldset>`;
  const typed = (event) => onChange(event.target.value === '' && !required ? undefined : event.target.value);
  if (TYPES.has(schema.format)) return html`<input id=${id} type=${TYPES.get(schema.format)} value=${plain(value)} onInput=${typed} />`;
  return html`<textarea id=${id} class="line" rows="1" value=${plain(value)} placeholder=${plain(schema.examples?.[0])} maxlength=${schema.maxLength} onInput=${typed}></textarea>`;
}

function Choice({ choices, whole, value, onChange, id, depth, required }) {
  const each = choices.map((choice) => resolved(choice, whole)).filter((choice) => choice && typeof choice === 'object' && choice.type !== 'null');
  const [at, pick] = useState(0);
  if (each.length && each.every((choice) => choice.const !== undefined)) { // titled values
    const chosen = (event) => onChange(event.target.value === '' ? undefined : each[Number(event.target.value)].const);
    return html`<select id=${id} value=${each.findIndex((choice) => choice.const === value)} onChange=${chosen}><option value="">${required ? 'choose…' : '—'}</option>
      ${each.map((choice, number) => html`<option value=${number}>${choice.title || labelOf(choice.const)}</option>`)}</select>`;
  }
  if (each.length === 1) return html`<${Input} schema=${each[0]} ...${{ whole, value, onChange, id, required }} depth=${depth + 1} />`;
  if (!each.length) return html`<${Json} id=${id} value=${value} onChange=${onChange} why="none of its forms can be shown" />`;
  return html`<select aria-label="which form" value=${at} onChange=${(event) => { pick(Number(event.target.value)); onChange(undefined); }}>
      ${each.map((choice, number) => html`<option value=${number}>${choice.title || typeOf(choice) || `form ${number + 1}`}</option>`)}</select>
    <${Input} key=${at} schema=${each[at]} ...${{ whole, value, onChange, id, required }} depth=${depth + 1} />`;
}

function Items({ schema, whole, value, onChange, id, depth, label }) {
  const items = Array.isArray(value) ? value : [];
  const inner = resolved(schema.items, whole);
  const put = (at, each) => onChange(items.map((old, number) => (number === at ? each : old)));
  const drop = (at) => onChange(items.length > 1 ? items.filter((_, number) => number !== at) : undefined);
  return html`<div class="items" id=${id} role="group" aria-label=${label}>
    ${items.map((each, at) => html`<div class="item" key=${at}><${Input} schema=${inner} whole=${whole} value=${each} required=${true} depth=${depth + 1} id=${`${id}-${at}`} onChange=${(next) => put(at, next)} />
      <button type="button" class="quiet" aria-label="Remove entry ${at + 1}" onClick=${() => drop(at)}>✕</button></div>`)}
    <button type="button" class="small" onClick=${() => onChange([...items, initial(inner, whole, depth + 1) ?? (typeOf(Object(inner)) === 'string' ? '' : null)])}>+ entry</button>
  </div>`;
}

function Members({ schema, whole, value, onChange, depth, errors }) {
  const required = new Set(schema.required || []);
  const put = (name, each) => onChange(clean({ ...(value || {}), [name]: each }));
  const names = Object.keys(schema.properties || {}).sort((a, b) => required.has(b) - required.has(a));
  return html`${names.map((name) => {
    const here = resolved(schema.properties[name], whole);
    const hint = typeof here?.description === 'string' ? here.description : '';
    return html`<${Field} key=${name} label=${here?.title && here.title !== name ? `${here.title} (${name})` : name} hint=${hint} required=${required.has(name)} error=${own(errors, name)}>
      ${(id) => html`<${Input} schema=${here} whole=${whole} value=${own(value, name)} depth=${depth + 1} id=${id} label=${name} required=${required.has(name)} onChange=${(each) => put(name, each)} />`}
    <//>`;
  })}`;
}

/** The form of an object's schema. */
export function Form({ schema, value, onChange, errors }) {
  const here = resolved(schema, schema);
  const why = reason(here, 0);
  if (why) return html`<${Field} label="arguments">${(id) => html`<${Json} id=${id} value=${value} onChange=${onChange} why=${why} />`}<//>`;
  if (!Object.keys(here.properties || {}).length) return html`<p class="muted">It takes no arguments.</p>`;
  return html`<${Members} schema=${here} whole=${schema} value=${value} onChange=${onChange} depth=${0} errors=${errors} />`;
}

/** The required members that have no value yet. */
export const missing = (schema, value) => (resolved(schema, schema)?.required || []).filter((name) => own(value, name) === undefined);

/** A schema as rows of a table: name, type, required, description. */
export function rowsOf(schema, whole = schema, prefix = '', depth = 0) {
  const here = resolved(schema, whole);
  if (!here?.properties || depth > 3) return [];
  const required = new Set(here.required || []);
  return Object.entries(here.properties).flatMap(([name, each]) => {
    const inner = Object(resolved(each, whole));
    const type = inner.enum ? inner.enum.map((one) => JSON.stringify(one)).join(' | ') : [].concat(inner.type || (inner.oneOf || inner.anyOf ? 'one of several' : 'any')).map(labelOf).join(' or ');
    const items = inner.items && typeof inner.items === 'object' ? typeOf(Object(resolved(inner.items, whole))) : null;
    const row = { name: prefix + name, type: items ? `${type} of ${items}` : type, required: required.has(name), text: inner.description || '', initial: inner.default };
    return [row, ...rowsOf(each, whole, `${prefix}${name}.`, depth + 1)];
  });
}
