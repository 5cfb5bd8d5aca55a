// A value that components share. A component that reads it with `useStore` is rendered again when it changes.

import { useEffect, useState } from "./ui.js";

/** @template T */
export class Store {
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /** @param {T} value */
  constructor(value) {
    this.value = value;
  }

  /** Replace the value, and tell all who listen. @param {T} value */
  set(value) {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Replace some fields of the value. @param {Partial<T>} fields */
  patch(fields) {
    this.set({ ...this.value, ...fields });
  }

  /** Call a function after each change. Return a function that ends this. @param {() => void} listener */
  listen(listener) {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }
}

/** Return the current value of a store, and follow it. @template T @param {Store<T>} store @returns {T} */
export function useStore(store) {
  const [, redraw] = useState(0);
  useEffect(() => {
    const seen = store.value;
    const stop = store.listen(() => redraw((count) => count + 1));
    if (store.value !== seen) redraw((count) => count + 1);
    return stop;
  }, [store]);
  return store.value;
}
