// The packet list: any number of rows, of which only those in sight exist.
//
// Rows have one height, so a row's place is arithmetic. No browser lays out an element of a million rows (Chromium
// ends at 33 million pixels, Firefox at 18), so beyond MAX_HEIGHT the scroll bar stands for the whole and the wheel
// still moves by pixels: `#top` is the true place, and the scroll bar follows it when the hand rests.

import { rowColours } from "./packets-colour.js";
import { debounced, el, visible } from "./packets-dom.js";
import { isStale } from "./packets-api.js";

/** @typedef {import("./packets-api.js").Frame} Frame */
/** @typedef {import("./packets-api.js").Page} Page */

const PAGE = 100; // rows asked for at once
const KEPT_PAGES = 120; // of those that were seen, the nearest stay
const MAX_HEIGHT = 6_000_000; // pixels
const MARGIN = 8; // rows drawn beyond either edge
const REST_MS = 140;
/** How wide a column may grow, in characters; the last one takes what is left. */
const WIDTHS = /** @type {Record<string, [number, number]>} */ ({
  "no.": [4, 9], time: [9, 16], source: [11, 30], destination: [11, 30], protocol: [9, 16], length: [6, 7],
});

/** Class of a cell by the name of its column. @param {string} name */
const kindOf = (name) => `c-${name.toLowerCase().replace(/[^a-z]/g, "") || "other"}`;

export class PacketList {
  /** @type {Map<number, Frame[]>} */ #pages = new Map();
  /** @type {Map<number, {stop: AbortController, answer: Promise<Frame[]>, passing: boolean}>} */ #asked = new Map();
  /** @type {Map<number, HTMLElement>} */ #rows = new Map();
  /** @type {string[]} */ #columns = [];
  #wide = /** @type {number[]} */ ([]);
  #count = 0;
  #known = true; // whether #count is all there is
  #top = 0;
  #lastScroll = 0;
  #rowHeight = 21;
  #frozen = 0; // a generation: answers to what was asked before are not for now
  #drawing = 0;
  #direction = 1;
  /** @type {{number: number, index: number | null}} */ #selected = { number: 0, index: null };

  /**
   * @param {HTMLElement} grid scrolls, has the focus, role=grid
   * @param {{
   *   fetch: (skip: number, limit: number, signal: AbortSignal) => Promise<Page>,
   *   onPage: (page: Page, skip: number) => void,
   *   onSelect: (number: number, frame: Frame) => void,
   *   onProblem: (error: unknown, retry?: () => unknown) => void,
   *   onFine: () => void,
   *   timeText: (text: string, frame: Frame) => string,
   *   hasNote: (number: number) => boolean,
   * }} world
   */
  constructor(grid, world) {
    this.grid = grid;
    this.world = world;
    this.head = el("div", { role: "rowgroup", class: "packet-head" });
    this.body = el("div", { role: "rowgroup", class: "packet-body" });
    grid.replaceChildren(this.head, this.body);
    this.night = matchMedia("(prefers-color-scheme: dark)");
    this.small = matchMedia("(max-width: 44rem)");
    for (const each of [this.night, this.small]) each.addEventListener("change", () => this.#restyle());
    this.#rest = debounced(REST_MS, () => this.#align());
    this.#ask = debounced(40, () => this.#wantVisible());
    grid.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    grid.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => {
      const row = /** @type {HTMLElement} */ (event.target).closest("[role=row]");
      if (row instanceof HTMLElement) this.select(Number(row.dataset.index));
    });
    new ResizeObserver(() => this.draw()).observe(grid);
    this.#measure();
  }

  #rest;
  #ask;

  get count() {
    return this.#count;
  }

  get selected() {
    return this.#selected;
  }

  /** Whether `count` is all there is; else more may come. */
  get isKnown() {
    return this.#known;
  }

