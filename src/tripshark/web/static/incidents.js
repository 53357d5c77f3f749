// The list of incidents: what is new comes on top by itself.

import { ask } from "./api.js";
import { all, el, one, replace, visible } from "./dom.js";
import { walk } from "./keys.js";
import { follow } from "./live.js";
import { found, lost } from "./lost.js";
import { ago, exact, number, severity, size } from "./words.js";

const MOST = 200; // rows that stay
const table = one("#incidents tbody");
const sign = one("#live");
const place = (it) => one(`#incidents tr[data-id="${CSS.escape(it.id)}"]`);

function fill(row, it) {
  const at = (name) => one(`[data-f="${name}"]`, row);
  const text = (name, words) => { if (at(name).textContent !== visible(words)) replace(at(name), words); };
  const word = it.state === "sealed" ? it.ledger : it.state;
  const names = it.namespaces.filter((each) => each !== it.namespace).map((each) => (each === "*" ? "others" : each));
  row.dataset.id = it.id;
  row.dataset.opened = it.opened_ns;
  at("link").href = "/incidents/" + encodeURIComponent(it.id);
  text("link", it.target || it.target_key);
  text("others", it.namespace && names.length ? "with " + names.join(", ") : "");
  text("rule", it.falco_rule || it.rule);
  text("summary", it.problem || it.summary);
  if (!one("time", row)) replace(at("time"), el("time", { datetime: exact(it.t0_ns), title: exact(it.t0_ns), "data-ns": it.t0_ns }, ago(it.t0_ns)));
  for (const name of ["priority", "priority2"]) { text(name, it.priority); at(name).className = "severity " + severity(it.priority); }
  for (const name of ["word", "word2"]) { text(name, word); at(name).className = "word " + word.replace(/[^a-z]/g, ""); }
  text("alerts", number(it.alerts));
  text("packets", number(it.packets));
  text("bytes", size(it.bytes));
}

function incident(it) {
  const known = place(it);
  if (known) return fill(known, it);
  if (!sign.dataset.first) return; // an older page stays as it is
  const row = one("#row").content.firstElementChild.cloneNode(true);
  fill(row, it);
  row.classList.add("new");
  const older = all("tr", table).find((each) => Number(each.dataset.opened) < it.opened_ns);
  table.insertBefore(row, older ?? null);
  while (table.rows.length > MOST) table.rows[MOST].remove();
  shown();
}

function gone({ id }) {
  place({ id })?.remove();
  shown();
}

// what happened while the connection was lost; what somebody is typing meanwhile stays
async function again() {
  if (!sign.dataset.first) return;
  const { incidents } = await ask("/v1/incidents" + new URL(sign.dataset.stream, location.href).search);
  incidents.reverse().forEach(incident);
}

function shown() {
  one(".list").hidden = !table.rows.length;
  one("#nothing").hidden = Boolean(table.rows.length);
}

sign.hidden = false;
follow(sign.dataset.stream, {
  incident,
  gone,
  problem: ({ message }) => (message ? lost("catalogue", "What is new cannot be read: " + message) : found("catalogue")),
  again,
  state(word) {
    replace(sign, { live: "live", lost: "not live", paused: "paused" }[word] ?? word);
    sign.classList.toggle("on", word === "live");
    sign.classList.toggle("off", word !== "live");
  },
});
walk("#incidents tbody tr");
