// What the page is made of. All text goes in as visible text, never as HTML.

import { visible } from "./text.js";

const said = document.getElementById("said");

export const say = (text) => { said.textContent = visible(text); };

export const element = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined && text !== null) node.textContent = visible(text);
  if (className) node.className = className;
  return node;
};

// An element around others, and around plain text.
export const group = (tag, className, ...parts) => {
  const node = element(tag, undefined, className);
  node.append(...parts.map((part) => (typeof part === "string" ? visible(part) : part)));
  return node;
};

// Text that shall not look like lines of the page's own.
export const oneLine = (text) => text.replace(/[ \t\r\n]*[\t\r\n][ \t\r\n]*/g, " ");

// JSON on lines of its own. A mark in it is spelled out once more where it would hide something.
export const json = (value) => element("pre", JSON.stringify(value, null, 2), "code");

export const short = (digest) => {
  const node = element("code", `${digest.slice(0, 19)}…`);
  node.title = digest;
  return node;
};

export const timeOf = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export async function attempt(work) {
  say("");
  await quietly(work);
}

// As `attempt`, and what was said before stays.
export async function quietly(work) {
  try {
    await work();
  } catch (error) {
    say(error instanceof TypeError ? `The service cannot be reached: ${error.message}.` : error.message);
  }
}

// A button that does one thing at a time.
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

// A labelled field for text; `rows` 1 is a single line.
export function field(text, rows = 1) {
  const input = element(rows > 1 ? "textarea" : "input");
  if (rows > 1) input.rows = rows;
  fields += 1;
  input.id = `field-${fields}`;
  const label = element("label", text);
  label.htmlFor = input.id;
  return { input, node: group("div", "field", label, input) };
}

const keys = new WeakMap();

// Have exactly these children: pairs of a key and what makes the node. What has the same key stays the same node in
// its place, so that nothing is moved, closed or emptied under a hand.
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
