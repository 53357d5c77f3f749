"""Wireshark's profile as a zip file, for whoever has a browser and no `tripshark` at hand."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tripshark.formats.wireshark_profile import NAME, archive
from tripshark.web import query
from tripshark.web.answers import SAFE
from tripshark.web.caller import caller_of
from tripshark.web.openapi import Described
from tripshark.web.parts import Parts
from tripshark.web.route import Route

_ZIP: Final = archive()
_TAG: Final = f'"{sha256(_ZIP).hexdigest()}"'


async def serve_profile(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    caller_of(request, parts)  # whoever got this far may have it: it tells of nobody
    headers = {
        **SAFE,
        "cache-control": "private, no-cache",
        "content-disposition": f'attachment; filename="{NAME}.zip"',
        "etag": _TAG,
    }
    if _TAG in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(_ZIP, headers=headers, media_type="application/zip")


ROUTES: tuple[Route, ...] = (
    Route(
        path="/v1/wireshark/profile.zip",
        handler=serve_profile,
        described=Described(
            "Wireshark's profile: pods' names, colours of alerts, columns, buttons. Edit, Configuration Profiles, "
            "Import.",
            answers={"200": "A zip file.", "304": "You have it."},
            media="application/zip",
        ),
    ),
)
