// A page that cannot be shown now is asked for again, with growing pauses, and shown when it can be.

import { pause } from "./api.js";
import { one } from "./dom.js";

const LONGEST = 30_000;
one("#again").hidden = false;
for (let wait = 2000; ; wait = Math.min(LONGEST, wait * 1.6)) {
  await pause(wait * (0.8 + Math.random() * 0.4));
  if (document.hidden) continue;
  try {
    const { status } = await fetch(location.href, { method: "HEAD", credentials: "same-origin" });
    if (status !== 503 && status !== 429) {
      location.reload();
      break;
    }
  } catch { /* nobody answers: the same again */ }
}
