// Calls of the service.

import { withKey } from "./key.js";

// A refusal of the service, with its message. `outdated`: the task has changed since the page showed it.
export class Refusal extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
    this.outdated = status === 409 || status === 412;
  }
}

/**
 * Parse JSON. An integer that JavaScript would round keeps its digits, and JSON.stringify writes them unchanged.
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

// Send GET, or POST with a body: an object, or JSON as text. Return the parsed answer.
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
    throw new Refusal(response.status, answer?.detail ?? `The service answered ${response.status} and gave no reason.`);
  }
  return answer;
}
