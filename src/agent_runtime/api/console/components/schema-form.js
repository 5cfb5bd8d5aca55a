// A form for a value, made from a JSON schema: texts, numbers, yes or no, choices, lists and objects. What a schema says
// in another way is written as JSON. The service judges the value; the form only helps to write it.

import { parseExactly } from "../../client.js";
import { textOf } from "../api.js";
import { html, isRaw, useEffect, useId, useRef, useState } from "../ui.js";
import { Value, referencesIn } from "./values.js";

/** @import { Numbers } from "./values.js" */

/**
 * @typedef {{ type?: string | string[], properties?: Record<string, Schema>, required?: string[], items?: Schema,
 *   enum?: unknown[], enumNames?: string[], const?: unknown, anyOf?: Schema[], oneOf?: Schema[], $ref?: string, $defs?: Record<string, Schema>,
 *   title?: string, description?: string, default?: unknown, maxLength?: number, minimum?: number, maximum?: number,
 *   additionalProperties?: boolean | Schema }} Schema
 *
 * @typedef {object} FieldProps
 * @property {Schema} schema
 * @property {string} label
 * @property {any} value `undefined`: not given.
 * @property {(value: any) => void} set
 * @property {boolean} required
 * @property {Schema} root The schema that `$ref` refers to.
 * @property {Numbers | null} numbers The steps whose results a text may name, in a plan.
 * @property {number} depth
 */

const DEEPEST = 5;
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/**
 * Return the schema that a schema stands for, and whether it allows null.
 * @param {Schema} schema @param {Schema} root @param {number} [depth] @returns {{ schema: Schema, nullable: boolean }}
 */
function resolve(schema, root, depth = 0) {
  let found = schema;
  for (let turns = 0; found.$ref && turns < 10; turns += 1) {
    const path = found.$ref.startsWith("#/") ? found.$ref.slice(2).split("/") : [];
    /** @type {any} */
    let target = root;
    for (const part of path) target = Object.hasOwn(target ?? {}, part) ? target[part] : undefined;
    found = { ...found, ...(typeof target === "object" ? target : {}), $ref: target?.$ref };
  }
  const choices = found.anyOf ?? found.oneOf;
  const others = choices?.filter(({ type }) => type !== "null");
  if (choices && others?.length === 1 && depth < DEEPEST) {
    const only = resolve({ ...found, anyOf: undefined, oneOf: undefined, ...others[0] }, root, depth + 1);
    return { ...only, nullable: only.nullable || choices.length > 1 };
  }
  const types = Array.isArray(found.type) ? found.type.filter((type) => type !== "null") : [found.type];
  const nullable = Array.isArray(found.type) && found.type.includes("null");
  return { schema: { ...found, type: types.length === 1 ? types[0] : undefined }, nullable };
}

/** @param {Schema} schema */
function kindOf({ enum: choices, const: only, type, anyOf, oneOf, properties }) {
  if (choices) return "choice";
  if (only !== undefined || anyOf || oneOf) return "json";
  if (type === "object") return properties ? "object" : "json";
  if (type === "integer" || type === "number" || type === "boolean" || type === "string" || type === "array") return type;
  return "json";
}

/** Return an empty value of a schema. @param {Schema} given @param {Schema} root @param {number} [depth] @returns {any} */
function emptyOf(given, root, depth = 0) {
  const { schema } = resolve(given, root);
  if (schema.default !== undefined) return schema.default;
  const kind = kindOf(schema);
  if (kind === "choice") return schema.enum?.[0];
  if (kind === "object" && depth < DEEPEST) {
    const needed = (schema.required ?? []).filter((name) => Object.hasOwn(schema.properties ?? {}, name));
    return Object.fromEntries(needed.map((name) => [name, emptyOf(schema.properties?.[name] ?? {}, root, depth + 1)]));
  }
  /** @type {Record<string, unknown>} */
  const values = { boolean: false, array: [], string: "", integer: 0, number: 0, object: {} };
  return values[kind] ?? null;
}

/**
 * A label, its control, and its description.
 * @param {{ label: string, required: boolean, schema: Schema, id: string, children: unknown }} props
 */
const Labelled = ({ label, required, schema, id, children }) => html`
  <div class="field">
    <label for=${id}>${label}${!required && html` <span class="note">optional</span>`}</label>
    ${children}
    ${schema.description && html`<p class="note">${schema.description}</p>`}
  </div>
`;

/**
 * A control whose text may be no value: the browser then says why, and does not submit the form.
 * @param {FieldProps & { id: string, read: (text: string) => unknown, write: (value: any) => string, rows?: number }} props
 */
