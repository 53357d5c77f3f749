// Where the panes meet: edges that can be moved by hand and by key, and stay where they were left.

import { memory } from "./packets-dom.js";

/**
 * Every [role=separator] in here moves the custom property it names, in percent of its parent.
 * @param {HTMLElement} view
 */
export function splitters(view) {
  for (const edge of /** @type {NodeListOf<HTMLElement>} */ (view.querySelectorAll("[role=separator]"))) {
    const name = edge.dataset.property ?? "";
    const upright = edge.getAttribute("aria-orientation") === "vertical";
    const place = (/** @type {number} */ percent) => {
      const kept = Math.round(Math.min(85, Math.max(15, percent)) * 10) / 10;
      view.style.setProperty(name, `${kept}%`);
      edge.setAttribute("aria-valuenow", String(Math.round(kept)));
      return kept;
    };
    const keep = (/** @type {number} */ percent) => memory.set(`pane${name}`, place(percent));
    const at = () => Number(edge.getAttribute("aria-valuenow"));
    const kept = memory.get(`pane${name}`, null);
    if (typeof kept === "number") place(kept);
    edge.addEventListener("pointerdown", (event) => {
      edge.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    edge.addEventListener("pointermove", (event) => {
      if (!edge.hasPointerCapture(event.pointerId)) return;
      const box = /** @type {HTMLElement} */ (edge.parentElement).getBoundingClientRect();
      keep(upright ? ((event.clientX - box.left) / box.width) * 100 : ((event.clientY - box.top) / box.height) * 100);
    });
    edge.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -2, ArrowUp: -2, ArrowRight: 2, ArrowDown: 2 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      keep(at() + step);
    });
  }
}
