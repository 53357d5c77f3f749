"""A report as one HTML page: no script, nothing from outside, readable from a file, by night, on paper, on a phone.

Whatever stands in the page is hostile. It is put in by a template that escapes everything (`autoescape`), and the
page's own policy allows nothing but the one style sheet in it, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import DictLoader, Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from tripshark.report.document import As, Document, Table
from tripshark.report.picture import Picture, drawings

MAX_BYTES: Final = 2_000_000
# read while the package is still within reach: a responder may give up the rights to it
_STYLE: Final = files("tripshark.report").joinpath("page.css").read_text("utf-8")
_PAGE: Final = files("tripshark.report").joinpath("page.html").read_text("utf-8")
_FEWER: Final = (500, 200, 80, 30, 10)


def policy(style: bytes) -> str:
    """A Content-Security-Policy that allows this style sheet and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def write(document: Document) -> bytes:
    """The page, below `MAX_BYTES`: tables become shorter, and say so, until it is."""
    page = b""
    for most in _FEWER:
        page = _render(document, most)
        if len(page) <= MAX_BYTES:
            break
    return page


def _render(document: Document, most: int) -> bytes:
    made = _template().render(
        of=document,
        style=Markup(_STYLE),  # noqa: S704  # our own style sheet, read from the package
        policy=Markup(policy(_STYLE.encode())),  # noqa: S704  # so is its hash
        kind_of=lambda block: type(block).__name__,
        drawings=_drawings,
        rows_of=lambda block: _rows(block, most),
        left_of=lambda block: block.left_out + max(0, len(block.rows) - most),
    )
    return made.encode("utf-8", "backslashreplace")


_CELLS: Final = {
    As.TEXT: ("<td>", "</td>"),
    As.NUMBER: ('<td class="n">', "</td>"),
    As.MONO: ('<td class="m">', "</td>"),
    As.FILTER: ('<td class="f"><code>', "</code></td>"),
}


def _rows(block: Table, most: int) -> Markup:
    """The body of a table, cell by cell escaped: in the template this would be most of the page's time."""
    tags = [_CELLS[column.style] for column in block.columns]
    lines = [
        "<tr>"
        + "".join(
            f"{begin}{escape(cell)}{end}" for (begin, end), cell in zip(tags, row, strict=True)
        )
        + "</tr>"
        for row in block.rows[:most]
    ]
    return Markup("\n".join(lines))  # noqa: S704  # every cell was escaped above


def _drawings(picture: Picture, name: str) -> tuple[Markup, ...]:
    return tuple(map(Markup, drawings(picture, name)))  # every text in it is escaped there


@cache
def _template() -> Template:
    environment = Environment(
        loader=DictLoader({"page.html": _PAGE}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
