// Keyboard shortcuts. They are single keys, so they can be turned off, and never work while one types.

import { shortcuts } from "./device.js";
import { go } from "./router.js";

/** @type {[keys: string, means: string][]} */
export const SHORTCUTS = [
  ["j", "The next task of the list"],
  ["k", "The task before"],
  ["Enter", "Open the task that has the focus"],
  ["Esc", "Back to the list"],
  ["/", "Search"],
  ["n", "New task"],
  ["?", "This help"],
];

const rows = () => /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".row a")]);

/** Move the focus in the list, from the row that has it or whose task is open. @param {1 | -1} by */
function move(by) {
  const all = rows();
  const from = [document.activeElement, document.querySelector(".row a[aria-current]")]
    .map((one) => all.indexOf(/** @type {HTMLElement} */ (one))).find((at) => at >= 0);
  all[from === undefined ? 0 : Math.min(Math.max(from + by, 0), all.length - 1)]?.focus();
}

/** @param {string} selector */
const focus = (selector) => /** @type {HTMLElement | null} */ (document.querySelector(selector))?.focus();

/** Go back to the list, and put the focus on the row of the task. */
function leave() {
  const link = /** @type {HTMLElement | null} */ (document.querySelector(".row a[aria-current]"));
  if (!location.hash.startsWith("#/tasks/")) return;
  const { 1: query } = location.hash.split("?");
  go(`#/${query ? `?${query}` : ""}`);
  requestAnimationFrame(() => link?.focus());
}

/** Obey shortcuts. Return a function that ends this. @param {{ help: () => void }} actions */
export function listenToKeys({ help }) {
  /** @type {Record<string, () => void>} */
  const actions = {
    j: () => move(1),
    k: () => move(-1),
    Escape: leave,
    "/": () => focus("#search"),
    n: () => go("#/new"),
    "?": help,
  };
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    const { key, target, ctrlKey, metaKey, altKey } = event;
    const types = target instanceof Element && target.closest("input, textarea, select, dialog, [contenteditable]");
    if (shortcuts.value !== "on" || ctrlKey || metaKey || altKey || types || !Object.hasOwn(actions, key)) return;
    event.preventDefault();
    actions[key]();
  };
  addEventListener("keydown", press);
  return () => removeEventListener("keydown", press);
}
