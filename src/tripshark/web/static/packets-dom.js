// What the packet view adds to `dom.js`: listeners, waiting until the hand rests, remembering, copying, saving.

import { el as plain, visible } from "./dom.js";

export { visible };

/**
 * One element, as `dom.js` makes them. `text` becomes its textContent as it is, `on` its listeners, `data` its dataset.
 * @param {string} tag
 * @param {Record<string, unknown> & {text?: string, on?: Record<string, (event: any) => void>, data?: Record<string, string>}} [properties]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function el(tag, { text, on = {}, data = {}, ...attributes } = {}, ...children) {
  const made = plain(tag, attributes, ...children);
  if (text !== undefined) made.textContent = text;
  for (const [name, listener] of Object.entries(on)) made.addEventListener(name, listener);
  Object.assign(made.dataset, data);
  return made;
}

/**
 * The element with this id. The page and its modules belong together: one that is missing is a mistake of ours.
 * @param {string} id
 * @returns {any}
 */
export function the(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * Lines of text in which nothing is hidden but the ends of lines and tabs.
 * @param {string} text
 */
export const lines = (text) => text.split(/(\r?\n|\t)/).map((each, i) => (i % 2 ? each.replace("\r", "") : visible(each))).join("");

/**
 * Calls `work` once no call has come for `ms`; `.now()` does it at once, `.cancel()` never.
 * @template {unknown[]} A
 * @param {number} ms
 * @param {(...given: A) => void} work
 */
export function debounced(ms, work) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** @param {A} given */
  const call = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
  call.cancel = () => clearTimeout(timer);
  /** @param {A} given */
  call.now = (...given) => {
    clearTimeout(timer);
    work(...given);
  };
  return call;
}

/** What this browser remembers for us, or nothing where storage is denied. */
export const memory = {
  /**
   * @param {string} key
   * @param {any} otherwise
   */
  get(key, otherwise) {
    try {
      const kept = localStorage.getItem(`tripshark.${key}`);
      return kept === null ? otherwise : JSON.parse(kept);
    } catch {
      return otherwise;
    }
  },
  /**
   * @param {string} key
   * @param {unknown} value
   */
  set(key, value) {
    try {
      localStorage.setItem(`tripshark.${key}`, JSON.stringify(value));
    } catch {
      // Denied or full: then it is forgotten with the page.
    }
  },
};

/**
 * Puts text on the clipboard, also where the page is not served over TLS.
 * @param {string} text
 * @returns {Promise<boolean>}
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = /** @type {HTMLTextAreaElement} */ (el("textarea", { class: "unseen", "aria-hidden": "true" }));
    area.value = text;
    const around = document.querySelector("dialog[open]") ?? document.body;
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    around.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before?.focus();
    return done;
  }
}

/**
 * Hands bytes or text to the reader as a file.
 * @param {string} name
 * @param {BlobPart[]} pieces
 * @param {string} type
 */
export function save(name, pieces, type) {
  const address = URL.createObjectURL(new Blob(pieces, { type }));
  const link = /** @type {HTMLAnchorElement} */ (el("a", { download: name }));
  link.href = address;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/**
 * @param {string} base64
 * @returns {Uint8Array}
 */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

let sayAgain = false;

/**
 * Says it to whoever listens instead of looking, and shows it for a moment.
 * @param {string} text
 */
export function say(text) {
  const place = the("said");
  sayAgain = !sayAgain;
  place.textContent = text + (sayAgain ? "\u00a0" : ""); // the same words twice are news, too
  place.classList.add("shown");
  fade();
}
const fade = debounced(2500, () => the("said").classList.remove("shown"));
