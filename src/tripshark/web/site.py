"""What every page is made with: templates, files that never change under their address, and one strict policy.

A template's values are text: everything is escaped, and what cannot be seen in it is spelled out, before a browser
gets it. There is no script and no style in a page, only addresses of ours; so the policy allows nothing else.

Static files are read once. Their address has a hash over all of them (modules import each other by relative
addresses), so a browser may keep them for ever, and a page gets the files that it was made with.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from tripshark import __version__
from tripshark.errors import NotFound, TripsharkError
from tripshark.model.text import visible
from tripshark.web import words
from tripshark.web.answers import SAFE
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Parts
from tripshark.web.route import Route

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HERE = Path(__file__).parent
_MEDIA = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_YEAR = "public, max-age=31536000, immutable"


def _files() -> dict[str, bytes]:
    """Every file below `static/`, by its name there."""
    root = _HERE / "static"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


_FILES = _files()
VERSION: Final = sha256(
    b"".join(name.encode() + b"\0" + sha256(content).digest() for name, content in _FILES.items())
).hexdigest()[:16]


def static(name: str) -> str:
    """The address of a static file, for templates. Raises `KeyError` for one that is not there."""
    _FILES[name]  # a template that names a file which is not there is a mistake of ours
    return f"/static/{VERSION}/{name}"


def _shown(value: object) -> object:
    """Whatever a template writes out: text with nothing invisible in it, and what `Markup` our own macros made."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        # read now: later we may be somebody who can read less
        loader=jinja2.DictLoader(
            {each.name: each.read_text() for each in (_HERE / "templates").glob("*.html")}
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals["static"] = static
    made.globals["tripshark_version"] = __version__
    made.filters.update(words.FILTERS)
    return made


_TEMPLATES = _environment()


def page(
    request: Request,
    parts: Parts,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: object,
) -> Response:
    """One page of `templates/` with these values, and what `base.html` needs. All values may be hostile."""
    state = request.scope.get("state", {})
    caller = state.get("caller")
    body = _TEMPLATES.get_template(template).render(
        here=request.url.path,
        kind=parts.kind,
        node=parts.node,
        now_ns=parts.clock.now_ns(),
        csrf=state.get("csrf", ""),
        caller_name=getattr(caller, "name", ""),
        can_sign_out=bool(state.get("session")),
        **values,
    )
    return Response(
        body,
        status_code=status,
        media_type="text/html",
        headers={**SAFE, "content-security-policy": POLICY, **(headers or {})},
    )


def failed(
    request: Request,
    parts: Parts,
    error: TripsharkError,
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as a page: what is wrong, where, and what would help."""
    return page(
        request, parts, "error.html", status=error.http_status, headers=headers, error=error
    )


async def serve(request: Request, parts: Parts) -> Response:
    """A static file. Under an address of another version it is what there is now, and not to be kept."""
    folder = "vendor/" if request.url.path.split("/")[-2] == "vendor" else ""
    name = folder + request.path_params["name"]
    if name not in _FILES:
        raise NotFound("no such file", where=name[:80])
    is_ours = request.path_params["version"] == VERSION
    suffix = Path(name).suffix
    media = _MEDIA.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(
        _FILES[name],
        media_type=media,
        headers={**SAFE, "cache-control": _YEAR if is_ours else "no-cache"},
    )


_PARAMETERS = (
    Parameter("version", "path", "Hash over all of these files."),
    Parameter("name", "path", "Name of the file."),
)

ROUTES: tuple[Route, ...] = tuple(
    Route(
        path=path,
        handler=serve,
        is_open=True,  # they say nothing about anybody, and a page to sign in needs them
        described=Described(
            "A file that pages need.",
            answers={"200": "The file."},
            parameters=_PARAMETERS,
            errors=(404,),
            media="application/octet-stream",
        ),
    )
    for path in ("/static/{version}/{name}", "/static/{version}/vendor/{name}")
)
