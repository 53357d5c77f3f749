"""HTML that cannot be broken out of: elements are built, never concatenated, and all text is made harmless.

`el("td", text)` escapes `text`; only what `el` itself made goes in as markup. There is no way to make a script, a
style or an event handler here: tags and attributes are closed lists.
"""

from __future__ import annotations

from html import escape

from tripshark.model.text import visible

_TAGS = frozenset(
    [
        "html",
        "head",
        "title",
        "meta",
        "style",
        "body",
        "header",
        "main",
        "section",
        "footer",
        "h1",
        "h2",
        "p",
        "a",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "small",
        "strong",
        "span",
        "ul",
        "li",
        "div",
    ]
)
_ATTRIBUTES = frozenset(["class", "href", "lang", "charset", "name", "content", "scope", "title"])
_EMPTY = frozenset({"meta"})


class Html(str):
    """Markup made by `el`: goes in as it is. Everything else is text."""

    __slots__ = ()


def el(tag: str, *children: str, **attributes: str) -> Html:
    """One element. A trailing underscore in an attribute's name is dropped (`class_`)."""
    if tag not in _TAGS:
        raise ValueError(f"no such element here: {tag}")
    written = ""
    for key, value in attributes.items():
        name = key.removesuffix("_")
        if name not in _ATTRIBUTES:
            raise ValueError(f"no such attribute here: {name}")
        if name == "href" and not value.startswith("/"):
            raise ValueError("links go to this server only")
        written += f' {name}="{escape(visible(value), quote=True)}"'
    if tag in _EMPTY:
        return Html(f"<{tag}{written}>")
    inner = "".join(
        each if isinstance(each, Html) else escape(visible(each), quote=True) for each in children
    )
    return Html(f"<{tag}{written}>{inner}</{tag}>")


def document(head: Html, body: Html) -> bytes:
    """The whole page."""
    return ("<!doctype html>\n" + el("html", head, body, lang="en")).encode()


def sheet(css: str) -> Html:
    """Our own style sheet. It is written by us: anything that could end the element is a mistake."""
    if "<" in css:
        raise ValueError("a style sheet contains no <")
    return Html(f"<style>{css}</style>")
