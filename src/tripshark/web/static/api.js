// Asks this server: JSON in, JSON out, and one kind of error with message, where and hint.

import { lost, found } from "./lost.js";

export class Problem extends Error {
  constructor(status, { code = "", message = "", hint = "", where = "" } = {}) {
    super(message || "the server answered " + status);
    Object.assign(this, { status, code, hint, where });
  }
}

const csrf = () => document.querySelector('meta[name="csrf"]')?.content ?? "";

// ask("/v1/targets"), ask("/v1/captures", {body: {…}}), ask(path, {method: "DELETE"}); throws Problem.
// `signal` aborts; status 0 means that nobody answered.
export async function ask(path, { method, body, signal } = {}) {
  const headers = { accept: "application/json" };
  method ??= body === undefined ? "GET" : "POST";
  if (method !== "GET" && csrf()) headers["x-tripshark-csrf"] = csrf();
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, credentials: "same-origin", redirect: "follow",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lost("server", "The server does not answer.");
    throw new Problem(0, { code: "away", message: "the server does not answer", hint: "it is asked again" });
  }
  found("server");
  const told = await response.json().catch(() => ({}));
  if (response.status === 401) lost("session", "Your session has ended.", "/signin");
  else found("session");
  if (!response.ok) throw new Problem(response.status, told.error);
  return told;
}

// A promise that is kept after so many milliseconds, or broken by the signal.
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
