// The strip on top: packets over time, what the filter leaves of them, the alerts, and a span that one can brush.

import { debounced } from "./packets-dom.js";

/** @typedef {import("./packets-api.js").Intervals} Intervals */

const HEIGHT = 58;
const AXIS = 15;
const DRAG = 4; // pixels; less is a click

export class Timeline {
  /** @type {Intervals | null} */ #all = null;
  /** @type {Intervals | null} */ #some = null;
  /** @type {number[]} */ #alerts = [];
  /** @type {number | null} */ #selected = null;
  /** @type {[number, number] | null} */ #span = null; // applied
  /** @type {[number, number] | null} */ #window = null; // of a large file only this is looked at
  /** @type {[number, number] | null} */ #brush = null; // under the hand
  /** @type {number | null} */ #from = null;
  #cursor = 0;

  /**
   * @param {HTMLElement} strip role=slider, has the canvas
   * @param {HTMLCanvasElement} canvas
   * @param {{onSpan: (span: [number, number] | null) => void, onTime: (second: number) => void}} world
   */
  constructor(strip, canvas, world) {
    this.strip = strip;
    this.canvas = canvas;
    this.world = world;
    const draw = debounced(30, () => this.draw());
    new ResizeObserver(draw).observe(strip);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    strip.addEventListener("pointerdown", (event) => this.#down(event));
    strip.addEventListener("pointermove", (event) => this.#move(event));
    strip.addEventListener("pointerup", (event) => this.#up(event));
    strip.addEventListener("pointercancel", () => {
      this.#from = this.#brush = null;
      this.draw();
    });
    for (const name of ["focus", "blur"]) strip.addEventListener(name, () => this.draw());
    strip.addEventListener("dblclick", () => this.#span && this.world.onSpan(null));
    strip.addEventListener("keydown", (event) => this.#key(event));
  }

  /** The second, since the first packet, at the strip's left edge. */
  get first() {
    return this.#window?.[0] ?? 0;
  }

  /** How many seconds the strip shows: the whole file, or the window of a large one. */
  get seconds() {
    if (this.#window) return Math.max(1e-9, this.#window[1] - this.#window[0]);
    return this.#all ? Math.max(1e-9, (this.#all.packets.length * this.#all.step_ns) / 1e9) : 0;
  }

  /** @param {Intervals} all */
  showAll(all) {
    this.#all = all;
    this.#say();
    this.draw();
  }

  /** @param {Intervals | null} some null: all of them */
  showSome(some) {
    this.#some = some;
    this.draw();
  }

  /**
   * @param {{alerts?: number[], selected?: number | null, span?: [number, number] | null, window?: [number, number] | null}} marks seconds since the first packet
   */
  mark({ alerts, selected, span, window }) {
    if (alerts !== undefined) this.#alerts = alerts;
    if (selected !== undefined) this.#selected = selected;
    if (span !== undefined) this.#span = span;
    if (window !== undefined) this.#window = window;
    if (selected !== undefined && selected !== null) this.#cursor = selected;
    this.#say();
    this.draw();
  }

  #say() {
    this.strip.setAttribute("aria-valuemin", this.first.toFixed(3));
    this.strip.setAttribute("aria-valuemax", (this.first + this.seconds).toFixed(3));
    this.strip.setAttribute("aria-valuenow", this.#within(this.#cursor).toFixed(3));
    const span = this.#brush ?? this.#span;
    const of = span ? `, ${label(span[0])} to ${label(span[1])} chosen` : "";
    this.strip.setAttribute("aria-valuetext", `${label(this.#cursor)} of ${label(this.first + this.seconds)}${of}`);
  }

  /** @param {number} second */
  #within(second) {
    return Math.min(this.first + this.seconds, Math.max(this.first, second));
  }

  /** @param {number} x */
  #secondAt(x) {
    const box = this.strip.getBoundingClientRect();
    return this.#within(this.first + ((x - box.left) / Math.max(1, box.width)) * this.seconds);
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button !== 0 || !this.#all) return;
    this.#from = event.clientX;
    this.strip.setPointerCapture(event.pointerId);
  }

  /** @param {PointerEvent} event */
  #move(event) {
    if (this.#from === null) return;
    if (Math.abs(event.clientX - this.#from) < DRAG && !this.#brush) return;
    const [a, b] = [this.#secondAt(this.#from), this.#secondAt(event.clientX)];
    this.#brush = [Math.min(a, b), Math.max(a, b)];
    this.#say();
    this.draw();
  }

  /** @param {PointerEvent} event */
  #up(event) {
    if (this.#from === null) return;
    const span = this.#brush;
    this.#from = this.#brush = null;
    if (span) this.world.onSpan(this.#rounded(span));
    else this.world.onTime(this.#secondAt(event.clientX));
    this.draw();
  }

  /** @param {[number, number]} span @returns {[number, number]} */
  #rounded([from, to]) {
    const digits = Math.min(9, Math.max(0, 3 - Math.floor(Math.log10(this.seconds))));
    return [Number(from.toFixed(digits)), Number(to.toFixed(digits))];
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (!this.#all || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = this.seconds / 50;
    const move = { ArrowRight: step, ArrowLeft: -step, PageDown: 5 * step, PageUp: -5 * step, Home: -this.seconds, End: this.seconds }[event.key];
    if (move !== undefined) {
      const before = this.#cursor;
      this.#cursor = this.#within(this.#cursor + move);
      if (event.shiftKey) {
        const anchor = this.#brush ? (this.#brush[0] === before ? this.#brush[1] : this.#brush[0]) : before;
        this.#brush = [Math.min(anchor, this.#cursor), Math.max(anchor, this.#cursor)];
      } else this.#brush = null;
    } else if (event.key === "Enter" || event.key === " ") {
      const span = this.#brush;
      this.#brush = null;
      if (span) this.world.onSpan(this.#rounded(span));
      else this.world.onTime(this.#cursor);
    } else if (event.key === "Escape" && (this.#brush || this.#span)) {
      const applied = this.#span !== null && this.#brush === null;
      this.#brush = null;
      if (applied) this.world.onSpan(null);
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.#say();
    this.draw();
  }

  draw() {
    const width = this.strip.clientWidth;
    if (width === 0) return;
    const dense = Math.min(3, devicePixelRatio || 1);
    this.canvas.width = width * dense;
    this.canvas.height = HEIGHT * dense;
    const pen = this.canvas.getContext("2d");
    if (!pen) return;
    pen.scale(dense, dense);
    const style = getComputedStyle(this.strip);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    pen.clearRect(0, 0, width, HEIGHT);
    const all = this.#all;
    if (!all || all.packets.length === 0) return;
    const floor = HEIGHT - AXIS;
    const room = floor - 9;
    const x = (/** @type {number} */ second) => ((second - this.first) / this.seconds) * width;
    const most = Math.max(1, ...all.packets);

    const span = this.#brush ?? this.#span;
    if (span) {
      pen.fillStyle = colour("--window");
      pen.fillRect(x(span[0]), 0, Math.max(1, x(span[1]) - x(span[0])), floor);
    }
    this.#bars(pen, all, most, x, floor, room, this.#some ? colour("--bar-faint") : colour("--bar"));
    if (this.#some) this.#bars(pen, this.#some, most, x, floor, room, colour("--bar"));
    pen.fillStyle = colour("--line");
    pen.fillRect(0, floor, width, 1);

    pen.fillStyle = pen.strokeStyle = colour("--critical");
    for (const alert of this.#alerts) {
      const at = Math.min(width - 4, Math.max(4, x(alert)));
      pen.globalAlpha = 0.45;
      pen.fillRect(at - 0.5, 6, 1, floor - 6);
      pen.globalAlpha = 1;
      pen.beginPath();
      pen.moveTo(at - 4, 0);
      pen.lineTo(at + 4, 0);
      pen.lineTo(at, 6.5);
      pen.fill();
    }
    if (span) {
      pen.fillStyle = colour("--focus");
      for (const edge of span) pen.fillRect(Math.min(width - 1, x(edge)) - 0.5, 0, 1.5, floor);
    }
    if (this.#selected !== null) {
      pen.fillStyle = colour("--ink");
      pen.fillRect(Math.min(width - 1, Math.max(0, x(this.#selected))) - 0.75, 0, 1.5, floor);
    }
    if (document.activeElement === this.strip) {
      pen.fillStyle = colour("--focus");
      pen.fillRect(Math.min(width - 2, x(this.#cursor)) - 1, floor - 8, 2, 8);
    }
    this.#axis(pen, width, floor, colour("--soft"), style.fontFamily);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Intervals} of
   * @param {number} most
   * @param {(second: number) => number} x
   * @param {number} floor
   * @param {number} room
   * @param {string} colour
   */
  #bars(pen, of, most, x, floor, room, colour) {
    pen.fillStyle = colour;
    const step = of.step_ns / 1e9;
    const shift = this.#all ? (of.start_ns - this.#all.start_ns) / 1e9 : 0;
    of.packets.forEach((packets, i) => {
      if (packets === 0) return;
      const left = x(shift + i * step);
      const wide = x(shift + (i + 1) * step) - left;
      const high = Math.max(2, (packets / most) * room); // one packet is to be seen, too
      pen.fillRect(left, floor - high, Math.max(1.2, wide > 3 ? wide - 1 : wide), high);
    });
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {number} width
   * @param {number} floor
   * @param {string} colour
   * @param {string} family
   */
  #axis(pen, width, floor, colour, family) {
    pen.fillStyle = colour;
    pen.font = `11px ${family}`;
    pen.textBaseline = "top";
    const step = nice(this.seconds / Math.max(2, Math.floor(width / 110)));
    const until = this.first + this.seconds * 1.0001;
    for (let at = Math.ceil(this.first / step) * step; at <= until; at += step) {
      const place = ((at - this.first) / this.seconds) * width;
      const text = label(at);
      const wide = pen.measureText(text).width;
      if (place + wide > width + 1 && place > 0) break;
      pen.fillRect(Math.min(width - 1, place), floor, 1, 3);
      pen.fillText(text, Math.max(0, Math.min(width - wide, place - wide / 2)), floor + 4);
    }
  }
}

/** 1, 2 or 5 times a power of ten. @param {number} raw */
function nice(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  const first = raw / power;
  return (first <= 1 ? 1 : first <= 2 ? 2 : first <= 5 ? 5 : 10) * power;
}

/** @param {number} seconds */
export function label(seconds) {
  const size = Math.abs(seconds);
  const plain = (/** @type {number} */ value, /** @type {number} */ digits) => String(Number(value.toFixed(digits)));
  if (size === 0) return "0 s";
  if (size < 1e-3) return `${plain(seconds * 1e6, 1)} µs`;
  if (size < 1) return `${plain(seconds * 1e3, 1)} ms`;
  if (size < 120) return `${plain(seconds, 2)} s`;
  if (size < 7200) return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
  return `${plain(seconds / 3600, 1)} h`;
}
