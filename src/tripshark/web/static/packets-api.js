// What the server is asked, and what can be wrong when it does not answer.

/** @typedef {{number: number, columns: string[], background: string, foreground: string, alert: boolean, comments: string[], marked: boolean, time_ns: number}} Frame */
/** @typedef {{first_ns: number, last_ns: number, first: number, last: number, before: number, after: number, notice: string}} Window */
/** @typedef {{columns: string[], frames: Frame[], total: number, matched: number | null, window: Window | null}} Page */
/** @typedef {{label: string, offset: number | null, length: number | null, filter: string, severity: string, generated: boolean, source?: number, children: Node[]}} Node */
/** @typedef {{name: string, bytes: string}} Source */
/** @typedef {{number: number, tree: Node[], bytes: string, sources: Source[], comments: string[], truncated: boolean, follow: {proto: string, filter: string, stream: number}[]}} Packet */
/** @typedef {{start_ns: number, step_ns: number, packets: number[], bytes: number[]}} Intervals */
/** @typedef {{frame: number, from: "client" | "server", data: string}} Chunk */
/** @typedef {{client: string, server: string, chunks: Chunk[], truncated: boolean}} Stream */
/** @typedef {{id: string, file: string, frame: number, text: string, by: string, at: string}} Note */

const PATIENCE_MS = 60_000; // a filter over a large file takes seconds; this is more than the server allows itself

/**
 * Why there is no answer.
 *
 * `kind` is what the reader can do: "network" and "busy" are tried again by themselves, "session" wants a sign-in,
 * "refused" is about what was asked, "broken" is the server's own fault.
 */
export class Problem extends Error {
  /**
   * @param {"network" | "busy" | "session" | "refused" | "broken"} kind
   * @param {string} message
   * @param {{hint?: string, status?: number, code?: string, after?: number}} [more]
   */
  constructor(kind, message, { hint = "", status = 0, code = "", after = 0 } = {}) {
    super(message);
    this.kind = kind;
    this.hint = hint;
    this.status = status;
    this.code = code;
    this.after = after; // seconds
  }
}

/** @param {unknown} error */
export const isStale = (error) => error instanceof DOMException && error.name === "AbortError";

export class Api {
  /**
   * @param {string} incident
   * @param {string} file
   */
  constructor(incident, file) {
    this.base = `/v1/incidents/${encodeURIComponent(incident)}`;
    this.file = file;
    /** @type {Record<string, string>} where in a large file one looks; {} is around the alert */
    this.around = {};
    this.csrf = /** @type {HTMLMetaElement | null} */ (document.querySelector('meta[name="csrf"]'))?.content ?? "";
  }

  /**
   * @param {{filter: string, skip: number, limit: number}} asked
   * @param {AbortSignal} [signal]
   * @returns {Promise<Page>}
   */
  packets({ filter, skip, limit }, signal) {
    return this.get("packets", { filter, skip, limit }, signal);
  }

  /**
   * @param {number} number
   * @param {AbortSignal} [signal]
   * @returns {Promise<Packet>}
   */
  packet(number, signal) {
    return this.get(`packets/${number}`, {}, signal);
  }

  /**
   * @param {string} filter
   * @param {AbortSignal} [signal]
   * @returns {Promise<{ok: boolean, message: string, warning: string}>}
   */
  check(filter, signal) {
    return this.get("filter", { filter }, signal);
  }

  /**
   * @param {string} prefix
   * @param {AbortSignal} [signal]
   * @returns {Promise<{fields: {name: string, type: string, description: string}[]}>}
   */
  complete(prefix, signal) {
    return this.get("complete", { prefix }, signal);
  }

  /**
   * @param {string} filter
   * @param {number} stepMs 0: as fits
   * @param {AbortSignal} [signal]
   * @returns {Promise<Intervals>}
   */
  intervals(filter, stepMs, signal) {
    return this.get("intervals", { filter, step_ms: stepMs || "" }, signal);
  }

