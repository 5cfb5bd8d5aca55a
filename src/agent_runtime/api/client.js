// A client of Agent Runtime in one file, for browsers and for Node 22 and newer. The service has it at /client.js, and
// docs/reference/javascript-client.md describes it. It needs nothing else.

/**
 * @typedef {object} Frame A frame of the stream of a task. `event` is "message" for a log line, and `data` is then the
 *   line; otherwise `data` is JSON. `id` is where to resume; progress of models and calls has none.
 * @property {string} id
 * @property {string} event
 * @property {string} data
 *
 * @typedef {(url: string, request: RequestInit) => Promise<Response>} Fetch
 *
 * @typedef {object} ClientOptions
 * @property {string} [key] The API key, sent with every request.
 * @property {Fetch} [fetch] Sends a request in place of the global `fetch`.
 * @property {number} [awayMs] The milliseconds that the service may be away while a task is followed; 30,000.
 */

// Milliseconds without data after which a stream counts as lost: the service sends a comment every 15 s.
const SILENCE_MS = 40_000;
const AWAY_MS = 30_000;
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;
const PROBLEM = "urn:agent-runtime:problem:";

// The events after which a task may wait for a person.
const ASKING = new Set([
  "plan.proposed", "plan.edited", "plan.repinned", "plan.revision_failed",
  "call.approval_requested", "step.outcome_unknown", "input.requested",
]);

/** There is no answer. What the request did is unknown. */
export class ServiceUnreachableError extends Error {
  name = "ServiceUnreachableError";
}

/** The service refused the request. `message` is its text for people. */
export class ApiError extends Error {
  name = "ApiError";

  /** @param {number} status @param {any} problem @param {string | null} [retryAfter] */
  constructor(status, problem, retryAfter = null) {
    super(problem?.detail ?? `The service answered ${status} and gave no reason.`);
    this.status = status;
    const type = String(problem?.type ?? "");
    this.code = type.startsWith(PROBLEM) ? type.slice(PROBLEM.length) : "";
    /** @type {{ field: string, message: string }[]} Each fault of the request. */
    this.errors = problem?.errors ?? [];
    /** @type {string | null} */
    this.taskStatus = problem?.task_status ?? null;
    /** @type {string} */
    this.requestId = problem?.request_id ?? "";
    this.retryAfter = retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
  }

  /** True if the task is not as the request expects: read it again. */
  get isConflict() {
    return [409, 412, 428].includes(this.status);
  }

  /** True if the service cannot accept the request now: try again after `retryAfter` seconds. */
  get isTemporary() {
    return [429, 502, 503, 504].includes(this.status);
  }
}

/**
 * Parse JSON. An integer that JavaScript would round keeps its digits, and JSON.stringify writes them unchanged.
 * @param {string} text @returns {any}
 */
export function parseExactly(text) {
  const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
  /** @type {(name: string, value: unknown, context?: { source?: string }) => unknown} */
  const keep = (_, value, context) => {
    const digits = context?.source ?? "";
    const rounded = typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(digits);
    return rounded && rawJSON ? rawJSON(digits) : value;
  };
  return JSON.parse(text, keep);
}

/** Return true if the task has ended, or does nothing until a person decides. @param {any} task */
const isSettled = (task) =>
  task.terminal || (["awaiting_approval", "needs_attention"].includes(task.status) && !task.cancel_requested);

/** @param {unknown} error */
const mayPass = (error) => error instanceof ServiceUnreachableError || (error instanceof ApiError && error.isTemporary);

/** Wait, unless the signal is or becomes aborted; then throw its reason. @param {number} ms @param {AbortSignal} [signal] */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve(undefined);
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** When to try again while the service is away: after pauses that grow, until `awayMs` are over. */
class Retries {
  /** @param {number} awayMs @param {AbortSignal} [signal] */
  constructor(awayMs, signal) {
    this.awayMs = awayMs;
    this.signal = signal;
    this.giveUpAt = Date.now() + awayMs;
    this.pauseMs = FIRST_PAUSE_MS;
  }

  /** Begin anew, because the service has answered. */
  restart() {
    this.giveUpAt = Date.now() + this.awayMs;
    this.pauseMs = FIRST_PAUSE_MS;
  }

