// How elements are made here: from names and texts, never from markup. What a packet says stays text.

/**
 * One element. `text` becomes its textContent, `on` its listeners, `data` its dataset; other keys are attributes,
 * left out where the value is null or false.
 * @param {string} tag
 * @param {Record<string, unknown> & {text?: string, on?: Record<string, (event: any) => void>, data?: Record<string, string>}} [properties]
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = String(value);
    else if (key === "on") for (const [name, listener] of Object.entries(value)) made.addEventListener(name, listener);
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key === "class") made.className = String(value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children) if (child || child === "") made.append(child);
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

// C0 and C1 controls, marks that turn the reading direction, and what takes no room: in a packet they are there to deceive.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\u3164\ufeff\ufff9-\ufffb]/g;

/**
 * Text with everything that cannot be seen made visible; `keep` names characters that stay as they are.
 * @param {unknown} text
 * @param {string} [keep]
 */
export function visible(text, keep = "") {
  return String(text ?? "").replace(HIDDEN, (mark) => {
    if (keep.includes(mark)) return mark;
    const code = mark.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code); // ␀ to ␟
    if (code === 0x7f) return "\u2421";
    return `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

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
  const link = el("a", { href: address, download: name });
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
