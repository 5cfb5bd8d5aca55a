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

/**
 * What JSON says. An integer that JavaScript would round keeps its digits, and JSON.stringify writes them as they came.
 * @param {string} text
 */
function exact(text) {
  const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
  /** @type {(name: string, value: unknown, context?: { source?: string }) => unknown} */
  const keep = (_, value, context) => {
    const digits = context?.source ?? "";
    const rounded = typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(digits);
    return rounded && rawJSON ? rawJSON(digits) : value;
  };
  return JSON.parse(text, keep);
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
  const answer = await response.text().then(exact).catch(() => null);
  if (!response.ok || answer === null) {
    throw new Refusal(response.status, answer?.detail ?? `Something answered with ${response.status} and no reason.`);
  }
  return answer;
}