  /** Wait for the next try. Throws the error if it is final or the service was away too long. @param {unknown} [error] */
  async after(error) {
    if (error !== undefined && (!mayPass(error) || Date.now() >= this.giveUpAt)) throw error;
    const asked = error instanceof ApiError && error.retryAfter !== null ? 1000 * error.retryAfter : 0;
    const ms = Math.max(this.pauseMs, asked);
    this.pauseMs = Math.min(2 * this.pauseMs, LONGEST_PAUSE_MS);
    await pause(error === undefined ? ms : Math.max(0, Math.min(ms, this.giveUpAt - Date.now())), this.signal);
  }
}

/** Split text of a stream into frames, by the HTML standard. */
class FrameReader {
  rest = "";
  /** @type {Record<string, string>} */
  fields = {};

  /** Yield the frames that are complete with this text. @param {string} text */
  *read(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line) {
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        this.fields[name] = name === "data" && "data" in this.fields ? `${this.fields.data}\n${value}` : value;
        continue;
      }
      const { id = "", event = "message", data } = this.fields;
      this.fields = {};
      if (data !== undefined) yield { id, event, data };
    }
  }
}

const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Calls a service. Every method throws `ApiError` or `ServiceUnreachableError`. */
export class Client {
  /**
   * @param {string} [url] The address of the service; by default that of the page.
   * @param {ClientOptions} [options]
   */
  constructor(url = ".", { key = "", fetch = globalThis.fetch.bind(globalThis), awayMs = AWAY_MS } = {}) {
    this.url = url.replace(/\/$/, "");
    this.key = key;
    this.fetch = fetch;
    this.awayMs = awayMs;
  }

  /**
   * Send a request, and return its response, which is not a refusal.
   * @param {string} method @param {string} path
   * @param {{ body?: unknown, headers?: Record<string, string>, signal?: AbortSignal }} [more]
   */
  async send(method, path, { body, headers = {}, signal } = {}) {
    /** @type {RequestInit} */
    const request = { method, headers: { ...headers }, signal };
    const sent = /** @type {Record<string, string>} */ (request.headers);
    if (this.key) sent.Authorization = `Bearer ${this.key}`;
    if (body !== undefined) {
      sent["Content-Type"] = "application/json";
      request.body = typeof body === "string" ? body : JSON.stringify(body);
    }
    let response;
    try {
      response = await this.fetch(`${this.url}${path}`, request);
    } catch (error) {
      throw this.#lost(error, signal);
    }
    if (response.ok) return response;
    const problem = await response.text().then(JSON.parse).catch(() => null);
    throw new ApiError(response.status, problem, response.headers.get("Retry-After"));
  }

