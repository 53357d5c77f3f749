// The filter box: says while one types whether the filter can be, completes fields, remembers what was asked.

import { debounced, el, memory, visible } from "./packets-dom.js";
import { isStale } from "./packets-api.js";

const RECENT = 12;
const CHECK_MS = 130;
const COMPLETE_MS = 90;
const TIME = /frame\.time_(epoch|relative) >= (-?[0-9.]+) && frame\.time_\1 <= (-?[0-9.]+)/;

/**
 * A filter and another one as one.
 * @param {string} now
 * @param {string} more
 * @param {string} how "only", "not", "and", "and not", "or"
 */
export function combined(now, more, how) {
  const [left, right] = [grouped(now.trim()), grouped(more)];
  if (how === "only") return more;
  if (how === "not") return `!(${more})`;
  if (how === "or") return left ? `${/&&|\band\b/i.test(left) && !isWhole(left) ? `(${left})` : left} || ${right}` : more;
  if (how === "and not") return left ? `${left} && !(${more})` : `!(${more})`;
  return left ? `${left} && ${right}` : more;
}

/** In brackets where another operator could tear it apart. @param {string} filter */
const grouped = (filter) => (/\|\||\bor\b|\bxor\b/i.test(filter) && !(filter.startsWith("(") && isWhole(filter)) ? `(${filter})` : filter);

/**
 * The span of time in a filter, in seconds since the first packet.
 * @param {string} filter
 * @param {number} startNs when the first packet was
 * @returns {[number, number] | null}
 */
export function timeIn(filter, startNs) {
  const found = TIME.exec(filter);
  if (!found) return null;
  if (found[1] === "relative") return [Number(found[2]), Number(found[3])];
  return startNs ? [sinceNs(found[2], startNs) / 1e9, sinceNs(found[3], startNs) / 1e9] : null;
}

/**
 * The filter with another span of time; null for none. Written as time of day: that holds in any file and any window.
 * @param {string} filter
 * @param {[number, number] | null} span seconds since the first packet
 * @param {number} startNs
 */
export function withTime(filter, span, startNs) {
  const words = span ? `frame.time_epoch >= ${epoch(span[0], startNs)} && frame.time_epoch <= ${epoch(span[1], startNs)}` : "";
  let rest = filter.trim();
  if (TIME.test(rest)) {
    if (span) return rest.replace(TIME, words);
    rest = rest.replace(new RegExp(`\\s*&&\\s*${TIME.source}`), "").replace(new RegExp(`${TIME.source}(\\s*&&\\s*)?`), "").trim();
    return /^\(.*\)$/.test(rest) && isWhole(rest) ? rest.slice(1, -1) : rest;
  }
  return span ? combined(rest, words, "and") : rest;
}

/** Whether the first bracket is closed by the last one. @param {string} filter */
function isWhole(filter) {
  let depth = 0;
  for (let i = 0; i < filter.length; i++) {
    if (filter[i] === "(") depth++;
    else if (filter[i] === ")" && --depth === 0) return i === filter.length - 1;
  }
  return false;
}

// Nanoseconds since 1970 are more than a number here can count exactly: seconds and the rest are kept apart.

/**
 * @param {number} second since the first packet
 * @param {number} startNs
 */
function epoch(second, startNs) {
  const us = (BigInt(Math.round(startNs)) + BigInt(Math.round(second * 1e9))) / 1000n;
  const rest = String(us % 1_000_000n).padStart(6, "0").replace(/0+$/, "");
  return `${us / 1_000_000n}${rest ? `.${rest}` : ""}`;
}

/**
 * @param {string} text seconds since 1970
 * @param {number} startNs
 */
function sinceNs(text, startNs) {
  const [whole, rest = ""] = text.split(".");
  try {
    return Number(BigInt(whole || "0") * 1_000_000_000n + BigInt(rest.slice(0, 9).padEnd(9, "0")) - BigInt(Math.round(startNs)));
  } catch {
    return 0; // no number after all
  }
}

