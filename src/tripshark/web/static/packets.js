// The packet view: joins the list, the tree, the bytes, the filter, the timeline and the notes, and keeps the address
// of the page true: `?file=…&filter=…#p=124` is what one sees, whoever opens it.

import { shortcut, help } from "./keys.js";
import { Api, isStale, Problem } from "./packets-api.js";
import { Bytes } from "./packets-bytes.js";
import { copy, debounced, el, memory, say, the, visible } from "./packets-dom.js";
import { combined, FilterBox, timeIn, withTime } from "./packets-filter.js";
import { Follow } from "./packets-follow.js";
import { PacketList } from "./packets-list.js";
import { Notes } from "./packets-notes.js";
import { splitters } from "./packets-panes.js";
import { label, Timeline } from "./packets-time.js";
import { Tree } from "./packets-tree.js";
import { Trouble } from "./packets-trouble.js";

/** @typedef {import("./packets-api.js").Packet} Packet */
/** @typedef {import("./packets-api.js").Frame} Frame */

const ALERTS = 'systemd_journal.syslog_id == "falco"';
const MOST_ALERTS = 500; // marked on the timeline and walked with [ and ]
const BINS = 300;

const view = the("packets");
const api = new Api(view.dataset.incident, view.dataset.file);
const alertNs = Number(view.dataset.alertNs) || 0;
const trouble = new Trouble(the("trouble"));

/** What is seen. */
const now = {
  filter: "",
  anchor: 0, // the packet that the reader chose; a filter may hide it for a while
  filtering: false,
  total: 0,
  /** @type {number | null} */ matched: null,
  /** @type {import("./packets-api.js").Window | null} */ window: null, // the part of a large file that can be looked at
  /** @type {Packet | null} */ packet: null,
  /** @type {{number: number, second: number}[]} */ alerts: [],
  startNs: 0,
  times: memory.get("times", "first"), // "first", "alert" or "utc"
};

/**
 * Wraps what can fail: told to `trouble` under this name, and tried again from there.
 * @param {string} name
 * @param {() => Promise<unknown>} work
 * @returns {Promise<void>}
 */
async function attempt(name, work) {
  try {
    await work();
    trouble.fine(name);
  } catch (error) {
    if (!isStale(error)) trouble.report(name, error, () => attempt(name, work));
  }
}

// ------------------------------------------------------------------------------------------------ the parts

const list = new PacketList(the("list"), {
  fetch: (skip, limit, signal) => api.packets({ filter: now.filter, skip, limit }, signal),
  onPage: (page) => {
    now.total = page.total;
    now.matched = page.matched;
    count();
    notice(page.window);
  },
  onSelect: (number, frame) => {
    if (!now.filtering) now.anchor = number;
    place(number);
    notes.show(number);
    timeline.mark({ selected: secondOf(frame) });
    detail(number);
  },
  onProblem: (error, retry) => trouble.report("list", error, () => {
    retry?.();
    list.draw();
  }),
  onFine: () => trouble.fine("list"),
  timeText: (text) => timeText(text),
  hasNote: (number) => notes.has(number),
});

const tree = new Tree(the("tree"), {
  onChoose: (node, byHand) => {
    bytes.choose(spanOf(node), { scroll: byHand });
    offer(node?.filter ?? "", node?.label ?? "");
  },
  onHover: (node) => bytes.hover(spanOf(node)),
  onFilter: (filter, how) => void apply(combined(now.filter, filter, how)),
});

const bytes = new Bytes(the("sources"), the("bytes"), {
  onByte: (source, at, chosen) => {
    if (at < 0) return bytes.hover(null);
    const found = tree.fieldAt(source, at);
    bytes.hover(found ? spanOf(found.node) : null);
    if (chosen) tree.chooseByte(source, at);
  },
});

const filter = new FilterBox(
  { form: the("filter-form"), input: the("filter"), list: the("choices"), message: the("filter-message"), clear: the("filter-clear") },
  {
    check: (text, signal) => api.check(text, signal),
    complete: (prefix, signal) => api.complete(prefix, signal),
    onApply: (text) => void apply(text),
    onLeave: () => list.grid.focus(),
    onProblem: (error) => trouble.report("filter", error, () => filter.check()),
    onFine: () => trouble.fine("filter"),
  },
);

