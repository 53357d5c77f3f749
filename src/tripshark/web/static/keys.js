// Keys: `shortcut("j", "next row", act)`; never while somebody types, never with Ctrl, Alt or Meta. `?` lists them.

import { all, el, one } from "./dom.js";

const known = new Map();
let opened = null;

export function shortcut(key, meaning, act) {
  known.set(key, { meaning, act });
}

const types = (it) => it instanceof HTMLElement && (it.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(it.tagName));

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && types(event.target) && !event.defaultPrevented) event.target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || types(event.target)) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary, dialog")) return;
  if (one("dialog[open]")) return;
  const found = known.get(event.key);
  if (!found) return;
  event.preventDefault();
  found.act(event);
});

export function help() {
  opened?.remove();
  const rows = [...known].flatMap(([key, { meaning }]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, meaning)]);
  opened = el("dialog", { "aria-labelledby": "keys-title" },
    el("h2", { id: "keys-title" }, "Keys"), el("dl", { class: "keys" }, rows),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
  document.body.append(opened);
  opened.addEventListener("close", () => opened.remove());
  opened.showModal();
}

// j and k walk through the rows of a list, Enter opens the chosen one's first link.
export function walk(rows) {
  const visible = () => all(rows).filter((row) => row.offsetParent !== null && one("a", row));
  const chosen = () => all(rows).find((row) => row.classList.contains("chosen"));
  function go(step) {
    const them = visible();
    if (!them.length) return;
    const at = them.indexOf(chosen());
    const next = them[at < 0 ? (step > 0 ? 0 : them.length - 1) : Math.min(them.length - 1, Math.max(0, at + step))];
    choose(next);
  }
  function choose(row) {
    for (const each of all(rows)) each.classList.toggle("chosen", each === row);
    row.scrollIntoView({ block: "nearest" });
    one("a", row)?.focus({ preventScroll: true });
  }
  shortcut("j", "next row", () => go(1));
  shortcut("k", "previous row", () => go(-1));
  shortcut("Enter", "open the chosen row", () => chosen() && one("a", chosen()).click());
}