export class FilterBox {
  #state = "";
  /** @type {AbortController | null} */ #checking = null;
  /** @type {AbortController | null} */ #completing = null;
  /** @type {{text: string, insert: string, whole: boolean}[]} */ #choices = [];
  #at = -1;

  /**
   * @param {{form: HTMLFormElement, input: HTMLInputElement, list: HTMLElement, message: HTMLElement, clear: HTMLButtonElement}} parts
   * @param {{
   *   check: (filter: string, signal: AbortSignal) => Promise<{ok: boolean, message: string, warning: string}>,
   *   complete: (prefix: string, signal: AbortSignal) => Promise<{fields: {name: string, type: string, description: string}[]}>,
   *   onApply: (filter: string) => void,
   *   onLeave: () => void,
   *   onProblem: (error: unknown) => void,
   *   onFine: () => void,
   * }} world
   */
  constructor(parts, world) {
    Object.assign(this, parts);
    this.form = parts.form;
    this.input = parts.input;
    this.list = parts.list;
    this.message = parts.message;
    this.world = world;
    this.#check = debounced(CHECK_MS, () => void this.check());
    this.#complete = debounced(COMPLETE_MS, () => void this.#suggest());
    this.input.addEventListener("input", () => {
      this.#show("checking", "");
      this.#check();
      this.#complete();
    });
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => setTimeout(() => this.#close(), 120));
    this.input.addEventListener("click", () => this.input.value === "" && this.#offerRecent());
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.apply();
    });
    parts.clear.addEventListener("click", () => {
      this.input.value = "";
      this.#show("", "");
      this.world.onApply("");
      this.input.focus();
    });
    this.list.addEventListener("mousedown", (event) => {
      event.preventDefault(); // the box keeps the focus
      const option = /** @type {HTMLElement} */ (event.target).closest("[role=option]");
      if (option instanceof HTMLElement) this.#take(Number(option.dataset.index));
    });
  }

  #check;
  #complete;

  get value() {
    return this.input.value.trim();
  }