const timeline = new Timeline(the("timeline"), the("timeline-canvas"), {
  onSpan: (span) => void apply(withTime(now.filter, span, now.startNs)),
  onTime: (second) => void nearest(second),
});

const notes = new Notes(the("notes"), {
  fetch: () => api.notes(),
  add: (frame, text) => api.addNote(frame, text),
  remove: (id) => api.removeNote(id),
  onChange: () => {
    list.refresh();
    the("note-count").textContent = notes.numbers.length ? String(notes.numbers.length) : "";
  },
  onProblem: (error) => trouble.report("notes", error, () => notes.load()),
  onFine: () => trouble.fine("notes"),
  onLeave: () => list.grid.focus(),
});

const follow = new Follow(the("follow"), {
  fetch: (proto, stream, signal) => api.follow(proto, stream, signal),
  onFilter: (text) => void apply(text),
  onPacket: (number) => void go(number),
  name: () => `${view.dataset.incident}-${api.file.replace(/[^a-z0-9.-]/gi, "-").replace(/\.pcapng$/, "")}-stream`,
});

splitters(view);

// ------------------------------------------------------------------------------------------------- packets

/** @type {AbortController | null} */
let asking = null;

const detail = debounced(40, (/** @type {number} */ number) => {
  asking?.abort();
  const stop = (asking = new AbortController());
  void attempt("packet", async () => {
    if (stop.signal.aborted) throw new DOMException("another packet by now", "AbortError");
    try {
      const packet = await api.packet(number, stop.signal);
      if (!stop.signal.aborted) show(packet);
    } catch (error) {
      if (error instanceof Problem && error.kind === "refused") {
        the("packet-title").textContent = `Packet ${number}: ${error.message}`;
        now.packet = null;
        tree.clear();
        bytes.clear();
        return;
      }
      throw error;
    }
  });
});

/** @param {Packet} packet */
function show(packet) {
  now.packet = packet;
  the("packet-title").textContent = `Packet ${packet.number}`;
  bytes.show(packet.bytes, packet.sources);
  tree.show(packet.tree);
  the("tree-cut").hidden = !packet.truncated;
  the("follow-open").disabled = packet.follow.length === 0;
  the("note-add").disabled = false;
  chips();
}

/** @param {{source?: number, offset: number | null, length: number | null} | null | undefined} node */
const spanOf = (node) => (node && node.offset !== null && node.length ? { source: node.source ?? 0, offset: node.offset, length: node.length } : null);

/**
 * Filters for the chosen field.
 * @param {string} text
 * @param {string} said
 */
function offer(text, said) {
  const frame = /^[\w.]*(?:_in|_to|_frame|\.in|\.frame) == (\d+)$/.exec(text)?.[1];
  the("field-go").hidden = frame === undefined;
  the("field-go").textContent = frame ? `Go to packet ${frame}` : "";
  the("field-go").dataset.frame = frame ?? "";
  the("field").hidden = text === "";
  the("field-filter").textContent = visible(text);
  the("field-filter").title = visible(said);
}

for (const button of document.querySelectorAll("#field [data-how]")) {
  button.addEventListener("click", () => {
    const text = tree.chosen?.filter;
    if (text) void apply(combined(now.filter, text, /** @type {HTMLElement} */ (button).dataset.how ?? "only"));
  });
}
the("field-go").addEventListener("click", () => void go(Number(the("field-go").dataset.frame)));
the("field-copy").addEventListener("click", async () => {
  if (tree.chosen) say((await copy(tree.chosen.filter)) ? "The filter is copied." : "This browser does not allow copying.");
});

/**
 * To the packet of this number, or where the filter hides it, the next one that is listed.
 * @param {number} number
 */
async function go(number) {
  await attempt("go", async () => {
    if (now.window && number <= now.total && (number < now.window.first || number > now.window.last)) await look({ at: String(number) });
    const found = await list.seek(number);
    if (found === null) return say("No packet is listed.");
    if (!found.exact) say(now.filter ? `The filter hides packet ${number}; the nearest is shown.` : `There is no packet ${number}; the nearest is shown.`);
    await list.select(found.index, { middle: true });
  });
}

