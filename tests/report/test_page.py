"""The report as a page: everything is in it, nothing hostile gets out of its place, and a browser needs nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from tests.report import cases
from tripshark.report import exports, page, telling
from tripshark.report.case import Case

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`",
    "'\"><svg/onload=alert(1)><a href=javascript:alert(1)>x</a>",
    "</style></title></svg></pre></code><script>alert(1)</script>",
    "{{ 7*7 }}{% for x in () %}{{ ''.__class__ }}",
    "\x1b[31m\x1b]8;;http://evil.test\x07\u202eevil\u2066\x00\u2028",
    "<!--><![CDATA[<style>*{background:url(//evil.test)}</style>",
)


class _Seen(HTMLParser):
    """Which elements with which attributes a browser would make; and all text."""

    void = frozenset({"meta", "line", "path", "rect", "br"})

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(content.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(name for name, _ in attrs)) for tag, attrs in self.elements]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def _page(case: Case) -> bytes:
    return exports.report_html([case])


def test_everything_is_said() -> None:
    """Sentences first, then every finding with its frames, filter and technique, every table, ledger and custody."""
    said = _Seen(_page(cases.rich())).words
    for expected in (
        "The pod checkout-7d9f in namespace payments, part of Deployment/checkout, on node worker-1.",
        "Falco raised an alert 4 times: “Outbound Connection to C2 Servers” (Critical)",
        "from its first packet: 482.0 kB went out, 61.0 kB came back (first seen in packet 42)",
        "critical (by finding F1)",
        "42, 44, 47, 1190 (1,150 packets in all)",
        "T1071.004 Application Layer Protocol: DNS (Command and Control)",
        'dns.qry.name == "c2.evil.example"',
        "t13d1516h2_8daaf6152771_e5627efa2ab1",
        "SSH-2.0-OpenSSH_9.2p1 Debian-2",
        "6 characters",
        cases.SHA256,
        "the kernel could not record 12 packets of eth0",
        "shop/old-0",
        '"proc.cmdline": "nc c2.evil.example 4444"',
        "registry.example/shop/checkout:1.4.2",
        cases.DIGEST,
        "tripshark verify 20261125t030037-798eb0",
        "TShark 4.0.17",
        "synchronised, off by at most 1.8 ms",
    ):
        assert expected in said, expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (cases.unread, "have not been read yet (no findings: the analyst is away)"),
        (cases.empty, "No packet of payments/checkout-7d9f was captured in the window."),
        (cases.bare, "No packet of 20261125t030037-798eb0 was captured"),
    ],
)
def test_what_is_not_there_is_said(make: Callable[[], Case], expected: str) -> None:
    """Evidence without findings, without packets, without any detail still has a report."""
    said = _Seen(_page(make())).words
    assert expected in said
    assert cases.DIGEST in said


def test_a_browser_needs_nothing_else_and_runs_nothing() -> None:
    """No script, no address of anything outside, no inline style; the policy allows the one style sheet by its hash."""
    content = _page(cases.rich())
    seen = _Seen(content)
    assert {tag for tag, _ in seen.elements}.isdisjoint(
        {"script", "iframe", "object", "embed", "link", "img", "base", "form", "use", "image"}
    )
    for _, attributes in seen.elements:
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in ("src", "style", "srcset", "action", "xlink:href")
            assert name != "href" or str(value).startswith("#")
    style = re.search(rb"<style>(.*?)</style>", content, re.DOTALL)
    assert style is not None
    digest = b64encode(sha256(style[1]).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in content.decode() or (
        f"style-src 'sha256-{digest}'" in content.decode()
    )
    assert b"url(" not in style[1]
    assert b"@import" not in style[1]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_becomes_markup(text: str) -> None:
    """With hostile text in every field of manifest, findings, ledger and custody the page has the same elements."""
    harmless, hostile = _Seen(_page(cases.hostile("x"))), _Seen(_page(cases.hostile(text)))
    assert hostile.open == []
    assert set(hostile.shape) <= set(harmless.shape)
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]",
        _page(cases.hostile(text)).decode(),
    )


def test_the_same_evidence_is_the_same_page() -> None:
    """Byte for byte, whatever was written between."""
    first = _page(cases.rich())
    _page(cases.empty())
    assert _page(replace(cases.rich())) == first


def test_parts_of_several_nodes_are_one_page() -> None:
    """Each part is a chapter of its own, and no id stands twice."""
    parts = [replace(cases.rich(), node="worker-1"), replace(cases.unread(), node="worker-2")]
    seen = _Seen(exports.report_html(parts))
    ids = [value for _, attributes in seen.elements for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [str(v)[1:] for _, attrs in seen.elements for name, v in attrs if name == "href"]
    assert set(targets) <= set(ids)
    assert "Recorded on worker-1" in seen.words
    assert "Recorded on worker-2" in seen.words


def test_a_page_never_grows_beyond_its_bound() -> None:
    """Full tables are cut at 500 rows; text that grows by escaping makes them shorter, and that is said."""
    large = _page(cases.big(700))
    assert len(large) < page.MAX_BYTES
    assert b"200 more rows do not fit here" in large
    huge = cases.big()
    assert huge.findings is not None
    rows = tuple(
        {**row, "name": '"<&>"' * 75, "answers": ["<" * 390] * 12} for row in huge.findings.dns
    )
    tls = tuple({**row, "name": "'" * 380, "cipher": "&" * 380} for row in huge.findings.tls)
    http = tuple({**row, "uri": "<" * 390, "user_agent": '"' * 390} for row in huge.findings.http)
    grown = _page(replace(huge, findings=replace(huge.findings, dns=rows, tls=tls, http=http)))
    assert len(grown) < page.MAX_BYTES
    assert b"more rows do not fit here" in grown


def test_a_typical_report_takes_no_time() -> None:
    """What is told is told once: sections without content are left out."""
    told = telling.tell([cases.empty()])
    ids = {each.id for each in told.chapters[0].sections}
    assert {"timeline", "findings", "completeness", "custody"} <= ids
    assert not ids & {"dns", "tls", "http", "ssh", "icmp", "credentials", "files"}
