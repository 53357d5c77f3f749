// The strip that says what does not work, tries again by itself, and goes when all is well.
//
// Every part that could not load leaves its retry here under its own name. The place, the selection and whatever is
// being typed stay as they are: nothing is torn down when the server is away.

import { el } from "./packets-dom.js";
import { Problem } from "./packets-api.js";

const WAITS = [1, 2, 4, 8, 15]; // seconds
const WEIGHT = { session: 4, network: 3, busy: 2, broken: 1, refused: 0 };

export class Trouble {
  /** @type {Map<string, {problem: Problem, retry: () => unknown}>} */ #open = new Map();
  /** @type {ReturnType<typeof setInterval> | undefined} */ #timer;
  #tries = 0;
  #left = 0;

  /** @param {HTMLElement} strip */
  constructor(strip) {
    this.strip = strip;
    this.text = el("span", { class: "trouble-text", role: "alert" });
    this.count = el("span", { class: "soft", "aria-hidden": "true" });
    this.again = el("button", { type: "button", text: "Try again", on: { click: () => this.now() } });
    this.signIn = el("a", { href: "/signin", target: "_blank", rel: "noopener", text: "Sign in again in a new tab" });
    strip.append(this.text, this.signIn, this.count, this.again);
    addEventListener("online", () => this.now());
    addEventListener("focus", () => this.#worst()?.kind === "session" && this.now());
  }

  /** Whether something is wrong now. */
  get isOpen() {
    return this.#open.size > 0;
  }

  /**
   * @param {string} name of the part that could not load
   * @param {unknown} error
   * @param {() => unknown} retry
   */
  report(name, error, retry) {
    const problem = error instanceof Problem ? error : new Problem("broken", "Something failed in this page.", { hint: String(error) });
    if (!(error instanceof Problem)) console.error(error);
    this.#open.set(name, { problem, retry });
    this.#show();
  }

  /** @param {string} name of the part that has loaded */
  fine(name) {
    if (!this.#open.delete(name)) return;
    if (this.#open.size === 0) this.#tries = 0;
    this.#show();
  }

  /** Try everything again at once. */
  now() {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.count.textContent = " Trying …";
    for (const { retry } of [...this.#open.values()]) retry();
  }

  #worst() {
    return [...this.#open.values()].map((each) => each.problem).sort((a, b) => WEIGHT[b.kind] - WEIGHT[a.kind])[0];
  }

  #show() {
    const worst = this.#worst();
    this.strip.hidden = worst === undefined;
    clearInterval(this.#timer);
    this.#timer = undefined;
    if (worst === undefined) {
      this.text.textContent = "";
      return;
    }
    const kept = worst.kind === "network" || worst.kind === "session" ? " Your place and your words are kept." : "";
    const said = `${capital(worst.message)}${/[.!?]$/.test(worst.message) ? "" : "."}${worst.hint ? ` ${capital(worst.hint)}.` : ""}${kept}`;
    if (this.text.textContent !== said) this.text.textContent = said;
    this.signIn.hidden = worst.kind !== "session";
    this.signIn.setAttribute("href", `/signin?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`);
    this.again.hidden = worst.kind === "refused";
    this.count.textContent = "";
    if (worst.kind !== "network" && worst.kind !== "busy") return;
    this.#left = Math.max(WAITS[Math.min(this.#tries, WAITS.length - 1)], Math.min(worst.after, 30));
    this.#tries++;
    const tick = () => {
      this.count.textContent = ` Trying again in ${this.#left} s`;
      if (this.#left-- <= 0) this.now();
    };
    tick();
    this.#timer = setInterval(tick, 1000);
  }
}

/** @param {string} text */
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
