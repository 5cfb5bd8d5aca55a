// What this browser remembers about how the page behaves here: the theme, keyboard shortcuts and notifications.

import { Store } from "./store.js";

/** Return a store whose value this browser keeps. @param {string} name @param {string} initial */
function makeSetting(name, initial) {
  const store = new Store(localStorage.getItem(name) ?? initial);
  store.listen(() => localStorage.setItem(name, store.value));
  return store;
}

/** "system", "light" or "dark"; `theme.js` applies it before the page is drawn. */
export const theme = makeSetting("theme", "system");
theme.listen(() => {
  document.documentElement.dataset.theme = theme.value;
});

/** "on" or "off". */
export const shortcuts = makeSetting("shortcuts", "on");

/** "on" or "off". */
export const notifying = makeSetting("notify", "off");
