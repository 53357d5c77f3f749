// Test an event: what the rules in force would do with it.

import { ask } from "./api.js";
import { el, one, replace } from "./dom.js";
import { number, size, span } from "./words.js";

const form = one("#test");
const out = one("#outcome");

function plan(it, title) {
  const seconds = (ns) => span(ns / 1e9);
  return el("section", { class: "verdict" },
    el("h3", {}, title), el("p", {}, it.reason),
    el("dl", { class: "context" },
      pair("Rule", it.rule), pair("Window", `${seconds(it.before_ns)} before to ${seconds(it.after_ns)} after the event`),
      pair("At most", `${size(it.max_bytes)}, ${number(it.max_packets)} packets`), it.filter && pair("Filter of the rule", el("code", {}, it.filter)),
      it.rungs.map((each, n) => pair(n ? "or else, " + each.scope : "Filter, " + each.scope, [el("code", {}, each.core || "everything"), el("span", { class: "soft block" }, each.reason)]))));
}

const pair = (name, ...value) => el("div", {}, el("dt", {}, name), el("dd", { class: "wrap" }, ...value));

function verdict(it) {
  const hit = it.rules.filter((each) => each.matched);
  return [
    el("p", {}, el("span", { class: "strong" }, it.alert.rule), " (" + it.alert.priority + ")"),
    el("dl", { class: "context" }, pair("Target", it.target ?? "none", el("span", { class: "soft block" }, it.target_reason), it.target_hint && el("span", { class: "soft block" }, it.target_hint))),
    it.plan && plan(it.plan, "It would be captured"),
    it.refusal && el("section", { class: "verdict" }, el("h3", { class: "bad" }, "It would not be captured"), el("p", {}, it.refusal.message), it.refusal.hint && el("p", { class: "soft" }, it.refusal.hint)),
    it.where_it_is_recorded && plan(it.where_it_is_recorded, "On a machine that records the target"),
    el("h3", {}, hit.length ? `Matches ${hit.length} of ${it.rules.length} rules` : `Matches none of ${it.rules.length} rules`),
    el("ul", { class: "ledger" }, it.rules.map((each) => el("li", {}, el("span", { class: each.matched ? "good strong" : "soft" }, each.matched ? "yes" : "no"), " ", each.rule, each.why_not.length > 0 && el("span", { class: "soft block" }, each.why_not.join("; "))))),
  ];
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = one("#event");
  const button = one("button", form);
  button.disabled = true;
  field.removeAttribute("aria-invalid");
  try {
    replace(out, verdict(await ask("/v1/rules/test", { body: JSON.parse(field.value) })));
  } catch (error) {
    field.setAttribute("aria-invalid", "true");
    const message = error instanceof SyntaxError ? "This is not JSON: " + error.message : error.message;
    replace(out, el("p", { class: "notice bad", role: "alert" }, message, error.hint && el("span", { class: "soft block" }, error.hint)));
  } finally {
    button.disabled = false;
  }
});
one("#event")?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
