"""The report as Markdown: the same content, and nothing that a renderer could take for a link, a picture or HTML."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import text
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.report import cases
from tests.report.test_page import HOSTILE
from tripshark.report import exports, markdown
from tripshark.report.document import As, Column, Table

RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
INNOCENT = {
    *("text", "code_inline", "strong_open", "strong_close", "fence", "inline", "hr", "softbreak"),
    *(
        f"{name}_{end}"
        for name in ("heading", "paragraph", "list_item")
        for end in ("open", "close")
    ),
    *(f"bullet_list_{end}" for end in ("open", "close")),
    *(
        f"{name}_{end}"
        for name in ("table", "thead", "tbody", "tr", "th", "td")
        for end in ("open", "close")
    ),
}
MORE = (
    "[x](javascript:alert(1)) ![y](http://evil.test/p.png) <http://evil.test> http://evil.test www.evil.test",
    "a|b\\|c\\\\|d `|` ``|`` \\`|\\`",
    "```\n# x\n```",
    "[evil]: http://evil.test 'x'\n\n[evil]",
    "# head\n- item\n> quote\n***\n1. one\n    code",
    "@everyone #1 mailto:a@evil.test a@evil.test",
)


def _tokens(content: str) -> list[Token]:
    found = []
    for token in RENDERER.parse(content):
        found.append(token)
        found += token.children or []
    return found


def test_it_says_what_the_page_says() -> None:
    """Headings, sentences, findings, tables."""
    said = exports.report_md([cases.rich()]).decode()
    for expected in (
        "# `payments/checkout-7d9f`",
        "## Findings",
        "### F1 482 kB were sent to 203.0.113.66:4444",
        "```text\ntcp.stream eq 2\n```",
        "| `c2.evil.example` | A | `203.0.113.66` | No error |",
        cases.DIGEST,
        "**What they do not prove.**",
    ):
        assert expected in said, expected
    assert exports.report_md([replace(cases.rich())]).decode() == said


@pytest.mark.parametrize("text", [*HOSTILE, *MORE])
def test_nothing_hostile_becomes_markup(text: str) -> None:
    """With hostile text in every field a renderer that lets HTML through makes only what the report is made of."""
    said = exports.report_md([cases.hostile(text)]).decode()
    tokens = _tokens(said)
    assert {each.type for each in tokens} <= INNOCENT
    harmless = _tokens(exports.report_md([cases.hostile("x")]).decode())
    for kind in ("heading_open", "tr_open", "td_open", "fence", "bullet_list_open"):
        assert [each.type for each in tokens].count(kind) == [
            each.type for each in harmless
        ].count(kind), kind


@given(text(max_size=60))
def test_any_text_stays_in_its_cell(said: str) -> None:
    """Whatever it is, the row has as many cells as the table has columns, and code is shown as it was."""
    line = " ".join(said.split())
    columns = (Column("a", As.MONO), Column("b"), Column("c"))
    block = markdown._table(Table("t", columns, ((line, line, "end"),)))
    tokens = _tokens(block)
    cells = [tokens[at + 1].content for at, each in enumerate(tokens) if each.type == "td_open"]
    assert len(cells) == 3
    assert cells[2] == "end"
    assert not {each.type for each in tokens} - INNOCENT


def test_mentions_and_addresses_are_code() -> None:
    """GitHub and mail readers link what looks like one, but not within code."""
    for word in ("@team", "a@evil.test", "http://evil.test/x", "www.evil.test", "xmpp:a@b.test"):
        assert markdown.prose(f"see {word}, now") == f"see `{word}`, now"
