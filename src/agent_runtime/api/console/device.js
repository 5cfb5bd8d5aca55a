// What this browser remembers about how the page behaves here: the theme, keyboard shortcuts and notifications.

import { Store } from "./store.js";

/** @param {string} name @param {string} initial */
function remembered(name, initial) {
  const store = new Store(localStorage.getItem(name) ?? initial);
  store.listen(() => localStorage.setItem(name, store.value));
  return store;
}

/** "system", "light" or "dark"; `theme.js` applies it before the page is drawn. */
export const theme = remembered("theme", "system");
theme.listen(() => {
  document.documentElement.dataset.theme = theme.value;
});

/** "on" or "off". */
export const shortcuts = remembered("shortcuts", "on");

/** "on" or "off". */
export const notifying = remembered("notify", "off");
