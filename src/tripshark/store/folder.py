"""Which names a sealed folder has of its own, and what may come to lie beside its evidence."""

from __future__ import annotations

from tripshark.store import custody, signature

MANIFEST = "manifest.json"


HOLD = "hold.json"


COMPANIONS = frozenset({"findings.json", "report.html", "report.md", "timeline.jsonl"})


VIEWED = "viewed.jsonl"  # what was read at a hub, in what the hub hands out


OWN = frozenset({MANIFEST, signature.NAME, custody.NAME, HOLD, VIEWED}) | COMPANIONS
