// The feed of all tasks, which keeps the page up to date. It is resumed after every loss of the connection.

import { ApiError } from "../client.js";
import { client, textOf } from "./api.js";
import { Store } from "./store.js";

/** @typedef {{ task_id: string, type: string }} Change `type` is that of the event, "task.deleted", or "restart". */

/** @typedef {{ state: "connecting" | "live" | "lost", message: string }} Connection */

/** @type {Store<Connection>} */
export const connection = new Store(/** @type {Connection} */ ({ state: "connecting", message: "" }));

/** @type {Set<(change: Change) => void>} */
const listeners = new Set();

/**
 * Call a function with each change of any task. A change of the type "restart" stands for all: load everything again.
 * Return a function that ends this.
 * @param {(change: Change) => void} listener
 */
export function onChange(listener) {
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
  };
}

/** @param {Change} change */
const tell = (change) => {
  for (const listener of [...listeners]) listener(change);
};

/**
 * Follow the feed, for all tabs of this browser: they share one connection, as browsers allow a service only six. One
 * tab holds a lock, reads the feed and tells the others; when it is closed, another takes over. A page that did not come
 * over HTTPS or from this machine has no locks, and reads the feed itself. Return a function that stops it.
 * @param {CallerView | null} me Only tabs of the same caller share.
 */
export function followFeed(me) {
  const stop = new AbortController();
  const name = JSON.stringify(["feed", location.pathname, me?.tenant, me?.name]);
  const others = new BroadcastChannel(name);
  let isReading = false;
  others.addEventListener("message", ({ data }) => {
    if (data.change) tell(data.change);
    else if (data.connection) connection.set(data.connection);
    else if (isReading) others.postMessage({ connection: connection.value });
  });
  others.postMessage({});
  /** @type {Publish} */
  const publish = (news) => {
    if (stop.signal.aborted) return;
    if (news.change) tell(news.change);
    else if (news.connection) connection.set(news.connection);
    others.postMessage(news);
  };
  const work = () => {
    isReading = true;
    return read(stop.signal, publish);
  };
  const reading = navigator.locks ? navigator.locks.request(name, { signal: stop.signal }, work) : work();
  reading.catch((error) => {
    isReading = false;
    publish({ connection: { state: "lost", message: textOf(error) } });
  });
  return () => {
    stop.abort();
    others.close();
  };
}

/** @typedef {(news: { change?: Change, connection?: Connection }) => void} Publish */

/** @param {AbortSignal} signal @param {Publish} publish */
async function read(signal, publish) {
  const restart = () => publish({ change: { task_id: "", type: "restart" } });
  let seen = "";
  /** @param {unknown} lost */
  const told = (lost) => {
    publish({ connection: lost === null ? { state: "live", message: "" } : { state: "lost", message: textOf(lost) } });
    // What happened before the feed began may have been missed.
    if (lost === null && !seen) restart();
  };
  for (;;) {
    try {
      for await (const { event, id, data } of client.followAll({ signal, told })) {
        seen = id;
        const said = JSON.parse(data);
        if (event !== "feed.checkpoint") publish({ change: { task_id: said.task_id, type: event } });
        else if (said.restarts) restart();
      }
    } catch (error) {
      const isCursor = error instanceof ApiError && error.status === 422;
      if (!isCursor) throw error;
      seen = "";
    }
  }
}
