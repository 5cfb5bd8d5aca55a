// Markdown as elements. `marked` only splits the text into tokens; markup in it stays text, nothing is loaded from
// elsewhere, and a link shows its target before it can be followed.

import { html, useEffect, useState } from "../ui.js";

/**
 * @typedef {{ type: string, raw: string, text?: string, href?: string, depth?: number, ordered?: boolean,
 *   start?: number | "", checked?: boolean, tokens?: Token[], items?: Token[], header?: Cell[], rows?: Cell[][] }} Token
 *
 * @typedef {{ tokens: Token[] }} Cell
 */

const MOST_CHARACTERS = 64_000;
const PATIENCE_MS = 3000;
const DEEPEST = 24;
const MOST_PICTURE_CHARACTERS = 2_000_000;
// Pictures without code in them.
const PICTURE = /^data:image\/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}$/;
const MARKS = /^ {0,3}(?:#{1,6} \S|[-*+] \S|\d{1,3}[.)] \S|> \S|```|~~~|\|.+\|)|\*\*\S[^*\n]*\*\*|\[[^\]\n]+\]\([^)\s]+\)|`[^`\n]+`/m;
/** @type {Record<string, string>} */
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const ENTITY = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos|nbsp));/g;

/** Return whether a text is a picture that may be shown. @param {string} text */
export const isPicture = (text) => text.length <= MOST_PICTURE_CHARACTERS && PICTURE.test(text);

/** Return whether a text seems to be Markdown, and is short enough to be shown as such. @param {string} text */
export const isMarkdown = (text) => text.length <= MOST_CHARACTERS && MARKS.test(text);

/** @param {number} code */
const character = (code) => (code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : "\ufffd");

/** Decode the entities that people write. @param {string} text */
const decode = (text) =>
  text.replace(ENTITY, (_, decimal, hex, name) => NAMED[name] ?? character(decimal ? Number(decimal) : parseInt(hex, 16)));

/** @param {string} href */
function isWeb(href) {
  try {
    return ["https:", "http:", "mailto:"].includes(new URL(href).protocol);
  } catch {
    return false;
  }
}

/** A link, which first shows where it leads. @param {{ href: string, children: unknown }} props */
function Link({ href, children }) {
  const [open, setOpen] = useState(false);
  if (!isWeb(href)) return html`${children} <code class="target">${href}</code>`;
  return html`
    <button type="button" class="link" aria-expanded=${open} onClick=${() => setOpen(!open)}>${children}</button>
    ${open && html`
      <span class="target"> leads to <a href=${href} target="_blank" rel="noopener noreferrer nofollow"><code>${href}</code></a></span>
    `}
  `;
}

/** @param {Token} token */
function Picture({ href = "", text = "" }) {
  if (isPicture(href)) return html`<img class="picture-block" src=${href} alt=${text} />`;
  const name = text ? `picture “${text}”` : "picture";
  return href.startsWith("data:") ? html`<span class="note">[${name}, not shown]</span>` : html`<${Link} href=${href}>${name}<//>`;
}

/** @param {Token} token @param {number} depth */
function list({ ordered, start, items = [] }, depth) {
  const entries = items.map((item) => html`<li>${nodes(item.tokens, depth)}</li>`);
  return ordered ? html`<ol start=${start || 1}>${entries}</ol>` : html`<ul>${entries}</ul>`;
}

/** @param {Token} token @param {number} depth */
const table = ({ header = [], rows = [] }, depth) => html`
  <div class="wide" tabindex="0" role="group" aria-label="Table">
    <table>
      <thead><tr>${header.map((cell) => html`<th>${nodes(cell.tokens, depth)}</th>`)}</tr></thead>
      <tbody>${rows.map((row) => html`<tr>${row.map((cell) => html`<td>${nodes(cell.tokens, depth)}</td>`)}</tr>`)}</tbody>
    </table>
  </div>
`;

/** @param {Token} token @param {number} depth @returns {unknown} */
function node(token, depth) {
  const { type, raw, text = "", href = "" } = token;
  if (depth > DEEPEST) return raw;
  const inner = () => nodes(token.tokens, depth + 1);
  switch (type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return html`<p class=${`heading level-${token.depth}`}>${inner()}</p>`;
    case "paragraph":
      return html`<p>${inner()}</p>`;
    case "text":
      return token.tokens ? inner() : decode(text);
    case "escape":
      return text;
    case "strong":
      return html`<strong>${inner()}</strong>`;
    case "em":
      return html`<em>${inner()}</em>`;
    case "del":
      return html`<s>${inner()}</s>`;
    case "codespan":
      return html`<code>${text}</code>`;
    case "code":
      return html`<pre>${text}</pre>`;
    case "br":
      return html`<br />`;
    case "hr":
      return html`<hr />`;
    case "blockquote":
      return html`<blockquote>${inner()}</blockquote>`;
    case "checkbox":
      return token.checked ? "☑ " : "☐ ";
    case "list":
      return list(token, depth + 1);
    case "table":
      return table(token, depth + 1);
    case "link":
      return html`<${Link} href=${href}>${inner()}<//>`;
    case "image":
      return Picture(token);
    default:
      return raw;
  }
}

/** @param {Token[] | undefined} tokens @param {number} depth */
const nodes = (tokens, depth) => (tokens ?? []).map((token) => node(token, depth));

/**
 * Parse Markdown. Throws if that takes too long.
 * @param {string} text @param {AbortSignal} signal Ends it. @returns {Promise<Token[]>}
 */
function parse(text, signal) {
  const worker = new Worker(new URL("../markdown-worker.js", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
    worker.onmessage = ({ data }) => {
      if (data) resolve(data);
      else setTimeout(() => reject(new Error("The Markdown takes too long.")), PATIENCE_MS);
    };
    worker.onerror = () => reject(new Error("The Markdown cannot be parsed."));
    worker.postMessage({ library: import.meta.resolve("marked"), text });
  }).finally(() => worker.terminate());
}

/** A text as Markdown; as plain text until it is parsed, or if it cannot be. @param {{ text: string }} props */
export function Markdown({ text }) {
  const [parsed, setParsed] = useState(/** @type {{ text: string, tokens: Token[] } | null} */ (null));
  useEffect(() => {
    const stop = new AbortController();
    parse(text, stop.signal).then((tokens) => setParsed({ text, tokens }), () => {});
    return () => stop.abort();
  }, [text]);
  if (parsed?.text !== text) return html`<pre>${text}</pre>`;
  return html`<div class="markdown">${nodes(parsed.tokens, 0)}</div>`;
}