/** @param {number} second to the first listed packet at or after it */
async function nearest(second) {
  await attempt("go", async () => {
    const ns = now.startNs + second * 1e9;
    if (now.window && (ns < now.window.first_ns || ns > now.window.last_ns)) await look({ around_ns: String(BigInt(Math.round(ns))) });
    let [low, high] = [0, Math.max(0, list.count - 1)];
    while (low < high) {
      const middle = (low + high) >> 1;
      await list.load(Math.floor(middle / 100));
      const frame = list.at(middle);
      if (frame === undefined || secondOf(frame) >= second) high = middle;
      else low = middle + 1;
    }
    await list.select(low, { middle: true });
  });
}

/** To the first alert, or to the moment of the event where no row tells of it. */
async function toAlert() {
  if (now.alerts.length) await go(now.alerts[0].number);
  else if (alertNs > now.startNs) await nearest((alertNs - now.startNs) / 1e9);
}

/** @param {number} step -1 or 1 */
async function alert(step) {
  await alertsKnown;
  const here = list.selected.number;
  const numbers = now.alerts.map((each) => each.number);
  const to = step > 0 ? numbers.find((each) => each > here) : numbers.filter((each) => each < here).pop();
  if (to === undefined) return say(numbers.length ? (step > 0 ? "That was the last alert." : "That was the first alert.") : "There is no alert in this file.");
  await go(to);
  list.grid.focus({ preventScroll: true });
}

// -------------------------------------------------------------------------------------------------- filter

/**
 * Show what this filter leaves; the packet that was selected stays, or the nearest one is.
 * @param {string} text
 * @param {{isNew?: boolean}} [how]
 */
async function apply(text, { isNew = true } = {}) {
  const changed = text !== now.filter;
  const number = now.anchor;
  now.filtering = true;
  now.filter = text;
  filter.set(text);
  chips();
  timeline.mark({ span: timeIn(text, now.startNs) });
  const before = location.pathname + location.search;
  if (isNew && (changed || address(0) !== before)) {
    place.cancel();
    history.pushState(null, "", address(number));
  }
  the("list").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => (the("count").textContent = "looking through all packets …"), 300);
  await attempt("list", async () => {
    try {
      await list.reset();
      the("empty").hidden = list.count > 0;
      if (number && list.count) {
        const found = await list.seek(number);
        if (found) await list.select(found.index, { middle: true });
      }
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 400 || !now.filter) throw error;
      filter.refuse(error.message);
    }
  });
  now.filtering = false;
  clearTimeout(slow);
  if (!trouble.isOpen) count();
  the("list").removeAttribute("aria-busy");
  void some();
}

/** @type {AbortController | null} */
let counting = null;

/** What the filter leaves of the timeline. */
async function some() {
  counting?.abort();
  if (now.filter === "") return timeline.showSome(null);
  const stop = (counting = new AbortController());
  const asked = now.filter;
  await attempt("timeline", async () => {
    const left = await api.intervals(asked, stepMs, stop.signal).catch((error) => {
      if (error instanceof Problem && error.status === 400) return null; // the list has said it
      throw error;
    });
    if (!stop.signal.aborted) timeline.showSome(left);
  });
}

let stepMs = 0;
/** Kept once it is known where the alerts are. */
let alertsKnown = Promise.resolve();

