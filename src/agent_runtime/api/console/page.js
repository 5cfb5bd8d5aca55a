// The parts of the page. All text is inserted as visible text, never as HTML.

import { visible } from "./text.js";

/**
 * Return the element with this id. Throws an error if the page has none.
 * @template {HTMLElement} T
 * @param {string} id @param {new () => T} kind
 */
export function byId(id, kind) {
  const node = document.getElementById(id);
  if (!(node instanceof kind)) throw new Error(`The page has no ${kind.name} with the id ${id}.`);
  return node;
}

const said = byId("said", HTMLElement);

/** @param {string} text */
export const say = (text) => { said.textContent = visible(text); };

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {unknown} [text] @param {string} [className]
 * @returns {HTMLElementTagNameMap[T]}
 */
export const element = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = visible(text);
  if (className) node.className = className;
  return node;
};

/**
 * Create an element with children: other elements, and plain text.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {string | undefined} className @param {(Node | string)[]} parts
 */
export const group = (tag, className, ...parts) => {
  const node = element(tag, undefined, className);
  node.append(...parts.map((part) => (typeof part === "string" ? visible(part) : part)));
  return node;
};

/** Put text on one line, so that it cannot imitate lines of the page. @param {string} text */
export const oneLine = (text) => text.replace(/[ \t\r\n]*[\t\r\n][ \t\r\n]*/g, " ");

/**
 * Format JSON in a block. Hidden characters in it are escaped.
 * @param {Json} value
 */
export const json = (value) => element("pre", JSON.stringify(value, null, 2), "code");

/** @param {string} digest */
export const short = (digest) => {
  const node = element("code", `${digest.slice(0, 19)}…`);
  node.title = digest;
  return node;
};

/** @param {string} at */
export const timeOf = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** @typedef {() => unknown} Work An action of a person; a returned promise is awaited. */

/** @param {Work} work */
export async function attempt(work) {
  say("");
  await quietly(work);
}

/** Like `attempt`, but keep the last message. @param {Work} work */
export async function quietly(work) {
  try {
    await work();
  } catch (error) {
    say(wordsOf(error));
  }
}

/** Describe an error. The browser throws a TypeError if it gets no answer. @param {unknown} error */
export function wordsOf(error) {
  if (error instanceof TypeError) return `The service cannot be reached: ${error.message}.`;
  return error instanceof Error ? error.message : String(error);
}

/** Create a button that is disabled while its action runs. @param {string} text @param {Work} work @param {string} [className] */
export function button(text, work, className) {
  const node = element("button", text, className);
  node.type = "button";
  node.addEventListener("click", async () => {
    node.disabled = true;
    await attempt(work);
    node.disabled = false;
  });
  return node;
}

let fields = 0;

/** Create a labelled text field; with 1 row, a single line. @param {string} text */
export function field(text, rows = 1) {
  const input = rows > 1 ? element("textarea") : element("input");
  if (input instanceof HTMLTextAreaElement) input.rows = rows;
  fields += 1;
  input.id = `field-${fields}`;
  const label = element("label", text);
  label.htmlFor = input.id;
  return { input, node: group("div", "field", label, input) };
}

/** @type {WeakMap<Element, string>} */
const keys = new WeakMap();

/** @typedef {[key: string, make: () => Element]} Part */

/**
 * Give a parent exactly these children: pairs of a key and a function that creates the node. A node with the same key
 * is kept, so that open details, focus and typed text are not lost.
 * @param {Element} parent @param {Part[]} wanted
 */
export function place(parent, wanted) {
  const known = new Map([...parent.children].map((node) => [keys.get(node), node]));
  const nodes = wanted.map(([key, make]) => {
    const node = known.get(key) ?? make();
    keys.set(node, key);
    return node;
  });
  const kept = new Set(nodes);
  for (const node of [...parent.children]) if (!kept.has(node)) node.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] ?? null);
  });
}