  /** What is shown is what is applied. @param {string} filter */
  set(filter) {
    this.#check.cancel();
    this.#complete.cancel();
    this.#checking?.abort();
    this.input.value = filter;
    this.#show(filter ? "ok" : "", "");
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  /** The server says no to what was applied. @param {string} message */
  refuse(message) {
    this.#show("bad", message);
  }

  /**
   * Ask whether what is typed can be a filter; the latest answer counts.
   * @returns {Promise<boolean | null>} null where nobody knows
   */
  async check() {
    const filter = this.value;
    this.#checking?.abort();
    if (filter === "") {
      this.#show("", "");
      return true;
    }
    const stop = (this.#checking = new AbortController());
    try {
      const said = await this.world.check(filter, stop.signal);
      if (stop.signal.aborted || this.value !== filter) return null;
      this.world.onFine();
      this.#show(said.ok ? (said.warning ? "warn" : "ok") : "bad", said.ok ? said.warning : said.message);
      return said.ok;
    } catch (error) {
      if (isStale(error)) return null;
      this.#show("", "");
      this.world.onProblem(error);
      return null;
    }
  }

  /** Show the packets that match, or say why not. */
  async apply() {
    this.#close();
    this.#check.cancel();
    const filter = this.value;
    if ((await this.check()) === false) return;
    if (this.value !== filter) return;
    if (filter) memory.set("filters", [filter, ...this.recent.filter((each) => each !== filter)].slice(0, RECENT));
    this.world.onApply(filter);
    this.world.onLeave();
  }

  /** @returns {string[]} */
  get recent() {
    const kept = memory.get("filters", []);
    return Array.isArray(kept) ? kept.filter((each) => typeof each === "string") : [];
  }

  /**
   * @param {string} state "", "checking", "ok", "warn" or "bad"
   * @param {string} message
   */
  #show(state, message) {
    if (state === "checking" && this.#state !== "") state = this.#state; // no flicker from key to key
    this.#state = state;
    this.form.dataset.state = state;
    if (state === "bad") this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
    const said = visible(message.replace(/^Filter invalid - /, ""));
    if (this.message.textContent !== said) this.message.textContent = said;
    this.message.hidden = said === "";
  }

  // --------------------------------------------------------------------------------------- completion

  /** The word before the caret that may be a field. */
  get #word() {
    const before = this.input.value.slice(0, this.input.selectionStart ?? this.input.value.length);
    const quotes = before.split('"').length - 1;
    return quotes % 2 ? "" : (/[a-z_][a-z0-9_.-]*$/i.exec(before)?.[0] ?? "");
  }

  async #suggest() {
    const word = this.#word;
    this.#completing?.abort();
    if (this.input.value === "") return this.#offerRecent();
    if (word.length < 2 || document.activeElement !== this.input) return this.#close();
    const stop = (this.#completing = new AbortController());
    try {
      const { fields } = await this.world.complete(word, stop.signal);
      if (stop.signal.aborted || this.#word !== word) return;
      const sorted = fields.filter((each) => each.name !== word).sort((a, b) => a.name.length - b.name.length || (a.name < b.name ? -1 : 1));
      this.#offer(sorted.slice(0, 40).map((each) => ({ text: each.name, note: each.description, insert: each.name, whole: false })), "Fields");
    } catch (error) {
      if (!isStale(error)) this.#close(); // one can type without
    }
  }

  #offerRecent() {
    this.#offer(this.recent.map((each) => ({ text: each, note: "", insert: each, whole: true })), "Recent filters");
  }

  /**
   * @param {{text: string, note: string, insert: string, whole: boolean}[]} choices
   * @param {string} name
   */
  #offer(choices, name) {
    this.#choices = choices;
    this.#at = -1;
    this.list.setAttribute("aria-label", name);
    this.list.replaceChildren(...choices.map((each, i) => el("li", { role: "option", id: `choice-${i}`, "aria-selected": "false", data: { index: String(i) } },
      el("span", { class: "choice", text: visible(each.text) }), each.note && el("span", { class: "soft", text: ` ${visible(each.note)}` }))));
    this.#toggle(choices.length > 0);
  }

  #close() {
    this.#completing?.abort();
    this.#toggle(false);
  }

  /** @param {boolean} open */
  #toggle(open) {
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
    if (!open) {
      this.#at = -1;
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  /** @param {number} at */
  #mark(at) {
    const options = /** @type {HTMLElement[]} */ ([...this.list.children]);
    options[this.#at]?.setAttribute("aria-selected", "false");
    this.#at = at;
    const marked = options[at];
    if (!marked) return this.input.removeAttribute("aria-activedescendant");
    marked.setAttribute("aria-selected", "true");
    marked.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", marked.id);
  }

  /** @param {number} index */
  #take(index) {
    const choice = this.#choices[index];
    if (!choice) return;
    if (choice.whole) this.input.value = choice.insert;
    else {
      const caret = this.input.selectionStart ?? this.input.value.length;
      const start = caret - this.#word.length;
      this.input.setRangeText(choice.insert, start, caret, "end");
    }
    this.#close();
    this.#check.now();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const open = !this.list.hidden;
    const count = this.#choices.length;
    if (event.key === "ArrowDown" && !open) this.input.value === "" ? this.#offerRecent() : void this.#suggest();
    else if (event.key === "ArrowDown" && open) this.#mark((this.#at + 1) % count);
    else if (event.key === "ArrowUp" && open) this.#mark(this.#at <= 0 ? count - 1 : this.#at - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && open && this.#at >= 0) this.#take(this.#at);
    else if (event.key === "Escape" && open) this.#close();
    else if (event.key === "Escape") this.world.onLeave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
