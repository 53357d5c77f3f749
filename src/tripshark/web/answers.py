"""How every answer looks: JSON and the one error shape, never anything a browser could take for more."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from tripshark.errors import Denied, TooSlow, Transient, TripsharkError

SAFE = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
NOTHING_RUNS = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox"}
"""For whatever is not a page of ours: opened in a browser all the same, it can do nothing."""


def json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        media_type="application/json",
        headers={**SAFE, **NOTHING_RUNS, **(headers or {})},
    )


def problem(error: TripsharkError, *, challenge: str = "") -> Response:
    """An error in the one shape, with the headers that belong to its status."""
    headers: dict[str, str] = {}
    if isinstance(error, Denied) and error.http_status == 401:
        headers["www-authenticate"] = challenge or 'Bearer realm="tripshark"'
    if isinstance(error, Transient):
        headers["retry-after"] = str(max(1, math.ceil(error.after or 1)))
    if isinstance(error, TooSlow):
        headers["connection"] = "close"  # the rest of that body would hold it
    return json(error.as_json(), error.http_status, headers)
