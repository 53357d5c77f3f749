"""One path of the web: who answers, what is said of it. Rooms of the web list theirs; `routes` joins them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from tripshark.web.openapi import Described
from tripshark.web.parts import Parts

Handler = Callable[[Request, Parts], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path: who answers, and what is said of it."""

    path: str
    handler: Handler
    described: Described
    method: str = "GET"
    is_open: bool = False  # needs no credentials anywhere
