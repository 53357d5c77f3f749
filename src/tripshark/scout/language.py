"""What the scout and its clients say to each other.

Transport and framing are those of `formats.wire`: `SOCK_SEQPACKET`, one JSON object per packet, longer ones in parts.
One request at a time per connection; each has `t` and `id`, repeated in its answer:

    hello     {version}    → hello {version, pid, started_ns}
    sandboxes {}           → sandboxes {edition, sandboxes, more}, several while `more` is true
    find      {container}  → found {sandbox, or null}
    changed   {edition}    → changed {edition}: at once when it is another by now, else when it is, at the latest after WAIT_S
    state     {}           → state {…}

or `error {code, message, where, hint}`.
"""

from __future__ import annotations

VERSION = 1
WAIT_S = 20.0
PAGE = 4 << 20  # characters of JSON in one answer, about