  /**
   * @param {string} proto
   * @param {number} stream
   * @param {AbortSignal} [signal]
   * @returns {Promise<Stream>}
   */
  follow(proto, stream, signal) {
    return this.get("follow", { proto, stream }, signal);
  }

  /** @returns {Promise<Note[]>} those of this file */
  async notes() {
    const answer = await this.#ask("GET", `${this.base}/notes`);
    return (answer.notes ?? []).filter((/** @type {Note} */ note) => note.file === this.file);
  }

  /**
   * @param {number} frame
   * @param {string} text
   * @returns {Promise<Note>}
   */
  addNote(frame, text) {
    return this.#ask("POST", `${this.base}/notes`, { body: { file: this.file, frame, text } });
  }

  /** @param {string} id */
  async removeNote(id) {
    await this.#ask("DELETE", `${this.base}/notes/${encodeURIComponent(id)}`);
  }

  /**
   * @param {string} what
   * @param {Record<string, string | number>} asked
   * @param {AbortSignal} [signal]
   */
  get(what, asked, signal) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries({ file: this.file, ...this.around, ...asked })) {
      if (value !== "") query.set(key, String(value));
    }
    return this.#ask("GET", `${this.base}/${what}?${query}`, { signal });
  }

  /**
   * @param {string} method
   * @param {string} url
   * @param {{body?: unknown, signal?: AbortSignal, again?: boolean}} [more]
   * @returns {Promise<any>}
   */
  async #ask(method, url, { body, signal, again = true } = {}) {
    const patience = new AbortController();
    const giveUp = () => patience.abort(signal?.reason);
    if (signal?.aborted) throw new DOMException("nobody waits for it", "AbortError");
    signal?.addEventListener("abort", giveUp);
    const timer = setTimeout(() => patience.abort("late"), PATIENCE_MS);
    try {
      const answer = await fetch(url, {
        method,
        signal: patience.signal,
        headers: {
          accept: "application/json",
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(method === "GET" ? {} : { "x-tripshark-csrf": this.csrf }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
        redirect: "manual",
      });
      // The API never redirects: a proxy that does wants a sign-in.
      if (answer.type === "opaqueredirect") throw new Problem("session", "Your session has ended.");
      if (answer.ok) return answer.status === 204 ? {} : await answer.json();
      const problem = await problemOf(answer);
      if (again && method !== "GET" && answer.status === 403 && (await this.#renew())) {
        return await this.#ask(method, url, { body, signal, again: false });
      }
      throw problem;
    } catch (error) {
      if (error instanceof Problem) throw error;
      if (signal?.aborted) throw new DOMException("nobody waits for it", "AbortError");
      if (patience.signal.aborted) throw new Problem("busy", "The server did not answer in time.");
      throw new Problem("network", "The server cannot be reached.");
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", giveUp);
    }
  }

  /** A session that was renewed in another tab has another CSRF value. */
  async #renew() {
    const before = this.csrf;
    try {
      const me = await this.#ask("GET", "/v1/me");
      this.csrf = String(me.csrf ?? "");
    } catch {
      return false;
    }
    return this.csrf !== before;
  }
}

/**
 * @param {Response} answer
 * @returns {Promise<Problem>}
 */
async function problemOf(answer) {
  let error = { message: "", hint: "", code: "" };
  try {
    error = { ...error, ...(await answer.json()).error };
  } catch {
    // Something between us and the server answered for it.
  }
  const after = Number(answer.headers.get("retry-after")) || 0;
  const more = { hint: error.hint, status: answer.status, code: error.code, after };
  const said = error.message || `The server answers ${answer.status}.`;
  if (answer.status === 401) return new Problem("session", "Your session has ended.", more);
  if ([429, 502, 503, 504].includes(answer.status)) return new Problem("busy", said, more);
  if (answer.status >= 500) return new Problem("broken", said, more);
  return new Problem("refused", said, more);
}