/** The whole timeline, in about as many steps as it has room for. */
function all() {
  return (alertsKnown = attempt("timeline", async () => {
    let whole = await api.intervals("", stepMs);
    const span = now.window ? now.window.last_ns - now.window.first_ns : whole.packets.length * whole.step_ns;
    const wanted = Math.max(1, Math.ceil(span / 1e6 / BINS));
    const has = whole.step_ns / 1e6;
    if (wanted < has / 2 || wanted > has * 2) whole = await api.intervals("", wanted);
    stepMs = Math.max(1, Math.round(whole.step_ns / 1e6));
    now.startNs = whole.start_ns;
    timeline.showAll(whole);
    timeline.mark({ window: now.window && [(now.window.first_ns - now.startNs) / 1e9, (now.window.last_ns - now.startNs) / 1e9] });
    timeline.mark({ span: timeIn(now.filter, now.startNs) });
    list.refresh();
    const { frames } = await api.packets({ filter: ALERTS, skip: 0, limit: MOST_ALERTS });
    now.alerts = frames.filter((each) => each.alert).map((each) => ({ number: each.number, second: secondOf(each) }));
    timeline.mark({ alerts: now.alerts.map((each) => each.second) });
    the("alert-count").textContent = now.alerts.length ? String(now.alerts.length) : "";
  }));
}

/** @type {Record<string, () => string>} */
const CHIPS = {
  alerts: () => ALERTS,
  flow: () => now.packet?.follow.find((each) => /^(tcp|udp)\.stream/.test(each.filter))?.filter.replace(" eq ", " == ").replace(/ and .*/, "") ?? "",
  egress: () => "frame.packet_flags_direction == 2",
  dns: () => "dns",
  tls: () => "tls || quic",
  http: () => "http || http2",
  notes: () => (notes.numbers.length ? `frame.comment || frame.number in {${notes.numbers.join(", ")}}` : "frame.comment"),
};

/** Which chips are on, and which can be. */
function chips() {
  for (const chip of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("#chips [data-chip]"))) {
    const text = CHIPS[chip.dataset.chip ?? ""]?.() ?? "";
    chip.disabled = text === "";
    chip.setAttribute("aria-pressed", String(text !== "" && withTime(now.filter, null, now.startNs) === text));
    chip.title = text;
  }
}
the("chips").addEventListener("click", (/** @type {MouseEvent} */ event) => {
  const chip = /** @type {HTMLElement} */ (event.target).closest("[data-chip]");
  if (!(chip instanceof HTMLElement)) return;
  const text = CHIPS[chip.dataset.chip ?? ""]();
  if (event.shiftKey) return void apply(combined(now.filter, text, "and"));
  void apply(chip.getAttribute("aria-pressed") === "true" ? "" : text);
});

// --------------------------------------------------------------------------------------------------- times

/** Seconds since the first packet. @param {Frame} frame */
function secondOf(frame) {
  return Number(frame.columns[list.timeColumn]) || 0;
}

/** @param {string} text as Wireshark has it: seconds since the first packet */
function timeText(text) {
  const seconds = Number(text);
  if (now.times === "first" || !now.startNs || !Number.isFinite(seconds)) return text;
  if (now.times === "alert" && alertNs) {
    const since = (now.startNs - alertNs) / 1e9 + seconds;
    return `${since < 0 ? "−" : "+"}${Math.abs(since).toFixed(6)}`;
  }
  const at = new Date(now.startNs / 1e6 + seconds * 1e3);
  const fraction = ((((now.startNs / 1e3) % 1e6) + seconds * 1e6) % 1e6).toFixed(0).padStart(6, "0").slice(-6);
  return Number.isNaN(at.getTime()) ? text : `${at.toISOString().slice(11, 19)}.${fraction}`;
}

const times = the("times");
times.value = now.times;
if (!alertNs) times.querySelector('[value="alert"]').disabled = true;
times.addEventListener("change", () => {
  now.times = list.timeMode = times.value;
  memory.set("times", now.times);
  list.refresh();
});

// ---------------------------------------------------------------------------------------- what is not shown