function Written({ id, value, set, required, read, write, rows = 1 }) {
  const [text, setText] = useState(value === undefined ? "" : write(value));
  const input = useRef(/** @type {HTMLInputElement | HTMLTextAreaElement | null} */ (null));
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const change = ({ currentTarget }) => {
    setText(currentTarget.value);
    currentTarget.setCustomValidity("");
    if (!currentTarget.value.trim()) return set(undefined);
    try {
      set(read(currentTarget.value.trim()));
    } catch (error) {
      currentTarget.setCustomValidity(textOf(error));
    }
  };
  useEffect(() => {
    if (value !== undefined && input.current?.validity.valid && write(value) !== text.trim()) setText(write(value));
  }, [value]);
  const given = { id, ref: input, value: text, required, onInput: change, spellcheck: false };
  return rows > 1 ? html`<textarea rows=${rows} class="code" ...${given} />` : html`<input type="text" inputmode="decimal" ...${given} />`;
}

/** @param {string} text */
function readNumber(text) {
  if (!NUMBER.test(text)) throw new Error("Write a number, such as 12 or 0.5.");
  return parseExactly(text);
}

/** @param {string} text */
function readJson(text) {
  try {
    return parseExactly(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${textOf(error)}`);
  }
}

/** @param {unknown} value */
const writeJson = (value) => JSON.stringify(value, null, 2);

/** @param {FieldProps} props */
function JsonField(props) {
  const id = useId();
  const label = `${props.label} (JSON)`;
  return html`
    <${Labelled} ...${props} label=${label} id=${id}><${Written} ...${props} id=${id} rows=${4} read=${readJson} write=${writeJson} /><//>
  `;
}

/** @param {FieldProps} props */
function NumberField(props) {
  const id = useId();
  return html`<${Labelled} ...${props} id=${id}><${Written} ...${props} id=${id} read=${readNumber} write=${JSON.stringify} /><//>`;
}

/** @param {FieldProps} props */
function TextField(props) {
  const { value, set, required, numbers } = props;
  const id = useId();
  const text = value ?? "";
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const change = ({ currentTarget }) => set(currentTarget.value === "" && !required ? undefined : currentTarget.value);
  return html`
    <${Labelled} ...${props} id=${id}>
      <textarea id=${id} rows="1" value=${text} onInput=${change} />
      ${numbers && referencesIn(text).length > 0 && html`
        <div class="note">Will be: <${Value} value=${text} numbers=${numbers} /></div>
      `}
    <//>
  `;
}

/** @param {FieldProps & { choices: unknown[] }} props */
function ChoiceField(props) {
  const { value, set, required, choices } = props;
  const id = useId();
  const options = value === undefined || choices.some((one) => JSON.stringify(one) === JSON.stringify(value)) ? choices : [value, ...choices];
  const chosen = value === undefined ? "" : String(options.findIndex((one) => JSON.stringify(one) === JSON.stringify(value)));
  /** @param {{ currentTarget: HTMLSelectElement }} event */
  const change = ({ currentTarget }) => set(currentTarget.value === "" ? undefined : options[Number(currentTarget.value)]);
  const nameOf = (/** @type {any} */ one) => {
    const text = typeof one === "boolean" ? (one ? "yes" : "no") : typeof one === "string" ? one : JSON.stringify(one);
    const name = props.schema.enumNames?.[choices.indexOf(one)];
    return name && name !== text ? `${name} (${text})` : text;
  };
  return html`
    <${Labelled} ...${props} id=${id}>
      <select id=${id} value=${chosen} onChange=${change} required=${required}>
        ${(!required || value === undefined) && html`<option value="" selected=${chosen === ""}>not given</option>`}
        ${options.map((one, at) => html`<option value=${String(at)} selected=${chosen === String(at)}>${nameOf(one)}</option>`)}
      </select>
    <//>
  `;
}

/** @param {FieldProps} props */
function ListField({ label, schema, value, set, root, numbers, depth, required }) {
  /** @type {unknown[]} */
  const items = value ?? [];
  const item = schema.items ?? {};
  return html`
    <fieldset class="group">
      <legend>${label}${!required && html` <span class="note">optional</span>`}</legend>
      ${schema.description && html`<p class="note">${schema.description}</p>`}
      ${items.map((one, at) => html`
        <div class="item" key=${`${at} of ${items.length}`}>
          <${SchemaField} schema=${item} label=${`Item ${at + 1}`} value=${one} required=${true} root=${root} numbers=${numbers}
            depth=${depth + 1} set=${(/** @type {unknown} */ next) => set(items.map((old, place) => (place === at ? next : old)))} />
          <button type="button" class="quiet" aria-label=${`Remove item ${at + 1} of ${label}`}
            onClick=${() => set(items.filter((_, place) => place !== at))}>Remove</button>
        </div>
      `)}
      <p class="buttons">
        <button type="button" onClick=${() => set([...items, emptyOf(item, root)])}>Add an item</button>
        ${!required && value !== undefined && !items.length && html`
          <button type="button" class="quiet" onClick=${() => set(undefined)}>Give no list</button>
        `}
      </p>
    </fieldset>
  `;
}

/** The fields of an object, without a frame. @param {Omit<FieldProps, "label" | "required">} props */
function Properties({ schema, value, set, root, numbers, depth }) {
  const given = value ?? {};
  const properties = schema.properties ?? {};
  const required = new Set(schema.required ?? []);
  /** Not what every object has, such as `constructor`. @param {string} name */
  const valueOf = (name) => (Object.hasOwn(given, name) ? given[name] : undefined);
  const more = Object.keys(given).filter((name) => !Object.hasOwn(properties, name));
  /** @param {string} name @returns {(next: unknown) => void} */
  const setter = (name) => (next) => {
    const { [name]: _, ...rest } = given;
    // The order of the names stays, so that an edit changes nothing else.
    if (next === undefined) return set(rest);
    set(Object.hasOwn(given, name) ? { ...given, [name]: next } : { ...rest, [name]: next });
  };
  return [
    ...Object.entries(properties).map(([name, one]) => html`
      <${SchemaField} key=${name} schema=${one} label=${name} value=${valueOf(name)} set=${setter(name)} root=${root}
        required=${required.has(name)} numbers=${numbers} depth=${depth + 1} />
    `),
    ...more.map((name) => html`
      <${SchemaField} key=${`more ${name}`} schema=${{}} label=${name} value=${given[name]} set=${setter(name)} root=${root}
        required=${false} numbers=${numbers} depth=${depth + 1} />
    `),
  ];
}

/** @param {FieldProps} props */
function ObjectField(props) {
  const { label, schema, value, set, required, root } = props;
  return html`
    <fieldset class="group">
      <legend>${label}${!required && html` <span class="note">optional</span>`}</legend>
      ${schema.description && html`<p class="note">${schema.description}</p>`}
      ${value === undefined
        ? html`<p class="buttons"><button type="button" onClick=${() => set(emptyOf(schema, root))}>Give it</button></p>`
        : html`<${Properties} ...${props} />`}
      ${value !== undefined && !required && html`
        <button type="button" class="quiet" onClick=${() => set(undefined)}>Give none</button>
      `}
    </fieldset>
  `;
}

/** A value that comes from an earlier step, where the schema wants no text. @param {FieldProps} props */
function ReferenceField(props) {
  const { value, set, schema, root, numbers, required } = props;
  const id = useId();
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const change = ({ currentTarget }) => set(currentTarget.value);
  return html`
    <${Labelled} ...${props} id=${id}>
      <input type="text" id=${id} value=${value} onInput=${change} />
      <div class="note">Will be: <${Value} value=${value} numbers=${numbers} /></div>
      <button type="button" class="quiet" onClick=${() => set(required ? emptyOf(schema, root) : undefined)}>Write a value instead</button>
    <//>
  `;
}

/** One value of a form. @param {FieldProps} props @returns {unknown} */
function SchemaField(props) {
  const { schema, nullable } = resolve(props.schema, props.root);
  const kind = kindOf(schema);
  const { value, numbers } = props;
  const given = { ...props, schema };
  const isText = typeof value === "string";
  if (isText && kind !== "string" && numbers && referencesIn(value).length) return html`<${ReferenceField} ...${given} />`;
  if (value === null && !(nullable && kind === "choice")) return html`<${JsonField} ...${given} />`;
  if (props.depth > DEEPEST) return html`<${JsonField} ...${given} />`;
  const isObject = typeof value === "object" && !Array.isArray(value) && !isRaw(value);
  const isNumber = typeof value === "number" || isRaw(value);
  const fits = (/** @type {boolean} */ right) => value === undefined || right;
  if (kind === "choice") return html`<${ChoiceField} ...${given} choices=${schema.enum} />`;
  if (kind === "boolean" && fits(typeof value === "boolean")) return html`<${ChoiceField} ...${given} choices=${[true, false]} />`;
  if (kind === "string" && fits(isText)) return html`<${TextField} ...${given} />`;
  if ((kind === "integer" || kind === "number") && fits(isNumber)) return html`<${NumberField} ...${given} />`;
  if (kind === "array" && fits(Array.isArray(value))) return html`<${ListField} ...${given} />`;
  if (kind === "object" && fits(isObject)) return html`<${ObjectField} ...${given} />`;
  return html`<${JsonField} ...${given} />`;
}

/**
 * The fields for the arguments of a tool, or for another object. With `numbers`, references to steps of a plan are kept.
 * @param {{ schema: Schema, value: Record<string, any>, set: (value: Record<string, any>) => void, numbers?: Numbers | null }} props
 */
export function SchemaForm({ schema, value, set, numbers = null }) {
  const { schema: found } = resolve(schema, schema);
  if (kindOf({ type: "object", ...found }) !== "object") {
    return html`
      <${JsonField} schema=${{}} label="Arguments" value=${value} set=${(/** @type {any} */ next) => set(next ?? {})} required=${true}
        root=${schema} numbers=${numbers} depth=${0} />
    `;
  }
  return html`<${Properties} schema=${found} value=${value} set=${set} root=${schema} numbers=${numbers} depth=${0} />`;
}
