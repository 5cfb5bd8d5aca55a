// Who uses the page: the API key, if the service requires one, and what its caller may do. The tab keeps the key until
// it is closed.

import { ApiError } from "../client.js";
import { Store } from "./store.js";

/**
 * @typedef {object} Session
 * @property {"unknown" | "in" | "out"} state "out": the service requires a key, and has none or refuses it.
 * @property {CallerView | null} me
 * @property {string} refusal What the service said about the key; empty if none was sent.
 */

/** @type {Store<Session>} */
export const session = new Store(/** @type {Session} */ ({ state: "unknown", me: null, refusal: "" }));

const STORED = "key";

const storedKey = () => sessionStorage.getItem(STORED) ?? "";

/** Send a request with the key. An answer 401 signs the page out. @param {string} url @param {RequestInit} [request] */
export async function withKey(url, request = {}) {
  const key = storedKey();
  const headers = new Headers(request.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const response = await fetch(url, { ...request, headers });
  if (response.status === 401 && storedKey() === key) {
    const problem = await response.clone().json().catch(() => ({}));
    sessionStorage.removeItem(STORED);
    session.set({ state: "out", me: null, refusal: key ? String(problem.detail ?? "The service refused this key.") : "" });
  }
  return response;
}

/** Ask the service who the caller is. Throws unless it says so, or asks for a key. */
export async function identify() {
  const response = await withKey("./v1/me");
  if (response.ok) session.set({ state: "in", me: await response.json(), refusal: "" });
  else if (response.status !== 401) throw new ApiError(response.status, await response.json().catch(() => null));
}

/** Try a key, and keep it if the service takes it. @param {string} key */
export async function signIn(key) {
  sessionStorage.setItem(STORED, key);
  await identify();
}

/** Forget the key. */
export async function signOut() {
  sessionStorage.removeItem(STORED);
  session.set({ state: "out", me: null, refusal: "" });
  await identify();
}

/** Return why the caller may not do what needs one of these scopes; an empty text if they may. @param {string[]} scopes */
export function reasonAgainst(...scopes) {
  const { me } = session.value;
  if (!me || scopes.some((scope) => me.scopes.includes(scope))) return "";
  const needed = scopes.map((scope) => `'${scope}'`).join(" or ");
  return `This needs the scope ${needed}, which ${me.name} does not have.`;
}