function count() {
  const digits = (/** @type {number} */ n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const shown = now.matched ?? (list.isKnown ? list.count : null);
  the("count").textContent = now.filter || (shown !== null && shown < now.total)
    ? `${shown === null ? "some" : digits(shown)} of ${digits(now.total)} packets`
    : `${digits(now.total)} packets`;
}

/** A large file is seen through a window: said, and it can be moved. @param {import("./packets-api.js").Window | null} window */
function notice(window) {
  if (JSON.stringify(window) === JSON.stringify(now.window)) return;
  now.window = window;
  const strip = the("window");
  strip.hidden = window === null;
  if (window === null) return;
  const move = (/** @type {string} */ words, /** @type {Record<string, string>} */ around, isThere = true) =>
    el("button", { type: "button", text: words, disabled: !isThere, on: { click: () => void look(around) } });
  const digits = (/** @type {number} */ n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const shown = `A large file: packets ${digits(window.first)} to ${digits(window.last)} of ${digits(now.total)} are shown; ${digits(window.before)} lie before this window, ${digits(window.after)} after it.`;
  strip.replaceChildren(el("span", { text: shown, title: window.notice }),
    move("← Earlier", { at: String(window.first - 1) }, window.before > 0),
    el("button", { type: "button", text: "Around the alert", on: { click: () => void look({}).then(toAlert) } }),
    move("Later →", { at: String(window.last + 1) }, window.after > 0));
}

/**
 * Look at another part of a large file; a filter stays, a span of time that lies elsewhere does not.
 * @param {Record<string, string>} around
 */
async function look(around) {
  api.around = around;
  now.packet = null;
  now.anchor = 0;
  await apply(withTime(now.filter, null, now.startNs));
  await all();
  if (list.count && list.selected.index === null) await list.select(0);
}

// -------------------------------------------------------------------------------------------------- address

/** @param {number} number */
function address(number) {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of [["filter", now.filter], ["at", api.around.at ?? ""], ["around_ns", api.around.around_ns ?? ""]]) {
    if (value) query.set(key, value);
    else query.delete(key);
  }
  const text = query.toString();
  return `${location.pathname}${text ? `?${text}` : ""}${number ? `#p=${number}` : ""}`;
}

/** The address follows the selection, without a step of its own to go back over. */
const place = debounced(150, (/** @type {number} */ number) => history.replaceState(null, "", address(number)));

function asked() {
  const query = new URLSearchParams(location.search);
  const [at, around] = [query.get("at") ?? "", query.get("around_ns") ?? ""];
  return {
    filter: query.get("filter") ?? "",
    around: /** @type {Record<string, string>} */ (/^\d{1,10}$/.test(at) ? { at } : /^\d{1,19}$/.test(around) ? { around_ns: around } : {}),
    number: Number(/[#&]p=(\d{1,10})/.exec(location.hash)?.[1] ?? 0),
  };
}

/** @param {number} number where one was, 0 for nowhere */
async function back(number) {
  if (number && number !== list.selected.number) await go(number);
}

addEventListener("popstate", () => {
  const { filter: text, number, around } = asked();
  if (JSON.stringify(around) !== JSON.stringify(api.around)) {
    api.around = around;
    void apply(text, { isNew: false }).then(all).then(() => back(number));
  } else if (text !== now.filter) void apply(text, { isNew: false }).then(() => back(number));
  else void back(number);
});

the("copy-link").addEventListener("click", async () => {
  const whole = location.origin + address(list.selected.number);
  say((await copy(whole)) ? "The link is copied." : "This browser does not allow copying; the address of the page is the link.");
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    say((await copy(/** @type {HTMLElement} */ (button).dataset.copy ?? "")) ? "Copied." : "This browser does not allow copying.");
  });
}
for (const line of document.querySelectorAll("[data-oneliner]")) {
  const path = /** @type {HTMLElement} */ (line).dataset.oneliner ?? "";
  const token = /** @type {HTMLElement} */ (line).dataset.token ? ' -H "Authorization: Bearer $TOKEN"' : "";
  line.textContent = `curl -fsS${token} ${location.origin}${path} | wireshark -k -i -`;
  /** @type {HTMLElement} */ (line.parentElement?.querySelector("[data-copy]")).dataset.copy = line.textContent;
}

const menu = /** @type {HTMLDetailsElement} */ (document.querySelector(".menu"));
document.addEventListener("click", (event) => {
  const inside = menu.contains(/** @type {Node} */ (event.target));
  if (!inside || /** @type {HTMLElement} */ (event.target).closest("a[download], #copy-link")) menu.open = false;
});
menu.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !menu.open) return;
  event.preventDefault();
  menu.open = false;
  menu.querySelector("summary")?.focus();
});

