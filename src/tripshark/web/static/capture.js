// A capture by hand: what is wrong is said at its field; what was begun is followed on its own page.

import { ask } from "./api.js";
import { all, el, one, replace } from "./dom.js";

const form = one("#capture");
const answer = one("#answer");

function clear() {
  for (const each of all("[aria-invalid]", form)) each.removeAttribute("aria-invalid");
  for (const each of all(".wrong", form)) each.remove();
  replace(answer);
}

function wrong(name, message, hint) {
  const field = form.elements.namedItem(name);
  const words = el("p", { class: "wrong", role: "alert" }, message, hint && el("span", { class: "soft block" }, hint));
  if (!(field instanceof HTMLElement)) return replace(answer, el("div", { class: "notice bad" }, words));
  field.setAttribute("aria-invalid", "true");
  field.parentElement.append(words);
  field.focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  clear();
  const given = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
  if (!given.target) return wrong("target", "Whose packets?", "");
  const button = one("button", form);
  button.disabled = true;
  try {
    const incident = await ask("/v1/captures", { body: given });
    location.assign("/incidents/" + encodeURIComponent(incident.id));
  } catch (error) {
    button.disabled = false;
    // what is not found is the target; a filter's error may name the filter itself as its place
    const place = error.status === 404 ? "target" : error.where === given.filter ? "filter" : error.where;
    wrong(place, error.message, error.hint);
  }
});
