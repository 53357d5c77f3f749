"""Every edge that the responder acts on, screwed together by a program."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tripshark.model.incident import Incident
from tripshark.model.indicator import Indicators
from tripshark.ports import (
    Analyst,
    Catalogue,
    Clock,
    Fleet,
    Journal,
    Meter,
    Recorder,
    Reporter,
    Targets,
    Vault,
)
from tripshark.respond.names import Book


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Every edge that the runner and its rooms need."""

    journal: Journal
    catalogue: Catalogue
    vault: Vault
    recorder: Recorder
    targets: Targets
    analyst: Analyst | None
    clock: Clock
    meter: Meter
    entropy: Callable[[int], bytes]
    fleet: Fleet | None = None  # how other nodes are asked, in a cluster
    addresses: Book | None = None  # who held which address when, beyond this machine's targets
    told: Callable[[Incident], None] = lambda _incident: None  # an incident ended
    watchlist: Callable[[], Awaitable[Indicators]] | None = None  # what the operator looks for
    analysed: Callable[[], None] = lambda: None  # findings were written
    reporter: Reporter | None = None  # writes what people read beside the evidence
