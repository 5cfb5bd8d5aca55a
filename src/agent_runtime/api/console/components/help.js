// The dialog with the keyboard shortcuts.

import { shortcuts } from "../device.js";
import { SHORTCUTS } from "../keyboard.js";
import { useStore } from "../store.js";
import { html, useEffect, useRef } from "../ui.js";

/** @param {{ close: () => void }} props */
export function Help({ close }) {
  const state = useStore(shortcuts);
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const change = ({ currentTarget }) => shortcuts.set(currentTarget.checked ? "on" : "off");
  return html`
    <dialog ref=${dialog} aria-labelledby="help-title" onClose=${close}>
      <h2 id="help-title">Keyboard</h2>
      <table>
        <tbody>
          ${SHORTCUTS.map(([keys, means]) => html`<tr key=${keys}><th scope="row"><kbd>${keys}</kbd></th><td>${means}</td></tr>`)}
        </tbody>
      </table>
      <label class="check"><input type="checkbox" checked=${state === "on"} onChange=${change} /> Shortcuts are on</label>
      <form method="dialog"><p class="buttons"><button type="submit" class="primary">Close</button></p></form>
    </dialog>
  `;
}