  /** @param {unknown} error @param {AbortSignal} [signal] */
  #lost(error, signal) {
    if (signal?.aborted) return signal.reason;
    const { message, cause } = /** @type {Error} */ (error);
    const reason = cause instanceof Error && cause.message ? cause.message : message;
    return new ServiceUnreachableError(`The service cannot be reached: ${reason}.`, { cause: error });
  }

  /**
   * Send GET, or POST with a body: an object, or JSON as text. Return the parsed answer.
   * @param {string} path @param {unknown} [body] @param {Record<string, string>} [headers] @returns {Promise<any>}
   */
  async call(path, body, headers) {
    return this.#parse(await this.send(body === undefined ? "GET" : "POST", path, { body, headers }));
  }

  /** @param {Response} response @returns {Promise<any>} */
  async #parse(response) {
    let text;
    try {
      text = await response.text();
    } catch (error) {
      throw this.#lost(error);
    }
    try {
      return parseExactly(text);
    } catch {
      throw new ServiceUnreachableError(`The answer of ${response.url} is not JSON; is it an Agent Runtime?`);
    }
  }

  /** @param {string} id @param {string[]} more */
  #path(id, ...more) {
    return ["/v1/tasks", ...[id, ...more].map(encodeURIComponent)].join("/");
  }

  /**
   * Create a task, which is sent again if the answer is lost: the key makes sure that there is one task.
   * @param {string} path @param {object} body @param {string} idempotencyKey
   */
  async #create(path, body, idempotencyKey) {
    const headers = { "Idempotency-Key": idempotencyKey };
    try {
      return await this.call(path, body, headers);
    } catch (error) {
      if (!(error instanceof ServiceUnreachableError)) throw error;
    }
    return this.call(path, body, headers);
  }

  /**
   * Submit a task. `options` are the other fields of the request, such as `plan`.
   * @param {string} prompt @param {Record<string, unknown> & { idempotencyKey?: string }} [options]
   * @returns {Promise<{ task_id: string, status: string }>}
   */
  submit(prompt, { idempotencyKey = newKey(), ...options } = {}) {
    return this.#create("/v1/tasks", { prompt, ...options }, idempotencyKey);
  }

  /**
   * Run a finished task again, as a new task.
   * @param {string} id @param {"start" | "failed_step"} [from] @param {{ idempotencyKey?: string }} [options]
   * @returns {Promise<{ task_id: string, status: string }>}
   */
  rerun(id, from = "start", { idempotencyKey = newKey() } = {}) {
    return this.#create(this.#path(id, "rerun"), { from }, idempotencyKey);
  }

  /** @param {string} id @returns {Promise<TaskView>} */
  getTask(id) {
    return this.call(this.#path(id));
  }

  /**
   * Return a page of tasks, newest first.
   * @param {{ status?: string, q?: string, limit?: number, cursor?: string | null }} [query]
   * @returns {Promise<PageView>}
   */
  listTasks(query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    return this.call(`/v1/tasks?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}`);
  }

  /** Delete a task that has ended. @param {string} id */
  async deleteTask(id) {
    await this.send("DELETE", this.#path(id));
  }

  /** Return all that an audit of the task needs. @param {string} id @returns {Promise<any>} */
  exportAudit(id) {
    return this.call(`${this.#path(id)}/audit`);
  }

  /** Return an image in a result of the task, which `tool.returned` names. @param {string} id @param {string} digest */
  async loadImage(id, digest) {
    const response = await this.send("GET", this.#path(id, "images", digest));
    return response.blob().catch((error) => { throw this.#lost(error); });
  }

  /** Return the whole catalogue. @returns {Promise<any[]>} */
  async listTools() {
    const tools = [];
    for (let cursor = ""; ;) {
      const page = await this.call(`/v1/tools${cursor && `?cursor=${encodeURIComponent(cursor)}`}`);
      tools.push(...page.tools);
      if (page.next_cursor === null) return tools;
      cursor = page.next_cursor;
    }
  }

  /**
   * Send a decision about a task: `approve`, `calls/ID/deny` and so on, as the reference of the API names them.
   * @param {string} id @param {string} verb @param {object | string} body An object, or JSON as text.
   * @returns {Promise<any>}
   */
  decide(id, verb, body = {}) {
    return this.call(`${this.#path(id)}/${verb}`, body);
  }

  /**
   * Approve the plan with this digest, which then runs. Without a digest, only revision 1 can be approved.
   * @param {string} id @param {string | null} [digest] @param {string} [comment]
   */
  approve(id, digest, comment) {
    return this.decide(id, "approve", { plan_digest: digest ?? undefined, comment });
  }

  /** Reject the plan, which ends the task. @param {string} id @param {string} [reason] */
  reject(id, reason) {
    return this.decide(id, "reject", { reason });
  }

  /** Have the task planned again. @param {string} id @param {string} feedback */
  revise(id, feedback) {
    return this.decide(id, "revise", { feedback });
  }

  /** Replace the plan with this digest. @param {string} id @param {object} plan @param {string} digest */
  async edit(id, plan, digest) {
    const headers = { "If-Match": `"${digest}"` };
    return this.#parse(await this.send("PUT", this.#path(id, "plan"), { body: plan, headers }));
  }

  /** Cancel the task. No call starts after the answer. @param {string} id @param {string} [reason] */
  cancel(id, reason) {
    return this.decide(id, "cancel", { reason });
  }

  /**
   * Let a call be sent with exactly the arguments of this digest, or with edited ones, which takes the scope submit too.
   * @param {string} id @param {string} callId @param {string} argumentsDigest @param {string} [comment]
   * @param {object} [editedArguments]
   */
  approveCall(id, callId, argumentsDigest, comment, editedArguments) {
    const body = { arguments_digest: argumentsDigest, comment, edited_arguments: editedArguments };
    return this.decide(id, `calls/${encodeURIComponent(callId)}/approve`, body);
  }

  /**
   * Deny a call. Its step fails, and steps that need it are skipped.
   * @param {string} id @param {string} callId @param {string} argumentsDigest @param {string} [comment]
   */
  denyCall(id, callId, argumentsDigest, comment) {
    return this.decide(id, `calls/${encodeURIComponent(callId)}/deny`, { arguments_digest: argumentsDigest, comment });
  }

  /** Answer a question of a server, or decline it with null. @param {string} id @param {string} questionId @param {object | null} content */
  answer(id, questionId, content) {
    const body = content === null ? { action: "decline" } : { action: "accept", content };
    return this.decide(id, `answers/${encodeURIComponent(questionId)}`, body);
  }

  /** Dismiss a question of a server: it learns that you neither answered nor declined. @param {string} id @param {string} questionId */
  dismiss(id, questionId) {
    return this.decide(id, `answers/${encodeURIComponent(questionId)}`, { action: "cancel" });
  }

  /**
   * Say what became of a call of unknown outcome. `more` has `call_id`, `output` and `comment`.
   * @param {string} id @param {string} stepId @param {"done" | "retry" | "skip" | "fail"} resolution @param {object} [more]
   */
  resolve(id, stepId, resolution, more = {}) {
    return this.decide(id, "resolve", { step_id: stepId, resolution, ...more });
  }

  /**
   * Yield every frame of the task after the frame with the id `after`, each once, until the task ends.
   *
   * A lost connection, a restart of the service and a refusal for the moment (503) are waited for, and the stream goes
   * on after the last frame. The signal ends it with the reason of the signal.
   * @param {string} id @param {{ after?: string, signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<Frame, void, void>}
   */
  follow(id, { after = "", signal } = {}) {
    return this.#resume(`${this.#path(id)}/stream`, { after, signal });
  }

  /**
   * Yield every frame of the feed of all tasks after the frame with the id `after`, each once, without end. By default
   * it begins with what comes from now on. It waits as `follow` does, and calls `told` with each change of the
   * connection: null when it is there, and the error when it is lost.
   * @param {{ after?: string, signal?: AbortSignal, told?: (lost: unknown) => void }} [options]
   * @returns {AsyncGenerator<Frame, void, void>}
   */
  followAll({ after = "", signal, told } = {}) {
    return this.#resume("/v1/events/stream?after=newest", { after, signal, told });
  }

  /**
   * @param {string} path @param {{ after: string, signal?: AbortSignal, told?: (lost: unknown) => void }} options
   * @returns {AsyncGenerator<Frame, void, void>}
   */
  async *#resume(path, { after, signal, told }) {
    const retries = new Retries(this.awayMs, signal);
    let last = after;
    for (;;) {
      let lost;
      try {
        for await (const frame of this.#frames(path, last, retries, told)) {
          if (frame.event === "message" && frame.data === "[DONE]") return;
          last = frame.id || last;
          yield frame;
        }
      } catch (error) {
        lost = error;
      }
      told?.(lost ?? new ServiceUnreachableError("The service closed the stream."));
      await retries.after(lost);
    }
  }

  /**
   * Yield the frames of one connection, until it is lost.
   * @param {string} path @param {string} last @param {Retries} retries @param {(lost: unknown) => void} [told]
   * @returns {AsyncGenerator<Frame, void, void>}
   */
  async *#frames(path, last, retries, told) {
    const ended = new AbortController();
    const signal = retries.signal ? AbortSignal.any([retries.signal, ended.signal]) : ended.signal;
    const silent = () => ended.abort(new ServiceUnreachableError("The stream was silent for too long."));
    let timer = setTimeout(silent, SILENCE_MS);
    try {
      const headers = last ? { "Last-Event-ID": last } : undefined;
      const response = await this.send("GET", path, { headers, signal });
      retries.restart();
      told?.(null);
      if (response.status === 204 || !response.body) {
        yield { id: "", event: "message", data: "[DONE]" };
        return;
      }
      const body = response.body.getReader();
      const decoder = new TextDecoder();
      const reader = new FrameReader();
      for (;;) {
        const { done, value } = await body.read().catch((error) => { throw this.#lost(error, signal); });
        clearTimeout(timer);
        if (done) return;
        timer = setTimeout(silent, SILENCE_MS);
        yield* reader.read(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(timer);
      ended.abort();
    }
  }

  /**
   * Return the task as soon as it has ended or waits for a person. `AbortSignal.timeout(ms)` bounds the wait.
   * @param {string} id @param {{ signal?: AbortSignal }} [options]
   */
  async wait(id, { signal } = {}) {
    let task = await this.#untilAnswered(id, signal);
    if (isSettled(task)) return task;
    let asks = false;
    for await (const { event } of this.follow(id, { signal })) {
      if (!ASKING.has(event) && !(asks && event !== "message")) continue;
      task = await this.#untilAnswered(id, signal);
      if (isSettled(task)) return task;
      asks = task.attention.length > 0;
    }
    return this.#untilAnswered(id, signal);
  }

  /** Return the task; ask again while the service is away. @param {string} id @param {AbortSignal} [signal] */
  async #untilAnswered(id, signal) {
    const retries = new Retries(this.awayMs, signal);
    for (;;) {
      try {
        return await this.getTask(id);
      } catch (error) {
        await retries.after(error);
      }
    }
  }
}
