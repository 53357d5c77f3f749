// The line on top that says what is not there at the moment: one for each cause, gone when it is back.

import { el, one, replace } from "./dom.js";

const causes = new Map();

export function lost(cause, words, signin = "") {
  causes.set(cause, { words, signin });
  show();
}

export function found(cause) {
  if (causes.delete(cause)) show();
}

function show() {
  const line = one("#lost");
  if (!line) return;
  const [first] = causes.values();
  line.hidden = !first;
  if (!first) return replace(line);
  const here = location.pathname + location.search + location.hash;
  replace(line, first.words, " ", first.signin && el("a", { href: first.signin + "?next=" + encodeURIComponent(here) }, "Sign in again"));
}
