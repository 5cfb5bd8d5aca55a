// Calls of the service.

import { withKey } from "./key.js";

// What the service would not do, in its own words. `outdated`: things had changed since they were shown.
export class Refusal extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
    this.outdated = status === 409 || status === 412;
  }
}

// GET, or POST with a body: an object, or JSON as text.
/** @param {string} path @param {unknown} [body] */
export async function call(path, body) {
  const request = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  };
  const response = await withKey(path, request);
  const answer = await response.json().catch(() => null);
  if (!response.ok || answer === null) {
    throw new Refusal(response.status, answer?.detail ?? `Something answered with ${response.status} and no reason.`);
  }
  return answer;
}
