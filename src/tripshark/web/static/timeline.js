// The picture of an incident over time: sent above, received below, alerts and window on it. Times are seconds from T0.

import uPlot from "./vendor/uPlot.esm.js";
import { el, replace } from "./dom.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

// draw(box, data, {chosen(from, to)}): `chosen` is called with the stretch that was brushed, or null when it was let go.
// Returns {choose(from, to)} to set it from elsewhere.
export function draw(box, data, { legend, chosen }) {
  const rate = (count) => count / data.step;
  const at = data.packets_out.map((_, n) => data.start + n * data.step);
  // one more edge, so that the last bin has its width
  const edges = [...at, data.start + at.length * data.step];
  const close = (counts, sign) => [...counts.map((each) => sign * rate(each)), 0];
  const values = [edges, close(data.packets_out, 1), close(data.packets_in, -1)];
  const most = Math.max(1, ...values[1], ...values[2].map(Math.abs));
  const span = edges[edges.length - 1] - edges[0] || data.step;
  const seen = [Math.min(edges[0], -span * 0.01, ...data.alerts.map((each) => each.at ?? 0)), Math.max(edges[edges.length - 1], span * 0.01, ...data.alerts.map((each) => each.at ?? 0))];
  let plot = null;

  function make() {
    const fonts = "11px " + getComputedStyle(document.body).fontFamily;
    const axis = { stroke: colour("soft"), font: fonts, grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1, size: 4 } };
    const steps = uPlot.paths.stepped({ align: 1 });
    plot?.destroy();
    plot = new uPlot({
      width: Math.max(260, box.clientWidth), height: box.clientWidth < 560 ? 170 : 190, padding: [14, 8, 0, 0],
      scales: { x: { time: false, range: () => pad(seen) }, y: { range: () => [-most * 1.08, most * 1.15] } },
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false } },
      series: [
        {},
        { label: "sent", stroke: colour("out"), fill: colour("out") + "33", width: 1.25, paths: steps, points: { show: false } },
        { label: "received", stroke: colour("in"), fill: colour("in") + "33", width: 1.25, paths: steps, points: { show: false } },
      ],
      axes: [
        { ...axis, size: 30, values: (_, ticks) => ticks.map((each) => sign(each, span)) },
        { ...axis, size: 46, values: (_, ticks) => ticks.map((each) => short(Math.abs(each))) },
      ],
      hooks: { drawClear: [under], draw: [over], setSelect: [select], setCursor: [read] },
    }, values, box);
    plot.over.addEventListener("dblclick", () => { choose(null, null); chosen(null, null); });
  }

  const pad = ([from, to]) => [from - (to - from) * 0.012, to + (to - from) * 0.012];
  const x = (u, value) => Math.round(u.valToPos(value, "x", true));

  // what was covered by the capture, and what is known to be missing in it
  function under(u) {
    const { ctx, bbox } = u;
    const [from, to] = data.covered;
    ctx.save();
    if (from !== null && to !== null) {
      ctx.fillStyle = colour("raised");
      const left = Math.max(bbox.left, x(u, from));
      ctx.fillRect(left, bbox.top, Math.min(bbox.left + bbox.width, x(u, to)) - left, bbox.height);
    }
    for (const gap of data.gaps) {
      const left = Math.max(bbox.left, x(u, gap.from ?? seen[0]));
      const right = Math.min(bbox.left + bbox.width, Math.max(left + 2, x(u, gap.to ?? gap.from ?? seen[1])));
      if (right <= left) continue;
      ctx.save();
      ctx.beginPath(); ctx.rect(left, bbox.top, right - left, bbox.height); ctx.clip();
      ctx.strokeStyle = colour("medium"); ctx.globalAlpha = 0.55; ctx.lineWidth = 1;
      for (let at = left - bbox.height; at < right; at += 7) {
        ctx.beginPath(); ctx.moveTo(at, bbox.top + bbox.height); ctx.lineTo(at + bbox.height, bbox.top); ctx.stroke();
      }
      ctx.restore();
    }
    ctx.restore();
  }

  function line(u, value, stroke, dash, words) {
    const { ctx, bbox } = u;
    const at = x(u, value) + 0.5;
    if (at < bbox.left || at > bbox.left + bbox.width) return;
    ctx.save();
    ctx.strokeStyle = stroke; ctx.lineWidth = devicePixelRatio; ctx.setLineDash(dash.map((each) => each * devicePixelRatio));
    ctx.beginPath(); ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + bbox.height); ctx.stroke();
    if (words) {
      ctx.fillStyle = stroke; ctx.font = 11 * devicePixelRatio + "px " + getComputedStyle(document.body).fontFamily;
      const width = ctx.measureText(words).width;
      const left = at + width + 4 * devicePixelRatio > bbox.left + bbox.width ? at - width - 3 * devicePixelRatio : at + 3 * devicePixelRatio;
      ctx.fillText(words, left, bbox.top - 4 * devicePixelRatio);
    }
    ctx.restore();
  }

  function over(u) {
    const { ctx } = u;
    if (data.born !== null) line(u, data.born, colour("good"), [2, 3], "");
    if (data.gone !== null) line(u, data.gone, colour("soft"), [2, 3], "");
    line(u, 0, colour("ink"), [], "event");
    for (const each of data.alerts) {
      if (each.at === null) continue;
      const at = x(u, each.at);
      const size = 5 * devicePixelRatio;
      ctx.save();
      ctx.fillStyle = colour("critical");
      ctx.beginPath();
      ctx.moveTo(at, u.bbox.top + size * 1.6); ctx.lineTo(at - size, u.bbox.top); ctx.lineTo(at + size, u.bbox.top);
      ctx.closePath(); ctx.fill();
      ctx.restore();
    }
  }

  function select(u) {
    if (u.select.width < 3) return chosen(null, null);
    chosen(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
  }

  function read(u) {
    const n = u.cursor.idx;
    if (n === null || n === undefined || n >= at.length) return replace(legend, ...key());
    replace(legend, `${sign(at[n], span)} s: ${data.packets_out[n]} sent, ${data.packets_in[n]} received`);
  }

  function key() {
    const mark = (name) => el("span", { class: "key k-" + name, "aria-hidden": "true" });
    return [mark("out"), "sent ", mark("in"), "received ", mark("alert"), "alert ", data.born !== null && [mark("born"), "pod started "], data.gone !== null && [mark("gone"), "pod ended "], data.gaps.length > 0 && [mark("gap"), "missing"]].flat();
  }

  function choose(from, to) {
    if (from === null) return plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    const left = plot.valToPos(from, "x");
    plot.setSelect({ left, width: plot.valToPos(to, "x") - left, top: 0, height: plot.over.clientHeight }, false);
  }

  make();
  replace(legend, ...key());
  let width = box.clientWidth;
  new ResizeObserver(() => { if (box.clientWidth !== width) { width = box.clientWidth; plot.setSize({ width: Math.max(260, width), height: width < 560 ? 170 : 190 }); } }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", make);
  return { choose, range: [edges[0], edges[edges.length - 1]] };
}

// seconds with as many digits as the picture can show, and always a sign
export function sign(value, span) {
  const digits = span < 0.05 ? 4 : span < 0.5 ? 3 : span < 5 ? 2 : span < 60 ? 1 : 0;
  const text = Math.abs(value).toFixed(digits).replace(/\.?0+$/, (all) => (all.includes(".") ? "" : all));
  return Number(text) === 0 ? "0" : (value < 0 ? "−" : "+") + text;
}

const short = (value) => (value >= 1e6 ? value / 1e6 + "M" : value >= 1e3 ? value / 1e3 + "k" : String(Number(value.toPrecision(3))));
