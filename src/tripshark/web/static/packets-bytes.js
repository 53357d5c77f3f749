// The bytes of a packet as hex and text; which byte is under the hand, and which belong to a field.

import { bytesOf, el, visible } from "./packets-dom.js";

const BLOCK = 128; // rows laid out together, only when near
const MOST = 1 << 20; // bytes shown of one source; the rest can be downloaded

/** @typedef {{source: number, offset: number, length: number}} Span */

export class Bytes {
  /** @type {Uint8Array[]} */ #sources = [];
  /** @type {string[]} */ #names = [];
  /** @type {HTMLElement[]} */ #rows = [];
  #source = 0;
  #perRow = 16;
  #cursor = -1;
  /** @type {Span | null} */ #chosen = null;
  /** @type {Span | null} */ #hovered = null;

  /**
   * @param {HTMLElement} tabs where several sources are chosen from
   * @param {HTMLElement} pane scrolls
   * @param {{onByte: (source: number, at: number, chosen: boolean) => void}} world
   */
  constructor(tabs, pane, world) {
    this.tabs = tabs;
    this.pane = pane;
    this.world = world;
    pane.addEventListener("mousemove", (event) => this.#under(event, false));
    pane.addEventListener("mouseleave", () => this.world.onByte(this.#source, -1, false));
    pane.addEventListener("click", (event) => {
      if (getSelection()?.isCollapsed !== false) this.#under(event, true);
    });
    pane.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#width()).observe(pane);
  }

  /**
   * @param {string} whole the packet as it was sent, base64: source 0
   * @param {{name: string, bytes: string}[]} sources what was put together or decrypted: 1, 2, …
   */
  show(whole, sources) {
    const given = [{ name: "Frame", bytes: whole }, ...sources];
    this.#sources = given.map((each) => bytesOf(each.bytes));
    this.#names = given.map((each) => each.name);
    this.#source = 0;
    this.#chosen = this.#hovered = null;
    this.#cursor = -1;
    this.#drawTabs();
    this.#draw();
  }

  clear() {
    this.#sources = [];
    this.#rows = [];
    this.tabs.hidden = true;
    this.pane.replaceChildren();
  }

  /**
   * These bytes belong to what is chosen; null for nothing.
   * @param {Span | null} span
   * @param {{scroll?: boolean}} [how]
   */
  choose(span, { scroll = false } = {}) {
    if (span && span.source !== this.#source && this.#sources[span.source]) {
      this.#source = span.source;
      this.#drawTabs();
      this.#draw();
    }
    const before = this.#chosen;
    this.#chosen = span;
    this.#redraw(before, span);
    if (scroll && span && span.length > 0) this.#rows[Math.floor(span.offset / this.#perRow)]?.scrollIntoView({ block: "nearest" });
  }

  /** @param {Span | null} span */
  hover(span) {
    const before = this.#hovered;
    if (before?.offset === span?.offset && before?.length === span?.length && before?.source === span?.source) return;
    this.#hovered = span;
    this.#redraw(before, span);
  }

  #drawTabs() {
    this.tabs.hidden = this.#sources.length < 2;
    if (this.tabs.hidden) return this.tabs.replaceChildren();
    const pick = (/** @type {number} */ i) => {
      this.#source = i;
      this.#cursor = -1;
      this.#drawTabs();
      this.#draw();
      /** @type {HTMLElement} */ (this.tabs.children[i]).focus();
    };
    this.tabs.replaceChildren(...this.#names.map((name, i) => el("button", {
      type: "button", role: "tab", class: "source", text: /\d bytes/.test(name) ? visible(name) : `${visible(name)} (${this.#sources[i].length} bytes)`, "aria-controls": this.pane.id,
      "aria-selected": String(i === this.#source), tabindex: i === this.#source ? 0 : -1,
      on: {
        click: () => pick(i),
        keydown: (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[/** @type {"ArrowRight"} */ (event.key)];
          if (step) pick((i + step + this.#names.length) % this.#names.length);
        },
      },
    })));
  }

  #width() {
    const probe = this.pane.clientWidth;
    if (probe === 0) return;
    const style = getComputedStyle(this.pane);
    const room = (probe - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)) / this.#letter;
    const perRow = room >= 10 + 16 * 4 ? 16 : 8;
    if (perRow !== this.#perRow) {
      this.#perRow = perRow;
      this.#draw();
    }
  }

