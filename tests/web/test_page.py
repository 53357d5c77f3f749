"""The page and the metrics: nothing out of an alert becomes markup or a label."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tripshark.errors import Transient
from tripshark.model.evidence import Word
from tripshark.web.html import Html, document, el, sheet, visible
from tripshark.web.page import render

EVIL = (
    '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "'; DROP TABLE incidents; --",
    "</title></style><svg onload=alert(1)>",
    "\u202egnp.exe\u2066\x00\x1b[31m\r\nSet-Cookie: a=b",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "javascript:alert(1)",
)


class Reader(HTMLParser):
    """Which elements and attributes a browser would see, and which text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


async def page(world) -> httpx2.Response:
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        return await http.get("/")


async def test_the_page_shows_what_there_is(world) -> None:
    """Incidents, targets, refusals, and that nothing is known to be lost; without script, under a strict policy."""
    answer = await page(world)
    reader = Reader()
    reader.feed(answer.text)
    for words in (world.incident.id, "payments/shop0", "no_target", "No loss upstream is known"):
        assert words in reader.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script" not in reader.tags
    assert ("href", f"/v1/incidents/{world.incident.id}/evidence.pcapng") in reader.attributes
    assert all(value.startswith("/") for name, value in reader.attributes if name == "href")


def test_the_page_says_how_a_target_is_recorded_and_who_else_is_in_an_incident(make) -> None:
    """The mode of each target; the other namespaces of an incident; at a hub one file of all parts."""
    incident = replace(
        make["incident"](1), namespace="payments", namespaces=("*", "ledger", "payments")
    )
    given = {"away": "", "refusals": (), "counts": {}, "problems": (), "now_ns": 10**18}
    targets = (replace(make["target"]("hr"), mode="headers"),)
    here = render(incidents=[incident], targets=targets, **given).decode()
    assert "headers" in here
    assert "with others, ledger" in here
    there = render(incidents=[incident], targets=(), is_hub=True, **given).decode()
    assert f'href="/v1/incidents/{incident.id}/merged.pcapng"' in there
    assert "evidence.pcapng" not in there


async def test_the_style_sheet_is_allowed_by_the_policy(world) -> None:
    """The hash in the policy is that of the sheet in the page."""
    from base64 import b64encode
    from hashlib import sha256

    answer = await page(world)
    css = answer.text.split("<style>")[1].split("</style>")[0]
    digest = b64encode(sha256(css.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("evil", EVIL)
async def test_no_field_breaks_out_of_the_page_or_the_api(world, make, evil) -> None:
    """Every field of an alert, an incident, a target or Falco itself stays text."""
    plain = await page(world)
    expected = Reader()
    expected.feed(plain.text)
    fields = ("title", "namespace", "pod", "rule", "falco_rule", "priority", "summary", "problem")
    await world.catalogue.put(
        incidents=[make["incident"](2, **dict.fromkeys(fields, evil))],
        alerts=[make["alert"](5, rule=evil, output=evil, namespace=evil, pod=evil)],
    )
    world.targets.all_of_them = (make["target"](evil, note=evil),)
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        answer = await http.get("/")
        reader = Reader()
        reader.feed(answer.text)
        assert reader.tags <= expected.tags
        assert {name for name, _ in reader.attributes} <= {name for name, _ in expected.attributes}
        assert "set-cookie" not in answer.headers
        assert not set("\u202e\u2066\x00\x1b\r") & set(answer.text)
        for path in ("incidents", "targets", "refusals", "incidents/20261124-0002"):
            told = await http.get(f"/v1/{path}")
            assert told.headers["content-type"] == "application/json"
            assert told.status_code == 200
            assert "sandbox" in told.headers["content-security-policy"]
        scraped = (await http.get("/metrics")).text
        assert evil.splitlines()[0] not in scraped


async def test_what_may_be_lost_stands_on_top(world) -> None:
    """The recorder away, and Falco's own losses."""
    world.targets.away = Transient("the recorder is away")
    world.heartbeats.every_s = 60
    answer = await page(world)
    assert "What may be lost" in answer.text
    assert "the recorder is away" in answer.text
    assert "no heartbeat" in answer.text


@given(text=st.text())
def test_any_text_stays_text(text: str) -> None:
    """Through element and attribute: the reader gets back exactly the visible text."""
    made = document(el("head"), el("body", el("p", text, title=text)))
    reader = Reader()
    reader.feed(made.decode())
    assert reader.tags == {"html", "head", "body", "p"}
    assert dict(reader.attributes)["title"] == visible(text)
    assert reader.text.strip() == visible(text).strip()


def test_the_builder_knows_no_script() -> None:
    """Elements, attributes and links outside the closed lists are mistakes of ours."""
    for mistake in (
        lambda: el("script", "x"),
        lambda: el("p", onclick="x"),
        lambda: el("a", "x", href="javascript:x"),
        lambda: sheet("</style>"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  # any of them
            mistake()
    assert el("p", Html("<b>ours</b>")) == "<p><b>ours</b></p>"


async def test_metrics_are_what_prometheus_reads(world, make) -> None:
    """Every family parses; labels have closed values; ring counters never fall."""
    metrics = world.parts.metrics
    metrics.alert("webhook", "accepted", 0.003)
    metrics.alert("file:/some/path", "accepted", 0.1)
    metrics.frozen(0.01)
    metrics.sealed(Word.TRUNCATED)
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        first = await http.get("/metrics")
        world.targets.all_of_them = (make["target"]("other"),)
        second = await http.get("/metrics")
        world.targets.away = Transient("away")
        third = await http.get("/metrics")

    def read(answer: httpx2.Response) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    values = read(first)
    assert values["tripshark_alerts_total", (("outcome", "accepted"), ("via", "webhook"))] == 1
    assert values["tripshark_alerts_total", (("outcome", "accepted"), ("via", "other"))] == 1
    assert values["tripshark_refusals_total", (("reason", "no_target"),)] == 1
    assert values["tripshark_captures_total", (("word", "truncated"),)] == 1
    assert values["tripshark_captures_running", ()] == 0
    assert values["tripshark_alert_to_frozen_seconds_count", ()] == 1
    assert values["tripshark_ring_packets_total", ()] == 100
    assert values["tripshark_ring_drops_total", ()] == 3
    assert values["tripshark_recorder_up", ()] == 1
    assert read(second)["tripshark_ring_packets_total", ()] == 200
    assert read(third)["tripshark_recorder_up", ()] == 0
