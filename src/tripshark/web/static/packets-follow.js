// A conversation as its two sides said it, coloured by side, as text or hex; what could do harm is only ever text.

import { bytesOf, copy, el, lines, save, say } from "./packets-dom.js";
import { isStale, Problem } from "./packets-api.js";

/** @typedef {import("./packets-api.js").Stream} Stream */
/** @typedef {{frame: number, from: "client" | "server", bytes: Uint8Array}} Piece */

const SHOWN = 400_000; // bytes drawn at once; more with a button
const TEXT_CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

/** @typedef {{proto: string, filter: string, stream: number}} Way a way in which a packet's stream can be followed */

export class Follow {
  /** @type {Piece[]} */ #pieces = [];
  /** @type {Stream | null} */ #stream = null;
  /** @type {Way[]} */ #ways = [];
  /** @type {Way | null} */ #way = null;
  /** @type {AbortController | null} */ #asking = null;
  #shown = SHOWN;
  #liked = "";

  /**
   * @param {HTMLDialogElement} dialog
   * @param {{
   *   fetch: (proto: string, stream: number, signal: AbortSignal) => Promise<Stream>,
   *   onFilter: (filter: string) => void,
   *   onPacket: (number: number) => void,
   *   name: () => string,
   * }} world
   */
  constructor(dialog, world) {
    this.dialog = dialog;
    this.world = world;
    const part = (/** @type {string} */ name) => /** @type {any} */ (dialog.querySelector(`[data-part="${name}"]`));
    this.proto = /** @type {HTMLSelectElement} */ (part("proto"));
    this.side = /** @type {HTMLSelectElement} */ (part("side"));
    this.form = /** @type {HTMLSelectElement} */ (part("as"));
    this.body = /** @type {HTMLElement} */ (part("body"));
    this.status = /** @type {HTMLElement} */ (part("status"));
    this.title = /** @type {HTMLElement} */ (part("title"));
    this.proto.addEventListener("change", () => {
      const way = this.#ways[Number(this.proto.value)];
      this.#liked = way.proto;
      void this.#load(way);
    });
    for (const each of [this.side, this.form]) each.addEventListener("change", () => this.#fresh());
    part("copy").addEventListener("click", () => void this.#copy());
    part("text").addEventListener("click", () => save(`${this.world.name()}.txt`, [this.#text()], "text/plain;charset=utf-8"));
    part("raw").addEventListener("click", () => save(`${this.world.name()}.bin`, this.#chosen().map((each) => /** @type {BlobPart} */ (each.bytes)), "application/octet-stream"));
    part("only").addEventListener("click", () => {
      this.dialog.close();
      if (this.#way) this.world.onFilter(this.#way.filter.replace(/ eq /g, " == ").replace(/ and /g, " && "));
    });
    part("close").addEventListener("click", () => this.dialog.close());
    this.body.addEventListener("click", (event) => {
      const link = /** @type {HTMLElement} */ (event.target).closest("[data-frame]");
      if (!(link instanceof HTMLElement)) return;
      this.dialog.close();
      this.world.onPacket(Number(link.dataset.frame));
    });
    dialog.addEventListener("close", () => this.#asking?.abort());
  }

  /** @param {Way[]} ways */
  open(ways) {
    if (ways.length === 0) return;
    this.#ways = ways;
    this.proto.replaceChildren(...ways.map((way, i) => el("option", { value: String(i), text: way.proto })));
    const plain = ways.findIndex((way) => /^(TCP|UDP)$/i.test(way.proto));
    const liked = ways.findIndex((way) => way.proto === this.#liked);
    const best = Math.max(0, liked >= 0 ? liked : plain); // as it was sent, unless another way was chosen before
    this.proto.value = String(best);
    if (!this.dialog.open) this.dialog.showModal();
    this.body.focus();
    void this.#load(ways[best]);
  }

  /** @param {Way} way */
  async #load(way) {
    this.#way = way;
    this.#asking?.abort();
    const stop = (this.#asking = new AbortController());
    this.title.textContent = `${way.proto} · ${way.filter.replace(/ eq /g, " ")}`;
    this.status.textContent = "Putting it together …";
    this.body.replaceChildren();
    this.body.setAttribute("aria-busy", "true");
    try {
      const stream = await this.world.fetch(way.proto.toLowerCase(), way.stream, stop.signal);
      if (stop.signal.aborted) return;
      this.#stream = stream;
      this.#pieces = stream.chunks.map((each) => ({ frame: each.frame, from: each.from, bytes: bytesOf(each.data) }));
      const [client, server] = [...this.side.options].slice(1);
      client.textContent = `${stream.client || "Client"} → `;
      server.textContent = `${stream.server || "Server"} → `;
      this.#fresh();
    } catch (error) {
      if (isStale(error)) return;
      const problem = error instanceof Problem ? error : new Problem("broken", String(error));
      this.#stream = null;
      this.#pieces = [];
      this.status.textContent = "";
      const said = problem.status !== 404 ? `${problem.message} ${problem.hint}`.trim()
        : way.proto.toUpperCase() === "TLS" ? "Nothing of this stream is decrypted: its keys are not in the file. As TCP it is shown as it was sent."
        : `Nothing of this stream was said in ${way.proto}.`;
      this.body.replaceChildren(el("p", { role: "alert", class: "bad", text: said }),
        problem.kind !== "refused" && el("button", { type: "button", text: "Try again", on: { click: () => void this.#load(way) } }));
    } finally {
      this.body.removeAttribute("aria-busy");
    }
  }

  #chosen() {
    const side = this.side.value;
    return this.#pieces.filter((each) => side === "both" || each.from === side);
  }

  #fresh() {
    this.#shown = SHOWN;
    this.#draw();
  }

  #draw() {
    const pieces = this.#chosen();
    const sum = (/** @type {string} */ side) => this.#pieces.filter((each) => each.from === side).reduce((all, each) => all + each.bytes.length, 0);
    this.status.textContent = `${count(sum("client"))} from the client, ${count(sum("server"))} from the server${this.#stream?.truncated ? " · cut: the conversation goes on beyond what is shown here" : ""}`;
    this.status.classList.toggle("bad", this.#stream?.truncated ?? false);
    const made = [];
    let room = this.#shown;
    const decoders = { client: new TextDecoder(), server: new TextDecoder() };
    for (const piece of pieces) {
      if (room <= 0) break;
      const part = piece.bytes.subarray(0, room);
      room -= part.length;
      const text = this.form.value === "hex" ? hexed(part) : readable(decoders[piece.from], part);
      made.push(el("div", { class: `said ${piece.from}` },
        el("button", { type: "button", class: "said-at", data: { frame: String(piece.frame) }, title: `Go to packet ${piece.frame}`, text: String(piece.frame) }),
        el("pre", { text })));
    }
    const all = pieces.reduce((sum, each) => sum + each.bytes.length, 0);
    if (all > this.#shown) {
      made.push(el("button", { type: "button", text: `Show more: ${count(all - this.#shown)} are not drawn yet`, on: { click: () => {
        this.#shown += 4 * SHOWN;
        this.#draw();
      } } }));
    }
    if (this.#stream && all === 0) made.push(el("p", { class: "soft", text: "Nothing was said on this side." }));
    this.body.replaceChildren(...made);
  }

  #text() {
    const decoders = { client: new TextDecoder(), server: new TextDecoder() };
    return this.#chosen().map((each) => (this.form.value === "hex" ? `${hexed(each.bytes)}\n` : readable(decoders[each.from], each.bytes))).join("");
  }

  async #copy() {
    say((await copy(this.#text())) ? "Copied." : "This browser does not allow copying.");
  }
}

/**
 * Bytes as text in which no control character does anything.
 * @param {TextDecoder} decoder of this side: a letter may be cut in two
 * @param {Uint8Array} bytes
 */
function readable(decoder, bytes) {
  return lines(decoder.decode(bytes, { stream: true }).replace(/\r(?!\n)/g, "·").replace(TEXT_CONTROLS, "·"));
}

/** @param {Uint8Array} bytes */
function hexed(bytes) {
  const rows = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const hex = row.map((each) => each.toString(16).padStart(2, "0"));
    const text = row.map((each) => (each >= 0x20 && each < 0x7f ? String.fromCharCode(each) : "·")).join("");
    rows.push(`${at.toString(16).padStart(6, "0")}  ${hex.slice(0, 8).join(" ").padEnd(23)}  ${hex.slice(8).join(" ").padEnd(23)}  ${text}`);
  }
  return rows.join("\n");
}

/** @param {number} bytes */
const count = (bytes) => `${String(bytes).replace(/\B(?=(\d{3})+$)/g, "\u202f")} bytes`;
