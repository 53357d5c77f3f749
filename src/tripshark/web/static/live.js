// Follows what the server says of incidents, for as long as the page is open and seen.
//
// One connection; when it is lost it is tried again after 1, 2, 4 … 30 s (and a little chance, so that a hundred
// pages do not return at once), and the page says so until it is back. A page that nobody sees holds none.

import { ask } from "./api.js";
import { lost, found } from "./lost.js";

const LONGEST = 30_000;

// follow("/v1/events?namespace=payments", {incident(it) {…}, gone(it) {…}, again() {…}, state(word) {…}});
// `again` runs after a reconnection: what happened meanwhile is not told by the stream.
// `state` is told "live", "lost" or "paused".
export function follow(address, { again = () => {}, state = () => {}, ...events }) {
  let source = null;
  let tries = 0;
  let timer = 0;
  let first = true;

  function open() {
    clearTimeout(timer);
    source?.close();
    source = new EventSource(address);
    source.addEventListener("hello", () => {
      found("live");
      found("server");
      found("session");
      state("live");
      if (!first && tries > 0) again();
      tries = 0;
      first = false;
    });
    for (const [name, act] of Object.entries(events)) {
      source.addEventListener(name, (event) => act(JSON.parse(event.data)));
    }
    source.addEventListener("error", broken);
  }

  // the first time it may only have come to its end, as every stream does
  function broken() {
    source?.close();
    tries += 1;
    if (tries > 1) {
      state("lost");
      lost("live", "Connection lost, reconnecting …");
      why();
    }
    const wait = Math.min(LONGEST, 500 * 2 ** Math.min(tries - 1, 6)) * (0.75 + Math.random() / 2);
    timer = setTimeout(open, wait);
  }

  // an event stream does not tell why it is refused: one question does, and says it on the page
  async function why() {
    try {
      await ask("/v1/incidents?limit=1");
    } catch (error) {
      if (error.status === 401) found("live");
    }
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); state("paused"); } else if (!source) { tries = 1; open(); }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted && !source) { tries = 1; open(); } });
  addEventListener("online", () => { tries = Math.max(tries, 1); open(); });
  open();
  return close;
}
