// Follows what the server says of incidents, for as long as the page is open and seen.
//
// One connection; when it is lost it is tried again after 1, 2, 4 … 30 s (and a little chance, so that a hundred
// pages do not return at once), and the page says so until it is back. A page that nobody sees holds none.

import { lost, found } from "./lost.js";

const LONGEST = 30_000;

// follow("/v1/events?namespace=payments", {incident(it) {…}, gone(it) {…}, again() {…}, state(word) {…}});
// `again` runs after a reconnection: what happened meanwhile is not told by the stream.
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
      tries = 0;
      found("live");
      state("live");
      if (!first) again();
      first = false;
    });
    for (const [name, act] of Object.entries(events)) {
      source.addEventListener(name, (event) => act(JSON.parse(event.data)));
    }
    source.addEventListener("error", () => {
      source.close();
      state("lost");
      if (tries >= 1) lost("live", "Connection lost, reconnecting …");
      const wait = Math.min(LONGEST, 1000 * 2 ** Math.min(tries, 5)) * (0.75 + Math.random() / 2);
      tries += 1;
      timer = setTimeout(open, tries === 1 ? wait / 4 : wait);
    });
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { close(); state("paused"); } else if (!source) { tries = 0; open(); }
  });
  addEventListener("pagehide", close);
  addEventListener("online", () => { tries = 0; open(); });
  open();
  return close;
}