  /** Which column has the time. */
  get timeColumn() {
    return Math.max(0, this.#columns.indexOf("Time"));
  }

  /** The frame that is selected, where it is known. */
  get frame() {
    return this.#selected.index === null ? undefined : this.at(this.#selected.index);
  }

  /** @param {number} index */
  at(index) {
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** Forget every row, but not which packet is selected: what is listed has changed. */
  async reset() {
    this.#frozen++;
    for (const { stop } of this.#asked.values()) stop.abort();
    this.#asked.clear();
    this.#pages.clear();
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.#selected.index = null;
    this.#known = false;
    await this.load(0);
  }

  /**
   * The rows of one page, asked for unless they are here. Throws what `fetch` throws.
   * @param {number} page
   * @param {{passing?: boolean}} [how] whether they are of no use once they are out of sight
   * @returns {Promise<Frame[]>}
   */
  load(page, { passing = false } = {}) {
    const here = this.#pages.get(page);
    if (here !== undefined) return Promise.resolve(here);
    const under = this.#asked.get(page);
    if (under !== undefined) {
      under.passing &&= passing;
      return under.answer;
    }
    const stop = new AbortController();
    const generation = this.#frozen;
    const answer = this.world.fetch(page * PAGE, PAGE, stop.signal).then((got) => {
      if (generation !== this.#frozen) throw new DOMException("another list by now", "AbortError");
      this.#take(got, page);
      return got.frames;
    });
    const done = () => {
      if (this.#asked.get(page)?.stop === stop) this.#asked.delete(page);
    };
    answer.then(done, done);
    this.#asked.set(page, { stop, answer, passing });
    return answer;
  }

  /**
   * @param {Page} got
   * @param {number} page
   */
  #take(got, page) {
    this.#pages.set(page, got.frames);
    const seen = page * PAGE + got.frames.length;
    const short = got.frames.length < PAGE;
    const told = got.matched ?? (short ? seen : null);
    const before = this.#count;
    if (told !== null) [this.#count, this.#known] = [told, true];
    else if (!this.#known) this.#count = Math.max(page === 0 ? 0 : this.#count, seen + PAGE); // room to go on
    if (got.columns.join("\t") !== this.#columns.join("\t")) this.#setColumns(got.columns);
    this.#fit(got.frames);
    if (this.#pages.size > KEPT_PAGES) this.#forgetFar(page);
    if (before !== this.#count) this.#size();
    this.world.onPage(got, page * PAGE);
    this.world.onFine();
    this.draw();
  }

  /** @param {number} near */
  #forgetFar(near) {
    const far = [...this.#pages.keys()].sort((a, b) => Math.abs(b - near) - Math.abs(a - near));
    for (const page of far.slice(0, this.#pages.size - KEPT_PAGES)) this.#pages.delete(page);
  }

  /** @param {string[]} columns */
  #setColumns(columns) {
    this.#columns = columns;
    this.#wide = columns.map((name) => WIDTHS[name.toLowerCase()]?.[0] ?? Math.min(12, name.length + 1));
    const cells = columns.map((name, i) =>
      el("span", { role: "columnheader", class: kindOf(name), "aria-colindex": i + 2, text: name }));
    const marks = el("span", { role: "columnheader", class: "c-marks", "aria-colindex": 1 }, el("span", { class: "unseen", text: "Marks" }));
    this.head.replaceChildren(el("div", { role: "row", class: "packet-row", "aria-rowindex": 1 }, marks, ...cells));
    this.grid.setAttribute("aria-colcount", String(columns.length + 1));
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
  }

  /** Columns grow with what is in them, as far as they may, and never shrink under the reader's eyes. @param {Frame[]} frames */
  #fit(frames) {
    let grew = false;
    this.#columns.forEach((name, i) => {
      const [least, most] = WIDTHS[name.toLowerCase()] ?? [4, 24];
      if (i === this.#columns.length - 1) return;
      let wide = Math.max(this.#wide[i], least);
      for (const frame of frames) wide = Math.max(wide, Math.min(most, (frame.columns[i] ?? "").length + 1));
      if (wide > this.#wide[i]) [this.#wide[i], grew] = [wide, true];
    });
    if (!grew && this.grid.style.getPropertyValue("--columns")) return;
    const tracks = this.#columns.map((_, i) => (i === this.#columns.length - 1 ? "minmax(46ch, 1fr)" : `${this.#wide[i]}ch`));
    this.grid.style.setProperty("--columns", `2.4ch ${tracks.join(" ")}`);
  }

  #measure() {
    this.#rowHeight = parseFloat(getComputedStyle(this.grid).getPropertyValue("--row")) || 21;
  }

  #restyle() {
    const middle = this.#top / this.#rowHeight;
    this.#measure();
    for (const row of this.#rows.values()) row.remove();
    this.#rows.clear();
    this.#size();
    this.#setTop(middle * this.#rowHeight);
  }

  #size() {
    this.grid.setAttribute("aria-rowcount", String(this.#known ? this.#count + 1 : -1));
    this.body.style.height = `${Math.min(this.#count * this.#rowHeight, MAX_HEIGHT)}px`;
    if (this.#top > this.#lastTop) this.#setTop(this.#lastTop);
  }

  get #view() {
    return Math.max(this.#rowHeight, this.grid.clientHeight - this.head.offsetHeight);
  }

  /** The furthest #top. */
  get #lastTop() {
    return Math.max(0, this.#count * this.#rowHeight - this.#view);
  }

  /** How much of the true height one pixel of the scroll bar stands for. */
  get #scale() {
    const bar = Math.min(this.#count * this.#rowHeight, MAX_HEIGHT) - this.#view;
    return bar > 0 ? this.#lastTop / bar : 1;
  }

  #scrolled() {
    const at = this.grid.scrollTop;
    const moved = at - this.#lastScroll;
    if (moved === 0) return;
    this.#direction = Math.sign(moved);
    const scale = this.#scale;
    if (scale <= 1.0001) this.#top = at;
    else if (Math.abs(moved) < 2 * this.#view) this.#top += moved;
    else this.#top = at * scale;
    this.#top = Math.min(this.#lastTop, Math.max(0, this.#top));
    this.#lastScroll = at;
    this.draw();
    const stuck = at <= 0 || at >= this.grid.scrollHeight - this.grid.clientHeight - 1;
    if (scale > 1.0001) stuck ? this.#align() : this.#rest();
  }

  /** The scroll bar stands where the rows are. */
  #align() {
    const scale = this.#scale;
    if (scale <= 1.0001) return;
    const want = Math.round(this.#top / scale);
    const bottom = this.grid.scrollHeight - this.grid.clientHeight;
    if (want <= 0 && this.grid.scrollTop <= 0) this.#top = 0;
    if (want >= bottom && this.grid.scrollTop >= bottom - 1) this.#top = this.#lastTop;
    if (want !== Math.round(this.grid.scrollTop)) this.grid.scrollTop = want;
    this.#lastScroll = this.grid.scrollTop;
    this.draw();
  }

  /** @param {number} top */
  #setTop(top) {
    this.#top = Math.min(this.#lastTop, Math.max(0, top));
    this.grid.scrollTop = Math.round(this.#top / this.#scale);
    this.#lastScroll = this.grid.scrollTop;
    if (this.#scale <= 1.0001) this.#top = this.#lastScroll;
    this.draw();
  }

  /** Draw what is in sight with the next frame of the screen. */
  draw() {
    if (this.#drawing) return;
    this.#drawing = requestAnimationFrame(() => {
      this.#drawing = 0;
      this.#draw();
    });
  }

  #draw() {
    const first = Math.max(0, Math.floor(this.#top / this.#rowHeight) - MARGIN);
    const last = Math.min(this.#count, Math.ceil((this.#top + this.#view) / this.#rowHeight) + MARGIN);
    const spare = [];
    for (const [index, row] of this.#rows) {
      if (index >= first && index < last) continue;
      spare.push(row);
      this.#rows.delete(index);
    }
    const offset = this.#lastScroll - this.#top;
    let missing = false;
    for (let index = first; index < last; index++) {
      let row = this.#rows.get(index);
      if (row === undefined) {
        row = spare.pop() ?? this.#make();
        this.#rows.set(index, row);
        if (!row.isConnected) this.body.append(row);
      }
      row.style.transform = `translateY(${index * this.#rowHeight + offset}px)`;
      this.#fill(row, index);
      missing ||= this.at(index) === undefined;
    }
    for (const row of spare) row.remove();
    const chosen = this.#selected.index === null ? undefined : this.#rows.get(this.#selected.index);
    if (chosen) this.grid.setAttribute("aria-activedescendant", chosen.id);
    else this.grid.removeAttribute("aria-activedescendant");
    if (missing) this.#ask();
    else this.#prefetch(first, last);
  }

  #make() {
    return el("div", { role: "row", class: "packet-row" }, el("span", { role: "gridcell", class: "c-marks" }),
      ...this.#columns.map((name) => el("span", { role: "gridcell", class: kindOf(name) })));
  }

  /**
   * @param {HTMLElement} row
   * @param {number} index
   */
  #fill(row, index) {
    const frame = this.at(index);
    const isSelected = this.#selected.index === index;
    const noted = frame !== undefined && this.world.hasNote(frame.number);
    const key = frame === undefined ? `? ${index}` : `${index} ${frame.number} ${noted} ${this.night.matches} ${this.#frozen} ${this.timeMode}`;
    if (row.ariaSelected !== String(isSelected)) row.setAttribute("aria-selected", String(isSelected));
    if (row.dataset.key === key) return;
    row.dataset.key = key;
    row.dataset.index = String(index);
    row.id = `row-${index}`;
    row.setAttribute("aria-rowindex", String(index + 2));
    row.classList.toggle("coming", frame === undefined);
    row.classList.toggle("is-alert", frame?.alert ?? false);
    const [marks, ...cells] = /** @type {HTMLElement[]} */ ([...row.children]);
    if (frame === undefined) {
      delete row.dataset.number;
      row.style.removeProperty("--row-ground");
      row.style.removeProperty("--row-ink");
      for (const cell of [marks, ...cells]) cell.textContent = "";
      if (cells[0]) cells[0].textContent = "…";
      return;
    }
    row.dataset.number = String(frame.number);
    const { ground, ink } = rowColours(frame.background, frame.foreground, this.night.matches, frame.alert);
    if (ground) row.style.setProperty("--row-ground", ground);
    else row.style.removeProperty("--row-ground");
    row.style.setProperty("--row-ink", ink);
    const [sign, said] = frame.alert ? ["▲", "Alert"] : noted ? ["✎", "Note"] : frame.comments.length ? ["•", "Comment"] : frame.marked ? ["◆", "Marked"] : ["", ""];
    marks.replaceChildren(...(sign ? [el("span", { "aria-hidden": "true", text: sign }), el("span", { class: "unseen", text: said })] : []));
    marks.title = frame.alert ? "An alert" : noted ? "Has a note" : frame.comments.map((each) => visible(each)).join("\n");
    this.#columns.forEach((name, i) => {
      const text = frame.columns[i] ?? "";
      cells[i].textContent = visible(name === "Time" ? this.world.timeText(text, frame) : text);
    });
  }

  /** How times are written; rows are written anew when it changes. */
  timeMode = "";

  /** Write the rows in sight anew: notes or times have changed. */
  refresh() {
    for (const row of this.#rows.values()) row.dataset.key = "";
    this.draw();
  }

  /** Ask for what is in sight; whatever was asked for and is out of sight is called off. */
  #wantVisible() {
    const first = Math.floor(this.#top / this.#rowHeight / PAGE);
    const last = Math.floor(Math.min(this.#count - 1, (this.#top + this.#view) / this.#rowHeight) / PAGE);
    for (const [page, { stop, passing }] of this.#asked) {
      if (passing && (page < first - 1 || page > last + 1)) {
        stop.abort();
        this.#asked.delete(page);
      }
    }
    for (let page = first; page <= last; page++) {
      this.load(page, { passing: true }).catch((error) => isStale(error) || this.world.onProblem(error));
    }
  }

  /**
   * The page that comes next the way the reader goes.
   * @param {number} first
   * @param {number} last
   */
  #prefetch(first, last) {
    const next = this.#direction < 0 ? Math.floor(first / PAGE) - 1 : Math.floor(last / PAGE) + 1;
    const close = this.#direction < 0 ? first % PAGE < PAGE / 2 : last % PAGE > PAGE / 2;
    if (close && next >= 0 && next * PAGE < this.#count && !this.#pages.has(next)) this.load(next, { passing: true }).catch(() => undefined);
  }

  // ------------------------------------------------------------------------------------------ selecting

  /**
   * Select the row at this index, scrolled into sight.
   * @param {number} index
   * @param {{middle?: boolean}} [how]
   */
  async select(index, { middle = false } = {}) {
    if (this.#count === 0) return;
    const wanted = Math.min(this.#count - 1, Math.max(0, index));
    this.#selected = { number: this.at(wanted)?.number ?? this.#selected.number, index: wanted };
    this.reveal(wanted, middle);
    try {
      const frames = await this.load(Math.floor(wanted / PAGE));
      if (this.#selected.index !== wanted) return; // the reader has gone on
      const frame = frames[wanted % PAGE];
      if (frame === undefined) return;
      this.#selected.number = frame.number;
      this.world.onSelect(frame.number, frame);
    } catch (error) {
      if (!isStale(error)) this.world.onProblem(error, () => this.#selected.index === wanted && this.select(wanted));
    }
  }

  /**
   * @param {number} index
   * @param {boolean} [middle]
   */
  reveal(index, middle = false) {
    const at = index * this.#rowHeight;
    if (middle && (at < this.#top || at + this.#rowHeight > this.#top + this.#view)) this.#setTop(at - (this.#view - this.#rowHeight) / 2);
    else if (at < this.#top) this.#setTop(at);
    else if (at + this.#rowHeight > this.#top + this.#view) this.#setTop(at + this.#rowHeight - this.#view);
    this.draw();
  }

  /**
   * Where the packet of this number is, or the first one after it. Numbers ascend, so few pages are looked at.
   * @param {number} number
   * @returns {Promise<{index: number, exact: boolean} | null>} null where nothing is listed
   */
  async seek(number) {
    let low = 0;
    let high = this.#count; // not beyond
    let guess = Math.floor(Math.min(number - 1, Math.max(0, high - 1)) / PAGE);
    while (low < high) {
      const frames = await this.load(guess);
      if (frames.length === 0) {
        high = guess * PAGE;
      } else if (number < frames[0].number) {
        if (guess === 0) return { index: 0, exact: false };
        high = guess * PAGE;
      } else if (number > frames[frames.length - 1].number) {
        low = guess * PAGE + frames.length;
        if (!this.#known) high = Math.max(high, this.#count);
      } else {
        const place = frames.findIndex((each) => each.number >= number);
        return { index: guess * PAGE + place, exact: frames[place].number === number };
      }
      guess = Math.floor((low + high - 1) / 2 / PAGE);
      if (guess * PAGE + PAGE <= low) guess = Math.floor(low / PAGE);
    }
    return this.#count ? { index: Math.min(low, this.#count - 1), exact: false } : null;
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#view / this.#rowHeight) - 1);
    const from = this.#selected.index ?? Math.ceil(this.#top / this.#rowHeight) - 1;
    /** @type {Record<string, number>} */
    const to = {
      j: from + 1, ArrowDown: from + 1, k: from - 1, ArrowUp: from - 1,
      PageDown: from + page, PageUp: from - page, " ": from + page, Home: 0, End: this.#count - 1,
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    event.stopPropagation();
    this.#direction = Math.sign(to[event.key] - from) || 1;
    void this.select(to[event.key]);
  }
}
