// The address of a view: `#/tasks/ID?name=value`. Every view has one, so Back works, and links can be sent.

import { useEffect, useState } from "./ui.js";

/** @typedef {{ path: string[], query: URLSearchParams }} Route */

/** @param {string} text */
const decode = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** Parse the part of an address after `#`. @param {string} hash @returns {Route} */
export function routeOf(hash) {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

/**
 * Return the address of a view. Parameters that are empty are left out.
 * @param {string[]} path @param {Record<string, string>} [query]
 */
export function hrefOf(path, query = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return `#/${path.map(encodeURIComponent).join("/")}${given.size ? `?${given}` : ""}`;
}

/** Show another view. With `replace`, Back skips the current one. @param {string} href @param {{ replace?: boolean }} [how] */
export function go(href, { replace = false } = {}) {
  if (replace) location.replace(href);
  else location.hash = href;
}

/** Return the current route, and follow it. */
export function useRoute() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const follow = () => setHash(location.hash);
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return routeOf(hash);
}
