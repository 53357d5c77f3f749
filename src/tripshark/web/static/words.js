// How numbers and times read: the same words as tripshark.web.words writes.

export function span(seconds) {
  seconds = Math.max(0, seconds);
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * size) return Math.round(seconds / size) + " " + name;
  }
  return (seconds >= 10 || Number.isInteger(seconds) ? Math.round(seconds) : seconds.toFixed(1)) + " s";
}

export const ago = (ns, now = Date.now()) => (ns > 0 ? span(Math.round(now / 1000 - ns / 1e9)) + " ago" : "");

// "2026-11-25 10:15:02.104 UTC"; a time that no calendar has stays a number
export function exact(ns) {
  if (!(ns > 0)) return "";
  const at = new Date(ns / 1e6);
  return Number.isNaN(at.getTime()) ? ns + " ns" : at.toISOString().replace("T", " ").replace("Z", " UTC");
}

export function size(count) {
  if (Math.abs(count) < 1000) return count + " B";
  for (const unit of ["kB", "MB", "GB"]) {
    count /= 1000;
    if (Math.abs(count) < 999.5) return (Math.abs(count) < 99.5 ? count.toFixed(1) : Math.round(count)) + " " + unit;
  }
  return (count / 1000).toFixed(1) + " TB";
}

export const number = (count) => String(count).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");

const SEVERITY = { emergency: "critical", alert: "critical", critical: "critical", error: "high", warning: "medium", notice: "low" };

// Falco's eight priorities in the five words by which findings are graded
export const severity = (priority) => SEVERITY[String(priority).toLowerCase()] ?? "info";