the("file").addEventListener("change", (/** @type {Event} */ event) => {
  const query = new URLSearchParams({ file: /** @type {HTMLSelectElement} */ (event.target).value });
  if (now.filter) query.set("filter", withTime(now.filter, null, now.startNs));
  location.assign(`${location.pathname}?${query}`);
});
addEventListener("beforeunload", (event) => {
  if (notes.isDirty) event.preventDefault();
});

// ------------------------------------------------------------------------------------------------------ keys

const key = (/** @type {string} */ name) => () => list.grid.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
shortcut("j", "next packet (also ↓)", key("j"));
shortcut("k", "packet before (also ↑)", key("k"));
shortcut("PageDown", "a page on", key("PageDown"));
shortcut("PageUp", "a page back", key("PageUp"));
shortcut("Home", "first packet", key("Home"));
shortcut("End", "last packet", key("End"));
shortcut("Enter", "into the packet's fields", () => inside());
shortcut("g", "go to a packet by its number", () => the("go").showModal());
shortcut("/", "filter", () => filter.focus());
shortcut("f", "follow the stream", () => now.packet && follow.open(now.packet.follow));
shortcut("[", "alert before", () => alert(-1));
shortcut("]", "next alert", () => alert(1));
shortcut("n", "write a note", () => write());
shortcut("x", "clear the filter", () => apply(""));

list.grid.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  inside();
});
list.grid.addEventListener("dblclick", () => inside());
for (const pane of [the("tree"), the("bytes")]) {
  pane.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    tab("list");
    list.grid.focus();
  });
}

function inside() {
  tab("fields");
  /** @type {HTMLElement | null} */ (the("tree").querySelector('[tabindex="0"]'))?.focus();
}

function write() {
  if (!list.selected.number) return;
  tab("fields");
  notes.write();
}

/** On a small screen one pane is seen at a time. @param {string} name */
function tab(name) {
  view.dataset.pane = name;
  for (const each of document.querySelectorAll("#panes [data-pane]")) {
    each.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (each).dataset.pane === name));
  }
  if (name === "list") list.draw();
}
the("panes").addEventListener("click", (/** @type {Event} */ event) => {
  const button = /** @type {HTMLElement} */ (event.target).closest("[data-pane]");
  if (button instanceof HTMLElement) tab(button.dataset.pane ?? "list");
});

the("follow-open").addEventListener("click", () => now.packet && follow.open(now.packet.follow));
the("note-add").addEventListener("click", () => write());
the("help-open").addEventListener("click", () => help());
the("alert-before").addEventListener("click", () => alert(-1));
the("alert-next").addEventListener("click", () => alert(1));
the("go-open").addEventListener("click", () => the("go").showModal());
the("go").addEventListener("close", () => {
  const number = Number(the("go-number").value);
  if (the("go").returnValue === "go" && number > 0) void go(number).then(() => list.grid.focus());
  the("go").returnValue = "";
});
the("empty-clear").addEventListener("click", () => void apply(""));

// ----------------------------------------------------------------------------------------------------- start

async function start() {
  const { filter: text, number, around } = asked();
  api.around = around;
  list.timeMode = now.times;
  now.filter = text;
  filter.set(text);
  chips();
  timeline.mark({ span: timeIn(text, now.startNs) });
  list.grid.focus({ preventScroll: true });
  void notes.load();
  /** @type {() => void} */
  let known = () => undefined;
  alertsKnown = new Promise((done) => (known = done));
  await attempt("list", async () => {
    try {
      await list.reset();
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 400 || !text) throw error;
      filter.refuse(error.message);
      return;
    }
    the("empty").hidden = list.count > 0;
    if (number && now.window && (number < now.window.first || number > now.window.last)) {
      api.around = { at: String(number) };
      await list.reset();
    }
    if (number) {
      const found = await list.seek(number);
      if (found) await list.select(found.index, { middle: true });
    } else if (list.count) await list.select(0);
  });
  view.dataset.ready = "";
  await all();
  known();
  if (now.window && !number) await toAlert(); // a window begins somewhere: what it is about is in its middle
  void some();
  notes.later();
}

void start();
