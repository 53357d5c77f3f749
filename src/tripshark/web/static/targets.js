// What is recorded, every few seconds: history grows, packets are counted, pods come and go.

import { ask, pause } from "./api.js";
import { all, one, replace, visible } from "./dom.js";
import { walk } from "./keys.js";
import { found, lost } from "./lost.js";
import { ago, number, size, span } from "./words.js";

const EVERY = 3000;
const LONGEST = 30_000;
const table = one("#targets tbody");
const sign = one("#live");
const before = new Map(); // key → {packets, at}

function fill(row, it, longest, now) {
  const at = (name) => one(`[data-f="${name}"]`, row);
  const text = (name, words) => { if (at(name).textContent !== visible(words)) replace(at(name), words); };
  row.dataset.key = it.key;
  row.classList.toggle("past", !it.alive);
  text("title", it.title);
  text("name", it.name === it.title ? "" : it.name);
  text("note", it.note);
  text("mode", it.mode);
  text("history", it.history_seconds ? span(it.history_seconds) : "");
  at("gauge").setAttribute("width", String(Math.round((10000 * it.history_seconds) / longest) / 100));
  const last = before.get(it.key);
  if (last && now > last.at) text("rate", number(Math.max(0, Math.round(((it.packets - last.packets) * 1000) / (now - last.at)))));
  before.set(it.key, { packets: it.packets, at: now });
  text("packets", number(it.packets));
  text("drops", number(it.drops));
  at("drops").className = it.drops ? "bad strong" : "";
  text("bytes", size(it.bytes));
  text("addresses", it.addresses.join(" "));
  text("state", it.alive ? "alive" : "gone " + ago(it.gone_ns));
  at("capture").href = "/capture?target=" + encodeURIComponent(it.title);
}

function show(targets) {
  const now = performance.now();
  const longest = Math.max(1, ...targets.map((each) => each.history_seconds));
  const known = new Map(all("tr", table).map((row) => [row.dataset.key, row]));
  targets.sort((a, b) => Number(!a.alive) - Number(!b.alive) || (a.title < b.title ? -1 : 1));
  for (const [n, it] of targets.entries()) {
    const row = known.get(it.key) ?? one("#row").content.firstElementChild.cloneNode(true);
    known.delete(it.key);
    fill(row, it, longest, now);
    if (table.rows[n] !== row) table.insertBefore(row, table.rows[n] ?? null);
  }
  for (const row of known.values()) { before.delete(row.dataset.key); row.remove(); }
  one(".list").hidden = !targets.length;
  one("#nothing").hidden = Boolean(targets.length);
  narrow();
}

function narrow() {
  const needle = one("#needle").value.trim().toLowerCase();
  for (const row of all("tr", table)) row.hidden = Boolean(needle) && !row.textContent.toLowerCase().includes(needle);
}

async function watch() {
  let wait = EVERY;
  for (;;) {
    if (!document.hidden) {
      try {
        show((await ask("/v1/targets")).targets);
        found("targets");
        wait = EVERY;
      } catch (error) {
        if (error.status) lost("targets", "What is recorded cannot be told: " + error.message + ".");
        wait = Math.min(LONGEST, wait * 2);
      }
      replace(sign, wait === EVERY ? "live" : "not live");
      sign.classList.toggle("on", wait === EVERY);
      sign.classList.toggle("off", wait !== EVERY);
    }
    await pause(wait * (0.9 + Math.random() / 5));
  }
}

if (table) {
  sign.hidden = one("#narrow").hidden = false;
  one("#narrow").addEventListener("submit", (event) => event.preventDefault());
  one("#needle").addEventListener("input", narrow);
  walk("#targets tbody tr:not([hidden])");
  watch();
}