  /** Width of one character, in pixels. */
  get #letter() {
    const probe = el("span", { class: "probe hex-row", text: "0".repeat(40) });
    this.pane.append(probe);
    const width = probe.getBoundingClientRect().width / 40;
    probe.remove();
    return width || 7.2;
  }

  #draw() {
    const bytes = this.#sources[this.#source] ?? new Uint8Array();
    const shown = Math.min(bytes.length, MOST);
    this.#rows = [];
    const blocks = [];
    for (let at = 0; at < shown; at += this.#perRow * BLOCK) {
      const block = el("div", { class: "hex-block" });
      for (let row = at; row < Math.min(shown, at + this.#perRow * BLOCK); row += this.#perRow) {
        const made = el("div", { class: "hex-row" });
        this.#rows.push(made);
        block.append(made);
      }
      block.style.setProperty("--rows", String(block.childElementCount));
      blocks.push(block);
    }
    if (shown < bytes.length) blocks.push(el("p", { class: "quiet", text: `The first ${shown} of ${bytes.length} bytes; download the file for the rest.` }));
    if (bytes.length === 0) blocks.push(el("p", { class: "quiet", text: "No bytes." }));
    this.pane.replaceChildren(...blocks);
    for (let row = 0; row < this.#rows.length; row++) this.#drawRow(row);
  }

  /** @param {...(Span | null)} spans */
  #redraw(...spans) {
    const rows = new Set();
    for (const span of spans) {
      if (!span || span.source !== this.#source || span.length <= 0) continue;
      const last = Math.min(this.#rows.length - 1, Math.floor((span.offset + span.length - 1) / this.#perRow));
      for (let row = Math.floor(span.offset / this.#perRow); row <= last; row++) rows.add(row);
    }
    if (this.#cursor >= 0) rows.add(Math.floor(this.#cursor / this.#perRow));
    for (const row of rows) this.#drawRow(row);
  }

  /** One row: offset, hex in two halves, text; bytes that look the same stand in one element. @param {number} row */
  #drawRow(row) {
    const bytes = this.#sources[this.#source];
    const start = row * this.#perRow;
    const end = Math.min(bytes.length, start + this.#perRow);
    const line = this.#rows[row];
    if (line === undefined) return;
    const hex = el("span", { class: "hex" });
    const text = el("span", { class: "ascii" });
    for (let at = start; at < end; ) {
      const look = this.#look(at);
      let until = at + 1;
      while (until < end && this.#look(until) === look) until++;
      let digits = "";
      let letters = "";
      for (let i = at; i < until; i++) {
        digits += bytes[i].toString(16).padStart(2, "0");
        if (i + 1 < until) digits += i - start === 7 ? "  " : " ";
        letters += bytes[i] >= 0x20 && bytes[i] < 0x7f ? String.fromCharCode(bytes[i]) : "·";
      }
      hex.append(look ? el("span", { class: look, text: digits }) : digits);
      text.append(look ? el("span", { class: look, text: letters }) : letters);
      if (until < end) hex.append(until - 1 - start === 7 ? "  " : " ");
      at = until;
    }
    const gap = (this.#perRow - (end - start)) * 3 + (this.#perRow === 16 && end - start <= 8 ? 1 : 0);
    line.replaceChildren(el("span", { class: "offset", text: start.toString(16).padStart(4, "0") }), "  ", hex, `${" ".repeat(gap)}  `, text);
  }

  /** Classes of the byte at this place. @param {number} at */
  #look(at) {
    const inside = (/** @type {Span | null} */ span) =>
      span !== null && span.source === this.#source && at >= span.offset && at < span.offset + span.length;
    return `${inside(this.#chosen) ? "chosen " : ""}${inside(this.#hovered) ? "hovered " : ""}${at === this.#cursor ? "cursor" : ""}`.trim();
  }

  /**
   * @param {MouseEvent} event
   * @param {boolean} chosen
   */
  #under(event, chosen) {
    const line = /** @type {HTMLElement} */ (event.target).closest?.(".hex-row");
    const row = line instanceof HTMLElement ? this.#rows.indexOf(line) : -1;
    if (row < 0 || line === null || line === undefined) return this.world.onByte(this.#source, -1, false);
    const offset = /** @type {HTMLElement} */ (line.firstElementChild);
    const letter = offset.getBoundingClientRect().width / offset.innerText.length;
    const hex = /** @type {HTMLElement} */ (line.querySelector(".hex")).getBoundingClientRect();
    const text = /** @type {HTMLElement} */ (line.querySelector(".ascii")).getBoundingClientRect();
    let place = -1;
    if (event.clientX >= text.left) place = Math.floor((event.clientX - text.left) / letter);
    else if (event.clientX >= hex.left - letter) {
      const column = (event.clientX - hex.left) / letter;
      place = Math.floor((column > 24 ? column - 1 : column) / 3);
    }
    const at = row * this.#perRow + place;
    const inside = place >= 0 && place < this.#perRow && at < this.#sources[this.#source].length;
    if (chosen && inside) this.#move(at);
    else this.world.onByte(this.#source, inside ? at : -1, false);
  }

  /** @param {number} at */
  #move(at) {
    const before = this.#cursor;
    this.#cursor = at;
    if (before >= 0) this.#drawRow(Math.floor(before / this.#perRow));
    this.#drawRow(Math.floor(at / this.#perRow));
    this.#rows[Math.floor(at / this.#perRow)]?.scrollIntoView({ block: "nearest" });
    this.world.onByte(this.#source, at, true);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const most = Math.min(MOST, this.#sources[this.#source]?.length ?? 0) - 1;
    const from = this.#cursor >= 0 ? this.#cursor : (this.#chosen?.offset ?? 0);
    /** @type {Record<string, number>} */
    const to = {
      ArrowRight: from + 1, ArrowLeft: from - 1, ArrowDown: from + this.#perRow, ArrowUp: from - this.#perRow,
      Home: from - (from % this.#perRow), End: from - (from % this.#perRow) + this.#perRow - 1,
    };
    if (!(event.key in to) || event.ctrlKey || event.metaKey || event.altKey || most < 0) return;
    event.preventDefault();
    this.#move(Math.min(most, Math.max(0, to[event.key])));
  }
}
