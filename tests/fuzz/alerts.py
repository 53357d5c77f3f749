"""Fuzz target: the decoder of alerts, and everything that is decided from what it read."""

from __future__ import annotations

from tripshark.errors import BadInput
from tripshark.formats import falco
from tripshark.model.alert import meaning
from tripshark.model.filter import Scope, ladder


def target(data: bytes) -> None:
    """Parse or `BadInput`; whatever parses has a meaning and a ladder that ends with everything."""
    headers = {}
    if data[:1] == b"\x01":
        headers, data = {"content-type": "application/cloudevents+json"}, data[1:]
    elif data[:1] == b"\x02":
        headers, data = (
            {"ce-specversion": "1.0", "ce-rule": "r", "ce-time": "2026-01-01"},
            data[1:],
        )
    try:
        alert = falco.decode(data, headers)
    except BadInput:
        return
    falco.heartbeat(alert)
    assert len(meaning(alert, "target")) == 64
    assert len(alert.hints) <= falco.MAX_HINTS
    for scope in (None, *Scope):
        rungs = ladder(alert, scope, ("10.0.0.7",))
        assert rungs[-1].core == ""
        assert all(rung.core.isascii() and rung.core.isprintable() for rung in rungs)
