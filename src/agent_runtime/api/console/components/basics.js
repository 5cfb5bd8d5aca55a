// The small parts of all views.

import { textOf } from "../api.js";
import { agoText, statusText, timeText } from "../format.js";
import { reasonAgainst, session } from "../session.js";
import { useStore } from "../store.js";
import { html, useEffect, useId, useRef, useState } from "../ui.js";

/** The title of a view. It gets the focus when it appears, unless one is typing. @param {{ children: unknown }} props */
export function Title({ children }) {
  const title = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    if (!document.activeElement?.matches("input, textarea, select")) title.current?.focus({ preventScroll: true });
  }, []);
  return html`<h1 ref=${title} tabindex="-1">${children}</h1>`;
}

/** A message about something that went wrong, where it happened. @param {{ text: string }} props */
export const Problem = ({ text }) => (text ? html`<p class="problem" role="alert">${text}</p>` : null);

/**
 * Return `act`, which runs an action and shows by `busy` that it does; an error is in `error`.
 * @returns {{ busy: boolean, error: string, act: (action: () => unknown) => Promise<void> }}
 */
function useAction() {
  const [state, setState] = useState({ busy: false, error: "" });
  /** @param {() => unknown} action */
  const act = async (action) => {
    setState({ busy: true, error: "" });
    try {
      await action();
      setState({ busy: false, error: "" });
    } catch (error) {
      setState({ busy: false, error: textOf(error) });
    }
  };
  return { ...state, act };
}

/**
 * A button that is disabled while its action runs, and shows below it why the action failed.
 * @param {{ action: () => unknown, kind?: "primary" | "danger" | "quiet", children: unknown, disabled?: boolean }} props
 */
export function Button({ action, kind, children, disabled = false }) {
  const { busy, error, act } = useAction();
  return html`
    <button type="button" class=${kind} disabled=${busy || disabled} aria-busy=${busy} onClick=${() => act(action)}>
      ${children}
    </button>
    <${Problem} text=${error} />
  `;
}

/**
 * A form, whose last line has the button that runs its action, and `more`. The button is disabled while the action runs,
 * and why it failed is shown below.
 * @param {{ action: () => unknown, verb: unknown, children: unknown, more?: unknown, disabled?: boolean, [name: string]: unknown }} props
 */
export function Form({ action, verb, children, more, disabled = false, ...attributes }) {
  const { busy, error, act } = useAction();
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    act(action);
  };
  return html`
    <form onSubmit=${submit} ...${attributes}>
      ${children}
      <p class="buttons">
        <button type="submit" class="primary" disabled=${busy || disabled} aria-busy=${busy}>${verb}</button>
        ${more}
      </p>
      <${Problem} text=${error} />
    </form>
  `;
}

/**
 * Inputs and buttons that need one of some scopes. Without it they are disabled, and the reason is shown.
 * @param {{ needs: string[], children: unknown }} props
 */
export function Allowed({ needs, children }) {
  useStore(session);
  const reason = reasonAgainst(...needs);
  return html`
    <fieldset disabled=${Boolean(reason)}>${children}</fieldset>
    ${reason && html`<p class="note">${reason}</p>`}
  `;
}

/**
 * A labelled text field. With `rows`, it takes several lines.
 * @param {{ label: string, value: string, set: (text: string) => void, rows?: number, note?: string, type?: string,
 *   [name: string]: unknown }} props
 */
export function Field({ label, value, set, rows = 1, note, type = "text", ...more }) {
  const id = useId();
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const change = ({ currentTarget }) => set(currentTarget.value);
  const given = { id, value, onInput: change, ...more };
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${rows > 1 ? html`<textarea rows=${rows} ...${given} />` : html`<input type=${type} ...${given} />`}
      ${note && html`<p class="note">${note}</p>`}
    </div>
  `;
}

/**
 * A fold whose contents are made, and loaded, when it is opened.
 * @param {{ title: string, show: () => unknown, [name: string]: unknown }} props
 */
export function Fold({ title, show, ...attributes }) {
  const [isOpen, setOpen] = useState(false);
  /** @param {{ currentTarget: HTMLDetailsElement }} event */
  const toggle = ({ currentTarget }) => setOpen(currentTarget.open);
  return html`<details onToggle=${toggle} ...${attributes}><summary>${title}</summary>${isOpen && show()}</details>`;
}

/** A text with its caption; nothing if there is none. @param {{ caption: string, text: string | null }} props */
export const Captioned = ({ caption, text }) =>
  text === null ? null : html`<p class="caption">${caption}</p><pre>${text}</pre>`;

/**
 * A button that shows all of what is shown in part, and the part again.
 * @param {{ isOpen: boolean, setOpen: (isOpen: boolean) => void, all: string }} props
 */
export const ShowAll = ({ isOpen, setOpen, all }) => html`
  <button type="button" class="quiet fold" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
    ${isOpen ? "Show less" : `Show all ${all}`}
  </button>
`;

/** A value as indented JSON. @param {{ value: unknown }} props */
export const Json = ({ value }) => html`<pre class="code">${JSON.stringify(value, null, 2)}</pre>`;

/** A digest, short; the whole is its title. @param {{ digest: string }} props */
export const Digest = ({ digest }) => html`<code title=${digest}>${digest.slice(0, 19)}…</code>`;

/** The status of a task or of a step. @param {{ status: string }} props */
export const Status = ({ status }) => html`<span class=${`status ${status}`}>${statusText(status)}</span>`;

/** A time, as long ago; its title is exact. @param {{ at: string }} props */
export const Ago = ({ at }) => html`<time datetime=${at} title=${timeText(at)}>${agoText(at)}</time>`;

/** A text in a box that scrolls to its end as the text grows, unless the reader has scrolled back. @param {{ text: string, label: string }} props */
export function Growing({ text, label }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const atEnd = useRef(true);
  useEffect(() => {
    if (box.current && atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  const noteEnd = () => {
    if (box.current) atEnd.current = box.current.scrollTop + box.current.clientHeight >= box.current.scrollHeight - 4;
  };
  return html`<pre ref=${box} class="log" role="log" aria-label=${label} tabindex="0" onScroll=${noteEnd}>${text}</pre>`;
}

/**
 * What a function loads: `value`, or `error`. It is loaded again when an input changes, or `reload` is called.
 * @template T @param {() => Promise<T>} load @param {readonly unknown[]} inputs
 */
export function useLoaded(load, inputs) {
  const [state, setState] = useState(/** @type {{ value: T | null, error: string }} */ ({ value: null, error: "" }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let wanted = true;
    load().then(
      (value) => wanted && setState({ value, error: "" }),
      (error) => wanted && setState({ value: null, error: textOf(error) }),
    );
    return () => {
      wanted = false;
    };
  }, [...inputs, turn]);
  return { ...state, reload: () => setTurn((before) => before + 1) };
}
