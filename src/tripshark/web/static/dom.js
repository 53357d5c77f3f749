// Elements are built, never parsed: whatever data says becomes text, and nothing in it stays invisible.

// as tripshark.model.text.visible: controls, formats (bidirectional marks, zero widths), surrogates, private, unassigned
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

export function visible(text) {
  return String(text).replace(INVISIBLE, (each) => {
    const code = each.codePointAt(0);
    if (code < 0x100) return "\\x" + code.toString(16).padStart(2, "0");
    if (code < 0x10000) return "\\u" + code.toString(16).padStart(4, "0");
    return "\\U" + code.toString(16).padStart(8, "0");
  });
}

// el("a", {href: "/targets", class: "x"}, "Targets"): null and false children are left out, the rest is text or a node
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "href" && !/^[/#?]/.test(value)) throw new Error("links go to this server only");
    if (key.startsWith("on") || key === "style") throw new Error("no " + key + " in markup");
    if (value === true) made.setAttribute(key, "");
    else made.setAttribute(key, visible(value));
  }
  put(made, ...children);
  return made;
}

export function put(where, ...children) {
  for (const each of children.flat()) {
    if (each === null || each === undefined || each === false) continue;
    where.append(each instanceof Node ? each : visible(each));
  }
  return where;
}

export function replace(where, ...children) {
  where.replaceChildren();
  return put(where, ...children);
}

export const one = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// the data that the server wrote into this page as <script type="application/json" id="…">
export function given(id) {
  const found = document.getElementById(id);
  return found ? JSON.parse(found.textContent) : null;
}
