// What the dissectors say of one packet, as a tree; every field offers the filter that finds its like.

import { el, visible } from "./packets-dom.js";

/** @typedef {import("./packets-api.js").Node} Node */
/** @typedef {{node: Node, parent: Item | null, depth: number, item: HTMLElement | null}} Item */

/** What stays open from packet to packet: fields by name, not by value. @param {Node} node */
const nameOf = (node) => node.filter.split(/[ =]/, 1)[0] || node.label.split(/[:,(]/, 1)[0];

export class Tree {
  /** @type {Item[]} */ #items = [];
  /** @type {Map<HTMLElement, Item>} */ #by = new Map();
  /** @type {Set<string>} */ #open = new Set(["pkt_comment"]);
  /** @type {Set<string>} */ #shut = new Set();
  /** @type {Item | null} */ #chosen = null;
  #chosenName = "";

  /**
   * @param {HTMLElement} pane role=tree goes inside
   * @param {{onChoose: (node: Node | null, byHand: boolean) => void, onHover: (node: Node | null) => void, onFilter: (filter: string, how: string) => void}} world
   */
  constructor(pane, world) {
    this.pane = pane;
    this.world = world;
    pane.addEventListener("click", (event) => this.#click(event));
    pane.addEventListener("keydown", (event) => this.#key(event));
    pane.addEventListener("mouseover", (event) => this.world.onHover(this.#itemAt(event.target)?.node ?? null));
    pane.addEventListener("mouseleave", () => this.world.onHover(null));
  }

  /** The node that is chosen. */
  get chosen() {
    return this.#chosen?.node ?? null;
  }

  /** @param {Node[]} nodes */
  show(nodes) {
    this.#items = [];
    this.#by.clear();
    this.#chosen = null;
    const add = (/** @type {Node} */ node, /** @type {Item | null} */ parent, /** @type {number} */ depth) => {
      const made = { node, parent, depth, item: null };
      this.#items.push(made);
      for (const child of node.children) add(child, made, depth + 1);
    };
    for (const node of nodes) add(node, null, 1);
    const tops = this.#items.filter((each) => each.parent === null);
    const last = tops[tops.length - 1];
    this.pane.replaceChildren(...tops.map((each) => this.#make(each, each === last)));
    const same = this.#chosenName && this.#items.find((each) => each.item && nameOf(each.node) === this.#chosenName);
    const first = same || tops[0];
    if (first?.item) first.item.tabIndex = 0;
    if (same) this.#choose(same, { byHand: false });
    else this.world.onChoose(null, false);
  }

  clear() {
    this.#items = [];
    this.#by.clear();
    this.#chosen = null;
    this.pane.replaceChildren();
    this.world.onChoose(null, false);
  }

  /**
   * @param {Item} item
   * @param {boolean} [isLast]
   */
  #make(item, isLast = false) {
    const { node, depth } = item;
    const name = nameOf(node);
    const isParent = node.children.length > 0;
    const isOpen = isParent && (this.#open.has(name) || (isLast && !this.#shut.has(name)));
    const made = el("li", {
      role: "treeitem", tabindex: -1, "aria-level": depth, "aria-selected": "false",
      "aria-expanded": isParent ? String(isOpen) : null, class: `field ${severity(node.severity)}${node.generated ? " generated" : ""}`,
    }, el("span", { class: "says", text: visible(node.label) }));
    item.item = made;
    this.#by.set(made, item);
    if (isOpen) this.#fill(item);
    return made;
  }

  /** @param {Item} item */
  #fill(item) {
    const children = this.#items.filter((each) => each.parent === item);
    item.item?.append(el("ul", { role: "group" }, ...children.map((each) => this.#make(each))));
  }

  /** @param {EventTarget | null} target */
  #itemAt(target) {
    const place = target instanceof Element ? target.closest("[role=treeitem]") : null;
    return place instanceof HTMLElement ? this.#by.get(place) : undefined;
  }

  /**
   * @param {Item} item
   * @param {boolean} open
   */
  #turn(item, open) {
    if (!item.item || item.node.children.length === 0) return;
    const name = nameOf(item.node);
    item.item.setAttribute("aria-expanded", String(open));
    item.item.querySelector(":scope > ul")?.remove();
    if (open) {
      this.#open.add(name);
      this.#shut.delete(name);
      this.#fill(item);
    } else {
      this.#open.delete(name);
      this.#shut.add(name);
      if (this.#chosen && isBelow(this.#chosen, item)) this.#choose(item, { byHand: true });
    }
  }

  /**
   * @param {Item} item
   * @param {{byHand: boolean, focus?: boolean}} how
   */
  #choose(item, { byHand, focus = false }) {
    for (let up = item.parent; up; up = up.parent) {
      if (up.item === null || up.item.getAttribute("aria-expanded") === "false") {
        const closed = [];
        for (let each = item.parent; each; each = each.parent) closed.unshift(each);
        for (const each of closed) if (each.item?.getAttribute("aria-expanded") === "false") this.#turn(each, true);
        break;
      }
    }
    for (const before of this.pane.querySelectorAll('[tabindex="0"]')) /** @type {HTMLElement} */ (before).tabIndex = -1;
    this.#chosen?.item?.setAttribute("aria-selected", "false");
    this.#chosen = item;
    this.#chosenName = nameOf(item.node);
    if (item.item) {
      item.item.setAttribute("aria-selected", "true");
      item.item.tabIndex = 0;
      if (focus) item.item.focus({ preventScroll: true });
      item.item.querySelector(".says")?.scrollIntoView({ block: "nearest" });
    }
    this.world.onChoose(item.node, byHand);
  }

  /** Forget what was chosen, also for packets to come. */
  unchoose() {
    this.#chosen?.item?.setAttribute("aria-selected", "false");
    this.#chosen = null;
    this.#chosenName = "";
    this.world.onChoose(null, true);
  }

  /**
   * The smallest field that has this byte.
   * @param {number} source
   * @param {number} at
   * @returns {Item | null}
   */
  fieldAt(source, at) {
    let best = null;
    for (const each of this.#items) {
      const { offset, length } = each.node;
      if ((each.node.source ?? 0) !== source || offset === null || !length || at < offset || at >= offset + length) continue;
      if (best === null || length <= (best.node.length ?? 0)) best = each;
    }
    return best;
  }

  /**
   * @param {number} source
   * @param {number} at
   */
  chooseByte(source, at) {
    const found = this.fieldAt(source, at);
    if (found) this.#choose(found, { byHand: false });
    return found?.node ?? null;
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const item = this.#itemAt(event.target);
    if (!item?.item) return;
    const label = /** @type {HTMLElement} */ (item.item.querySelector(".says"));
    const onMark = event.clientX < label.getBoundingClientRect().left + 16;
    if (event.detail === 2 || onMark) this.#turn(item, item.item.getAttribute("aria-expanded") !== "true");
    this.#choose(item, { byHand: true, focus: true });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const item = this.#itemAt(event.target);
    if (!item?.item || event.ctrlKey || event.metaKey || event.altKey) return;
    const visible = /** @type {HTMLElement[]} */ ([...this.pane.querySelectorAll("[role=treeitem]")]);
    const here = visible.indexOf(item.item);
    const isOpen = item.item.getAttribute("aria-expanded");
    const go = (/** @type {HTMLElement | null | undefined} */ to) => {
      const found = to && this.#by.get(to);
      if (found) this.#choose(found, { byHand: true, focus: true });
    };
    switch (event.key) {
      case "ArrowDown": case "j": go(visible[here + 1]); break;
      case "ArrowUp": case "k": go(visible[here - 1]); break;
      case "Home": go(visible[0]); break;
      case "End": go(visible[visible.length - 1]); break;
      case "ArrowRight":
        if (isOpen === "false") this.#turn(item, true);
        else if (isOpen === "true") go(visible[here + 1]);
        break;
      case "ArrowLeft":
        if (isOpen === "true") this.#turn(item, false);
        else go(item.parent?.item);
        break;
      case "*":
        for (const each of this.#items) if (each.parent === item.parent && each.node.children.length) this.#turn(each, true);
        break;
      case " ":
        this.#turn(item, isOpen !== "true");
        break;
      case "Enter":
        if (item.node.filter) this.world.onFilter(item.node.filter, event.shiftKey ? "and" : "only");
        else this.#turn(item, isOpen !== "true");
        break;
      default: return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/**
 * @param {Item} item
 * @param {Item} above
 */
function isBelow(item, above) {
  for (let up = item.parent; up; up = up.parent) if (up === above) return true;
  return false;
}

/** @param {string} word as Wireshark has it */
function severity(word) {
  const known = /** @type {Record<string, string>} */ ({ comment: "s-comment", chat: "s-chat", note: "s-note", warn: "s-warning", warning: "s-warning", error: "s-error" });
  return known[String(word ?? "").toLowerCase()] ?? "";
}
