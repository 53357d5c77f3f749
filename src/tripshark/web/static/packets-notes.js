// What analysts wrote at packets: read, written, changed and taken back. What is typed is never lost to an error.

import { debounced, el, lines, say, visible } from "./packets-dom.js";
import { Problem } from "./packets-api.js";

/** @typedef {import("./packets-api.js").Note} Note */

const MOST = 4000; // characters; the server refuses more

export class Notes {
  /** @type {Map<number, Note[]>} */ #by = new Map();
  /** @type {Map<string, string>} */ #drafts = new Map(); // by packet, and by note that is being changed
  #number = 0;
  #editing = ""; // key of the draft that is open
  #saving = false;
  #problem = "";

  /**
   * @param {HTMLElement} place in the packet's details
   * @param {{
   *   fetch: () => Promise<Note[]>,
   *   add: (frame: number, text: string) => Promise<Note>,
   *   remove: (id: string) => Promise<void>,
   *   onChange: () => void,
   *   onProblem: (error: unknown) => void,
   *   onFine: () => void,
   *   onLeave: () => void,
   * }} world
   */
  constructor(place, world) {
    this.place = place;
    this.world = world;
  }

  /** @param {number} number */
  has(number) {
    return this.#by.has(number);
  }

  /** Numbers of the packets that have notes, ascending. */
  get numbers() {
    return [...this.#by.keys()].sort((a, b) => a - b);
  }

  async load() {
    try {
      const all = await this.world.fetch();
      this.#by.clear();
      for (const note of all) this.#keep(note);
      this.world.onFine();
      this.world.onChange();
      if (!this.#editing) this.#draw();
    } catch (error) {
      this.world.onProblem(error);
    }
  }

  /** @param {Note} note */
  #keep(note) {
    this.#by.set(note.frame, [...(this.#by.get(note.frame) ?? []).filter((each) => each.id !== note.id), note]);
  }

  /** @param {Note} note */
  #drop(note) {
    const left = (this.#by.get(note.frame) ?? []).filter((each) => each.id !== note.id);
    if (left.length) this.#by.set(note.frame, left);
    else this.#by.delete(note.frame);
  }

  /** The notes of this packet; what was being typed at another one waits there. @param {number} number */
  show(number) {
    if (number === this.#number) return;
    this.#number = number;
    const key = `packet ${number}`;
    this.#editing = this.#drafts.get(key) ? key : "";
    this.#problem = "";
    this.#draw();
  }

  /** Write a note at the packet that is shown. */
  write() {
    if (!this.#number) return;
    this.#edit(`packet ${this.#number}`, "");
  }

  /**
   * @param {string} key
   * @param {string} text
   */
  #edit(key, text) {
    this.#editing = key;
    if (!this.#drafts.has(key)) this.#drafts.set(key, text);
    this.#problem = "";
    this.#draw();
    const area = this.place.querySelector("textarea");
    area?.focus();
    area?.setSelectionRange(area.value.length, area.value.length);
  }

  #draw() {
    const notes = this.#by.get(this.#number) ?? [];
    const own = `packet ${this.#number}`;
    const made = notes.map((note) => (this.#editing === note.id ? this.#editor(note.id, note) : this.#written(note)));
    if (this.#editing === own) made.push(this.#editor(own, null));
    this.place.replaceChildren(...made);
    this.place.hidden = made.length === 0;
  }

  /** @param {Note} note */
  #written(note) {
    const at = note.at.slice(0, 16).replace("T", " ");
    return el("article", { class: "note" },
      el("p", { class: "note-text", text: lines(note.text) }),
      el("p", { class: "note-by" }, el("span", { text: `${visible(note.by)} · ${at} UTC` }),
        el("button", { type: "button", class: "plain", text: "Edit", "aria-label": `Edit the note of ${visible(note.by)}`, on: { click: () => this.#edit(note.id, note.text) } }),
        el("button", { type: "button", class: "plain", text: "Delete", "aria-label": `Delete the note of ${visible(note.by)}`, on: { click: () => void this.#remove(note) } })));
  }

  /**
   * @param {string} key
   * @param {Note | null} before
   */
  #editor(key, before) {
    const frame = this.#number;
    const area = /** @type {HTMLTextAreaElement} */ (el("textarea", {
      rows: 3, maxlength: MOST, "aria-label": `Note at packet ${frame}`, placeholder: "What you see here …",
      on: {
        input: () => this.#drafts.set(key, area.value),
        keydown: (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void this.#save(key, frame, before);
          else if (event.key === "Escape") this.#cancel(key);
          else return;
          event.preventDefault();
          event.stopPropagation();
        },
      },
    }));
    area.value = this.#drafts.get(key) ?? "";
    return el("form", { class: "note editing", on: { submit: (event) => {
      event.preventDefault();
      void this.#save(key, frame, before);
    } } },
    area,
    el("p", { class: "bad", role: "alert", hidden: this.#problem === "", text: this.#problem }),
    el("p", { class: "note-by" },
      el("button", { type: "submit", class: "first", disabled: this.#saving, text: this.#saving ? "Saving …" : before ? "Save" : "Add the note" }),
      el("button", { type: "button", text: "Cancel", on: { click: () => this.#cancel(key) } }),
      el("span", { class: "soft", text: "Ctrl+Enter saves" })));
  }

  /** @param {string} key */
  #cancel(key) {
    this.#drafts.delete(key);
    this.#editing = "";
    this.#problem = "";
    this.#draw();
    this.world.onLeave();
  }

  /**
   * @param {string} key
   * @param {number} frame
   * @param {Note | null} before the note that is changed: the new one is there before the old one goes
   */
  async #save(key, frame, before) {
    const text = this.#drafts.get(key)?.trim() ?? "";
    if (this.#saving || text === "") return;
    if (before && text === before.text) return this.#cancel(key);
    this.#saving = true;
    this.#draw();
    try {
      this.#keep(await this.world.add(frame, text));
      this.#drafts.delete(key);
      if (this.#editing === key) this.#editing = "";
      this.#problem = "";
      if (before) {
        await this.world.remove(before.id);
        this.#drop(before);
      }
      say(before ? "The note is changed." : "The note is kept.");
      this.world.onLeave();
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#saving = false;
      this.#draw();
      this.world.onChange();
      if (this.#problem) this.place.querySelector("textarea")?.focus();
    }
  }

  /** @param {Note} note */
  async #remove(note) {
    try {
      await this.world.remove(note.id);
      this.#drop(note);
      say("The note is deleted.");
    } catch (error) {
      if (error instanceof Problem && error.status === 404) this.#drop(note);
      else this.#failed(error);
    }
    this.#draw();
    this.world.onChange();
    this.world.onLeave();
  }

  /** @param {unknown} error */
  #failed(error) {
    const problem = error instanceof Problem ? error : new Problem("broken", String(error));
    this.#problem = `Not saved: ${problem.message} ${problem.hint}`.trim();
    if (!this.#editing) say(this.#problem);
    if (problem.kind !== "refused") this.world.onProblem(error);
  }

  /** Words that were typed and not saved. */
  get isDirty() {
    return [...this.#drafts.values()].some((text) => text.trim() !== "");
  }

  /** Look again after a while: others write, too. */
  later = debounced(60_000, () => {
    if (!document.hidden) void this.load();
    this.later();
  });
}
