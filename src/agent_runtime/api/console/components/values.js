// Values of plans and calls as text that needs no knowledge of JSON. Nothing is left out: long texts are folded, and all
// of them can be unfolded.

import { countText } from "../format.js";
import { html, isRaw, useState } from "../ui.js";
import { Json, ShowAll } from "./basics.js";

const MOST_CHARACTERS = 400;
const MOST_LINES = 10;
const MOST_ITEMS = 20;
const DEEPEST = 4;
// See domain/references.py.
const TOKEN = /\$\$\{|\$\{([^{}]*)\}/g;
const BODY = /^([A-Za-z][A-Za-z0-9_-]{0,63})\.(?:text|output)((?:\.[^.]+)*)$/;

/** @typedef {ReadonlyMap<string, number>} Numbers The numbers of the steps of a plan, by their ids. */
/** @typedef {{ step: string, path: string }} Reference */

/** @param {{ steps: { id: string }[] }} plan @returns {Numbers} */
export const numbersOf = ({ steps }) => new Map(steps.map(({ id }, at) => [id, at + 1]));

/** Split a text of a plan into literal text and references. @param {string} text @returns {(string | Reference)[]} */
export function partsOf(text) {
  /** @type {(string | Reference)[]} */
  const parts = [];
  let end = 0;
  for (const token of text.matchAll(TOKEN)) {
    parts.push(text.slice(end, token.index));
    end = token.index + token[0].length;
    const body = BODY.exec(token[1] ?? "");
    if (token[0] === "$${") parts.push("${");
    else parts.push(body ? { step: body[1], path: body[2].slice(1) } : token[0]);
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}

/** Return the references in a value of a plan. @param {unknown} value @returns {Reference[]} */
export function referencesIn(value) {
  if (typeof value === "string") return partsOf(value).filter((part) => typeof part !== "string");
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(referencesIn);
}

/** @param {string} step @param {Numbers} numbers */
export const stepName = (step, numbers) => `step ${numbers.get(step) ?? step}`;

/** Return the first part of a text. @param {string} text */
function startOf(text) {
  const lines = text.slice(0, MOST_CHARACTERS).split("\n", MOST_LINES).join("\n");
  return lines.replace(/[\uD800-\uDBFF]$/, "");
}

/** A text; references in it are named, if there are `numbers`. @param {{ text: string, numbers: Numbers | null }} props */
function Text({ text, numbers }) {
  const [isOpen, setOpen] = useState(false);
  if (text === "") return html`<span class="note">empty text</span>`;
  const start = startOf(text);
  const part = isOpen ? text : start;
  const parts = numbers ? partsOf(part) : [part];
  return html`
    <div class="value-text">
      ${parts.map((one) => (typeof one === "string" ? one : html`<${Result} reference=${one} numbers=${numbers} />`))}
      ${!isOpen && start.length < text.length && "…"}
    </div>
    ${start.length < text.length && html`
      <${ShowAll} isOpen=${isOpen} setOpen=${setOpen} all=${countText(text.length, "character")} />
    `}
  `;
}

/** @param {{ reference: Reference, numbers: Numbers | null }} props */
function Result({ reference: { step, path }, numbers }) {
  const name = `result of ${stepName(step, numbers ?? new Map())}`;
  return html`<span class="reference">${path ? `“${path}” in the ${name}` : name}</span>`;
}

/** @param {{ items: unknown[], numbers: Numbers | null, depth: number }} props */
function Items({ items, numbers, depth }) {
  const [isOpen, setOpen] = useState(false);
  const first = isOpen ? items : items.slice(0, MOST_ITEMS);
  return html`
    <ol class="items">${first.map((item) => html`<li><${Value} value=${item} numbers=${numbers} depth=${depth} /></li>`)}</ol>
    ${items.length > MOST_ITEMS && html`
      <${ShowAll} isOpen=${isOpen} setOpen=${setOpen} all=${countText(items.length, "item")} />
    `}
  `;
}

/**
 * A value as text. With `numbers`, texts may contain references to steps of a plan.
 * @param {{ value: any, numbers?: Numbers | null, depth?: number }} props
 */
export function Value({ value, numbers = null, depth = 0 }) {
  if (typeof value === "string") return html`<${Text} text=${value} numbers=${numbers} />`;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value === null || value === undefined) return html`<span class="note">nothing</span>`;
  if (typeof value !== "object") return String(value);
  if (isRaw(value)) return value.rawJSON;
  if (depth >= DEEPEST) return html`<${Json} value=${value} />`;
  if (!Array.isArray(value)) return html`<${NamedValues} values=${value} numbers=${numbers} depth=${depth + 1} />`;
  if (!value.length) return html`<span class="note">empty list</span>`;
  return html`<${Items} items=${value} numbers=${numbers} depth=${depth + 1} />`;
}

/**
 * Values with their names: the arguments of a call, or an object in them.
 * @param {{ values: Record<string, unknown>, numbers?: Numbers | null, depth?: number }} props
 */
export function NamedValues({ values, numbers = null, depth = 0 }) {
  const given = Object.entries(values);
  if (!given.length) return html`<span class="note">no values</span>`;
  return html`
    <dl class="values">
      ${given.map(([name, value]) => html`
        <dt>${name || "(no name)"}</dt><dd><${Value} value=${value} numbers=${numbers} depth=${depth} /></dd>
      `)}
    </dl>
  `;
}
