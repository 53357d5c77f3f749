// On every page: keys, times that stay true, and the way to the shortcuts.

import { all, one } from "./dom.js";
import { help, shortcut } from "./keys.js";
import { ago } from "./words.js";

shortcut("/", "search", () => one('[data-key="/"]:not([hidden])')?.focus());
shortcut("?", "this list", help);
for (const [key, name, to] of [["1", "incidents", "/"], ["2", "targets", "/targets"], ["3", "rules", "/rules"], ["4", "capture by hand", "/capture"]]) {
  shortcut(key, "go to " + name, () => location.assign(to));
}

for (const each of all('[data-action="help"]')) {
  each.hidden = false;
  each.addEventListener("click", help);
}

// "12 s ago" grows older while the page is open; the server's own clock is the measure
const skew = Date.now() - Number(document.body.dataset.now || Date.now());
export function refresh() {
  for (const each of all("time[data-ns]")) {
    const words = ago(Number(each.dataset.ns), Date.now() - skew);
    if (each.textContent !== words) each.textContent = words;
  }
}
setInterval(refresh, 5000);
