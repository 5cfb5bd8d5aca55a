// What a tool or a model gave, shown safely: as a picture, as Markdown, as values or as plain text; to copy and to save.

import { countText } from "../format.js";
import { saveFile } from "../save-file.js";
import { html, useState } from "../ui.js";
import { Button, Json, ShowAll } from "./basics.js";
import { ResultImages } from "./images.js";
import { Markdown, isMarkdown, isPicture } from "./markdown.js";

const LONG_TEXT = 1500;
const LONG_LINES = 18;
const MOST_AT_FIRST = 4000;

/** Copy a text, also where the page is not served over TLS. @param {string} text */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  if (!done) throw new Error("The browser does not let this page copy: download it instead.");
}

/** @param {string} text */
const asFile = (text) => new Blob([text], { type: "text/plain;charset=utf-8" });

/** @param {{ text: string, name: string }} props */
function TakeAway({ text, name }) {
  const [copied, setCopied] = useState(false);
  const take = async () => {
    await copy(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  return html`
    <${Button} kind="quiet" action=${take}>${copied ? "Copied" : "Copy"}<//>
    <${Button} kind="quiet" action=${() => saveFile(asFile(text), name)}>Download<//>
  `;
}

/** @param {string} text */
function isLong(text) {
  return text.length > LONG_TEXT || text.split("\n", LONG_LINES + 1).length > LONG_LINES;
}

/** A text that is shown in part until all of it is wanted. @param {{ text: string, formatted: boolean }} props */
function Folded({ text, formatted }) {
  const [isOpen, setOpen] = useState(false);
  const long = isLong(text);
  const start = isOpen ? text : text.slice(0, MOST_AT_FIRST).replace(/[\uD800-\uDBFF]$/, "");
  const content = formatted ? html`<${Markdown} text=${text} />` : html`<pre>${start}${start.length < text.length && "…"}</pre>`;
  if (!long) return content;
  return html`
    <div class=${isOpen ? "unfolded" : "folded"} tabindex="0" role="group" aria-label="Text">${content}</div>
    <${ShowAll} isOpen=${isOpen} setOpen=${setOpen} all=${countText(text.length, "character")} />
  `;
}

/** Return a value that is written as JSON, or undefined. @param {string} text */
function valueIn(text) {
  if (!/^\s*[[{]/.test(text) || text.length > 100_000) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @param {{ text: string, name: string, more?: unknown }} props `more`: buttons. */
export function TextResult({ text, name, more }) {
  const canFormat = isMarkdown(text) && valueIn(text) === undefined;
  const [plain, setPlain] = useState(false);
  if (!text) return html`<p class="note">It gave no text.</p>`;
  if (isPicture(text)) return html`<img class="picture-block" src=${text} alt="Picture in the result" />`;
  return html`
    <${Folded} text=${text} formatted=${canFormat && !plain} />
    <p class="result-buttons">
      <${TakeAway} text=${text} name=${name} />
      ${canFormat && html`
        <button type="button" class="quiet" aria-pressed=${plain} onClick=${() => setPlain(!plain)}>${plain ? "Formatted" : "Plain text"}</button>
      `}
      ${more}
    </p>
  `;
}

/**
 * The stored result of a call of the tool `source`.
 * @param {{ result: StoredResult, name: string, taskId: string, source: string }} props
 */
export function CallResult({ result: { text, output, is_error: isError, cut, size, images }, name, taskId, source }) {
  const only = !text && output !== null && output !== undefined;
  const isRepeated = output !== null && output !== undefined && JSON.stringify(valueIn(text)) === JSON.stringify(output);
  return html`
    <div class=${isError ? "outcome is-error" : "outcome"}>
      ${isError && html`<p class="error">The tool reported an error.</p>`}
      ${cut && html`<p class="note">The first part of ${size.toLocaleString("en")} bytes; the rest is not kept.</p>`}
      <${ResultImages} taskId=${taskId} images=${images} source=${source} name=${name} />
      ${!only && html`<${TextResult} text=${text} name=${`${name}.txt`} />`}
      ${only && html`<${Folded} text=${JSON.stringify(output, null, 2)} formatted=${false} />`}
      ${text && !isRepeated && output !== null && output !== undefined && html`
        <details class="raw"><summary>As data</summary><${Json} value=${output} /></details>
      `}
    </div>
  `;
}
