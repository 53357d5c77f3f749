"""The pages, one module each: what a page asks the rest for, and which template shows it."""

from __future__ import annotations

from tripshark.web.pages import capture, incident, incidents, packets, rules, search, targets
from tripshark.web.route import Route

ROUTES: tuple[Route, ...] = (
    *incidents.ROUTES,
    *incident.ROUTES,
    *packets.ROUTES,
    *targets.ROUTES,
    *rules.ROUTES,
    *capture.ROUTES,
    *search.ROUTES,
)
