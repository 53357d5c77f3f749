// The page of one incident: brushing time narrows its tables and links; what goes on is followed.

import { all, el, given, one, replace } from "./dom.js";
import { shortcut, walk } from "./keys.js";
import { follow } from "./live.js";
import { found, lost } from "./lost.js";
import { number, size } from "./words.js";

const page = one(".incident");
const data = given("timeline-data");

// ---- time: a stretch chosen in the picture, or typed

// exact, as text: nanoseconds are more than JavaScript's numbers hold
function epoch(seconds) {
  const ns = BigInt(data.t0_ns) + BigInt(Math.round(seconds * 1e6)) * 1000n;
  return `${ns / 1000000000n}.${String(ns % 1000000000n).padStart(9, "0")}`;
}

function narrow(from, to) {
  const chosen = from !== null;
  const time = chosen ? `frame.time_epoch >= ${epoch(from)} && frame.time_epoch <= ${epoch(to)}` : "";
  for (const link of all("a[data-filter]")) {
    const own = link.dataset.filter;
    const address = new URL(link.href);
    const filter = own && time ? `(${own}) && ${time}` : own || time;
    if (filter) address.searchParams.set("filter", filter);
    else address.searchParams.delete("filter");
    link.href = address.pathname + address.search.replaceAll("+", "%20") + address.hash;
  }
  for (const row of all("tr[data-from]")) {
    row.hidden = chosen && (Number(row.dataset.to) < from || Number(row.dataset.from) > to);
  }
  for (const card of all(".card")) {
    card.classList.toggle("emptied", chosen && !all("tbody tr", card).some((row) => !row.hidden));
  }
}

async function picture() {
  const box = one("#timeline");
  const { draw } = await import("./timeline.js");
  const line = one("#brush");
  const from = el("input", { type: "number", step: "any", "aria-label": "from, seconds around the event" });
  const to = el("input", { type: "number", step: "any", "aria-label": "to, seconds around the event" });
  const clear = el("button", { type: "button", class: "quiet" }, "Clear");
  const open = el("a", { class: "button", href: one(".actions .first").getAttribute("href"), "data-filter": "" }, "Packets in this stretch");
  replace(line, "Only ", from, " to ", to, " s around the event ", clear, " ", open);
  line.hidden = false;
  clear.hidden = open.hidden = true;

  function act(a, b) {
    clear.hidden = open.hidden = a === null;
    narrow(a, b);
  }
  function chosen(a, b) {
    from.value = a === null ? "" : Number(a.toFixed(6));
    to.value = b === null ? "" : Number(b.toFixed(6));
    act(a, b);
  }
  const plot = draw(box, data, { legend: one("#legend"), chosen });
  const [least, most] = plot.range;
  from.placeholder = least.toFixed(2);
  to.placeholder = most.toFixed(2);
  line.addEventListener("input", () => {
    const typed = from.value !== "" || to.value !== "";
    const ends = [from.value === "" ? least : Number(from.value), to.value === "" ? most : Number(to.value)].sort((a, b) => a - b);
    plot.choose(...(typed ? ends : [null, null]));
    act(...(typed ? ends : [null, null]));
  });
  clear.addEventListener("click", () => { plot.choose(null, null); chosen(null, null); from.focus(); });
}
if (data) picture();

// ---- what goes on: figures while a capture runs, the whole page when its state has changed

const seen = (it) => `${it.state} ${it.manifest_sha256} ${[...it.summary].length}`;

// once for each state: a page that cannot show it must not load for ever
function anew(state) {
  const key = "seen " + page.dataset.id;
  if (sessionStorage.getItem(key) === state) return;
  sessionStorage.setItem(key, state);
  location.reload();
}

follow(page.dataset.stream, {
  incident(it) {
    if (seen(it) !== page.dataset.seen) return anew(seen(it));
    replace(one("#packets"), number(it.packets));
    replace(one("#bytes"), size(it.bytes));
  },
  problem: ({ message }) => (message ? lost("catalogue", "What goes on cannot be read: " + message) : found("catalogue")),
});

// ---- commands: this server's address, and a button that copies

for (const each of all("[data-origin]")) replace(each, location.origin);
for (const each of all("pre[data-copy]")) {
  const button = el("button", { type: "button", class: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(each.textContent);
      replace(button, "Copied");
    } catch {
      getSelection().selectAllChildren(each);
      replace(button, "Selected");
    }
    setTimeout(() => replace(button, "Copy"), 1500);
  });
  each.before(button);
}

walk(".findings tbody tr:not([hidden]), .card tbody tr:not([hidden])");
shortcut("p", "open packets", () => one(".actions .first")?.click());
