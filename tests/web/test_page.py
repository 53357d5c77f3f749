"""Pages, their files and their stream, and the metrics: nothing out of an alert becomes markup or a label."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tripshark.errors import Transient
from tripshark.model.evidence import Word
from tripshark.model.finding import Conversation, Finding, Findings, Severity
from tripshark.model.part import Part, Place, node_name
from tripshark.model.text import visible
from tripshark.ports import Query
from tripshark.web import live, site
from tripshark.web.access import EVIDENCE, Caller
from tripshark.web.evidence import Folders
from tripshark.web.pages.dossier import gather
from tripshark.web.watch import fits

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
        self.scripts: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


ADDRESSES = {"href", "src", "action", "formaction", "data", "poster", "srcset", "ping"}


def read(text: str) -> Reader:
    """A page; fails when anything in it could run, or leads away from this server."""
    reader = Reader()
    reader.feed(text)
    assert "style" not in reader.tags
    for name, value in reader.attributes:
        assert not name.startswith("on"), name
        assert name != "style"
        if name in ADDRESSES:
            assert re.match(r"(/(?!/)|#|$)", value), (name, value)
    for each in reader.scripts:
        told = each.get("src") or ""
        assert told.startswith("/static/") or each.get("type") == "application/json"
    return reader


async def asked(world, path: str, **changes: object) -> httpx2.Response:
    async with (
        world.served(**changes) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        return await http.get(path, headers={"accept": "text/html"})


def pages(world) -> tuple[str, ...]:
    return ("/", f"/incidents/{world.incident.id}", "/targets", "/rules", "/capture", "/search")


async def test_every_page_is_made_under_one_strict_policy(world) -> None:
    """No inline script or style, no other host; the first page says what there is."""
    for path in pages(world):
        answer = await asked(world, path)
        assert answer.status_code == 200, path
        read(answer.text)
        policy = answer.headers["content-security-policy"]
        assert policy == site.POLICY
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    first = read((await asked(world, "/")).text)
    for words in (
        world.incident.id,
        "payments/checkout",
        "no_target",
        "No loss upstream is known",
    ):
        assert words in first.text + str(first.attributes)


def evil_findings(evil: str, t0_ns: int) -> Findings:
    """Findings whose every text is hostile."""
    row = {
        "name": evil, "address": evil, "client": evil, "server": evil, "host": evil, "uri": evil, "method": evil,
        "user_agent": evil, "banner": evil, "ja3": evil, "ja4": evil, "version": evil, "cipher": evil, "alpn": [evil],
        "answers": [evil], "rcode": evil, "type": evil, "proto": evil, "user": evil, "secret": evil, "sha256": evil,
        "source": evil, "summary": evil, "severity": evil, "group": evil, "filter": evil, "frame": 1, "count": 1,
        "first_ns": t0_ns, "asked_ns": t0_ns, "asked": 1, "answered": 1,
    }  # fmt: skip
    conversation = Conversation(
        proto=evil, a=evil, a_port=1, b=evil, b_port=2, packets_ab=1, packets_ba=1, bytes_ab=1, bytes_ba=1,
        first_ns=t0_ns, last_ns=t0_ns, app=evil, tunnel=evil, filter=evil, named=True,
    )  # fmt: skip
    tables = dict.fromkeys(
        ("endpoints", "dns", "tls", "http", "ssh", "icmp", "credentials", "files", "experts"),
        (row,),
    )
    claim = Finding(
        id="F1", kind="file", severity=Severity.HIGH, title=evil, text=evil, frames=(1,), filter=evil, matches=1,
        first_ns=t0_ns, last_ns=t0_ns, techniques=("T1105",), checked=True,
    )  # fmt: skip
    return Findings(
        manifest_sha256="", tool=evil, sandbox=(evil,), packets=1, first_ns=t0_ns, last_ns=t0_ns,
        conversations=(conversation,), findings=(claim,), names={evil: evil}, notes=(evil,), summary=evil, **tables,
    )  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
async def test_no_field_breaks_out_of_a_page_or_the_api(world, make, evil) -> None:
    """Every field of an alert, an incident, a target, a rule, findings or Falco itself stays text."""
    fields = ("title", "namespace", "pod", "rule", "falco_rule", "priority", "summary", "problem")
    sealed = replace(world.incident, **dict.fromkeys(fields[:1] + fields[3:], evil))
    await world.catalogue.put(
        incidents=[make["incident"](2, **dict.fromkeys(fields, evil)), sealed],
        alerts=[make["alert"](5, rule=evil, output=evil, namespace=evil, pod=evil)],
    )
    findings = evil_findings(evil, world.incident.t0_ns)
    world.vault.beside(world.incident.id, "findings.json", json.dumps(findings.as_json()).encode())
    world.targets.all_of_them = (make["target"](evil, note=evil),)
    world.parts = replace(
        world.parts,
        rules=lambda: [{"rule": evil, "description": evil, "match": {evil: [evil]}, "capture": {evil: evil}}],
        node=evil,
    )  # fmt: skip
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        told = quote(evil, safe="")
        for path in (
            *pages(world),
            *(
                f"/?{name}={told}"
                for name in ("text", "namespace", "since", "state", "before", told)
            ),
            f"/search?q={told}",
            f"/capture?target={told}",
            f"/incidents/{world.incident.id}?node={told}",
            f"/incidents/{told}",
            f"/{told}",
        ):
            answer = await http.get(path, headers={"accept": "text/html"})
            assert answer.status_code in (200, 400, 404), (path, answer.text[-500:])
            assert answer.headers["content-type"].startswith("text/html"), path
            read(answer.text)
            assert "set-cookie" not in answer.headers
            assert not set("\u202e\u2066\x00\x1b\r") & set(answer.text)
        shown = await http.get(f"/incidents/{world.incident.id}")
        assert visible(evil)[:20] in read(shown.text).text
        for path in ("incidents", "targets", "refusals", "incidents/20261124-0002"):
            told = await http.get(f"/v1/{path}")
            assert told.headers["content-type"] == "application/json"
            assert told.status_code == 200
            assert "sandbox" in told.headers["content-security-policy"]
        scraped = (await http.get("/metrics")).text
        assert evil.splitlines()[0] not in scraped


@given(text=st.text())
def test_any_text_stays_text(text: str) -> None:
    """Through element and attribute: the reader gets back exactly the visible text."""
    made = site._TEMPLATES.from_string('<p title="{{ it }}">{{ it }}</p>').render(it=text)
    reader = Reader()
    reader.feed(made)
    assert reader.tags == {"p"}
    assert dict(reader.attributes)["title"] == visible(text)
    assert reader.text == visible(text)


async def test_what_may_be_lost_stands_on_top(world) -> None:
    """The recorder away, and Falco's own losses."""
    world.targets.away = Transient("the recorder is away")
    world.heartbeats.every_s = 60
    for path in ("/", "/targets"):
        answer = await asked(world, path)
        assert "What may be lost" in answer.text
        assert "the recorder is away" in answer.text
        assert "no heartbeat" in answer.text


async def test_a_list_says_who_else_is_in_an_incident_and_pages_are_walked(world, make) -> None:
    """Other namespaces of an incident; a cursor to the older ones; a filter that is wrong is told beside it."""
    await world.catalogue.put(
        incidents=[
            make["incident"](number, namespaces=("*", "ledger", "payments"))
            for number in range(2, 60)
        ]
    )
    answer = await asked(world, "/")
    assert "with others, ledger" in read(answer.text).text
    older = next(value for name, value in read(answer.text).attributes if "before=" in value)
    rest = read((await asked(world, older)).text)
    assert ("href", f"/incidents/{world.incident.id}") in rest.attributes
    assert ("data-first", "") in rest.attributes
    for filter, found in (("text=CHECKOUT", 50), ("text=nobody", 0), ("state=open", 0)):
        listed = read((await asked(world, f"/?{filter}")).text)
        rows = [v for n, v in listed.attributes if n == "data-id"]
        assert len(rows) == found, filter
    wrong = await asked(world, "/?since=yesterday")
    assert wrong.status_code == 400
    assert "is not a time" in wrong.text


class EveryNode:
    """A shelf on which each node's part is the same folder."""

    def __init__(self, world) -> None:
        self.within = Folders(world.vault, "")

    async def manifest(self, incident, node: str) -> bytes:
        return await self.within.manifest(incident, "")

    async def open(self, incident, node: str, name: str, sealed) -> int:
        return await self.within.open(incident, "", name, sealed)

    async def address(self, incident, node: str, name: str) -> None:
        return None


async def test_of_a_fleet_each_part_is_shown_and_all_of_them_in_one(world) -> None:
    """Parts are listed, one is chosen, its links name its file; a node that has none is not found."""
    parts = [
        Part(
            place=Place(day="2026/11/24", incident=world.incident.id, node=node_name(name)),
            incident=replace(world.incident, title=f"payments/{name}"),
            files=(),
            manifest_sha256="",
            manifest_bytes=0,
            key_id=key,
        )
        for name, key in (("node-1", "ab" * 32), ("node-2", ""))
    ]

    async def parts_of(id) -> list[Part]:
        return parts

    path = f"/incidents/{world.incident.id}"
    changes = {"kind": "hub", "parts_of": parts_of, "shelf": EveryNode(world)}
    first = await asked(world, path, **changes)
    assert "the signature does not hold" in first.text
    assert ("href", f"{path}?node=node-2") in read(first.text).attributes
    assert ("href", f"{path}/packets?file=merged.pcapng") in read(first.text).attributes
    second = read((await asked(world, f"{path}?node=node-2", **changes)).text)
    assert ("href", f"{path}/packets?file=node-2%2Fevidence.pcapng") in second.attributes
    assert ("href", f"/v1{path}/parts/node-2/evidence.pcapng") in second.attributes
    assert (await asked(world, f"{path}?node=node-3", **changes)).status_code == 404
    for page, words in (
        ("/", "on the page of the node"),
        ("/targets", "A hub records nothing"),
        ("/rules", "A hub has no rules"),
    ):
        assert words in (await asked(world, page, **changes)).text


async def test_who_may_not_read_the_evidence_sees_that_there_is_some(world) -> None:
    """The record and its sentence, and nothing out of the folder."""
    sees = Caller("viewer")

    async def may(verb: str, resource: str, namespace: str) -> bool:
        return resource != EVIDENCE

    sees.may = may
    it = await gather(world.parts, sees, world.incident, "")
    assert not it.may_read
    assert it.manifest is None
    assert it.findings is None
    assert not it.alerts
    assert not it.deeds


async def test_static_files_are_for_ever_under_their_version(world) -> None:
    """Right types, nosniff, kept by browsers; under another version never kept; nothing but what is there."""
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        for name, media in (
            ("site.css", "text/css"),
            ("site.js", "text/javascript"),
            ("mark.svg", "image/svg+xml"),
            ("vendor/uPlot.esm.js", "text/javascript"),
        ):
            answer = await http.get(site.static(name))
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(media)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "immutable" in answer.headers["cache-control"]
        old = await http.get("/static/0123/site.css")
        assert old.headers["cache-control"] == "no-cache"
        for path in (
            "../site.py",
            "%2e%2e/site.py",
            "..%2fsite.py",
            "nothing.js",
            "vendor/%2e%2e/site.css",
        ):
            assert (await http.get(f"/static/{site.VERSION}/{path}")).status_code == 404, path


def test_a_wheel_carries_templates_and_static_files() -> None:
    """What pages need lies inside the package."""
    web = resources.files("tripshark.web")
    assert (web / "templates" / "base.html").is_file()
    assert (web / "static" / "vendor" / "uPlot.LICENSE.txt").is_file()


async def test_errors_are_pages_to_browsers_and_json_to_programs(world) -> None:
    """The same status, and the words that help."""
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        for path in ("/incidents/20990101-0000", "/nowhere"):
            page = await http.get(path, headers={"accept": "text/html,*/*"})
            assert page.status_code == 404
            assert "apology" in page.text
            assert page.headers["content-security-policy"] == site.POLICY
        plain = await http.get("/nowhere")
        assert plain.json()["error"]["code"] == "not_found"


# ------------------------------------------------------------------------------------------- the stream


async def heard(lines, name: str) -> dict[str, object]:
    """The data of the next such event."""
    async with asyncio.timeout(10):
        async for line in lines:
            if line == f"event: {name}":
                return dict(json.loads((await anext(lines)).removeprefix("data: ")))
    raise AssertionError(f"the stream ended without {name}")


async def test_the_stream_tells_what_changes_and_only_that_which_fits(world, make) -> None:
    """New, changed, no longer fitting; the catalogue's absence and return; it ends when the server does."""
    now_ns = world.parts.clock.now_ns()
    fresh = make["incident"](2, opened_ns=now_ns, namespace="shop", title="shop/cart")
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http,
    ):
        async with http.stream("GET", "/v1/events?namespace=shop") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = aiter(stream.aiter_lines())
            await heard(lines, "hello")
            await world.catalogue.put(incidents=[make["incident"](3, opened_ns=now_ns), fresh])
            assert (await heard(lines, "incident"))["id"] == fresh.id
            await world.catalogue.put(incidents=[replace(fresh, packets=99)])
            assert (await heard(lines, "incident"))["packets"] == 99
            await world.catalogue.put(incidents=[replace(fresh, namespace="elsewhere")])
            assert (await heard(lines, "gone"))["id"] == fresh.id
        async with http.stream("GET", f"/v1/events?incident={world.incident.id}") as stream:
            lines = aiter(stream.aiter_lines())
            assert (await heard(lines, "incident"))["id"] == world.incident.id
        for path in ("events?incident=20990101-0000", "events?before=x", "events?nothing=x"):
            assert (await http.get(f"/v1/{path}")).status_code in (400, 404)
        stream = await http.send(http.build_request("GET", "/v1/events"), stream=True)
        lines = aiter(stream.aiter_lines())
        await heard(lines, "hello")
    with suppress(StopAsyncIteration, httpx2.HTTPError):
        await anext(lines)


class Away:
    """A catalogue that cannot be read for a while."""

    def __init__(self, within) -> None:
        self.within = within
        self.away = False

    def __getattr__(self, name: str):
        if self.away:
            raise Transient("the database is locked")
        return getattr(self.within, name)


async def test_the_stream_says_when_the_catalogue_cannot_be_read_and_goes_on(world, make) -> None:
    """A problem, its end, and what happened meanwhile."""
    catalogue = Away(world.catalogue)
    fresh = make["incident"](2, opened_ns=world.parts.clock.now_ns())
    async with (
        world.served(catalogue=catalogue) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http,
        http.stream("GET", "/v1/events") as stream,
    ):
        lines = aiter(stream.aiter_lines())
        await heard(lines, "hello")
        catalogue.away = True
        assert (await heard(lines, "problem"))["message"] == "the database is locked"
        await world.catalogue.put(incidents=[fresh])
        catalogue.away = False
        assert (await heard(lines, "problem"))["message"] == ""
        assert (await heard(lines, "incident"))["id"] == fresh.id


async def test_the_filters_of_a_stream_are_those_of_the_list(world, make) -> None:
    """For every filter the catalogue and the stream agree on every incident."""
    states = ("open", "sealed")
    many = [
        make["incident"](
            number, namespace=("a", "b")[number % 2], namespaces=(("a", "b")[number % 2],),
            pod=f"p{number % 3}", title=f"T{number % 4}_x", rule=f"R{number % 2}", state=states[number % 2],
        )
        for number in range(10, 22)
    ]  # fmt: skip
    many = [replace(each, state=type(world.incident.state)(each.state)) for each in many]
    await world.catalogue.put(incidents=many)
    for query in (
        Query(namespace="a"),
        Query(pod="p1", state="open"),
        Query(rule="R1"),
        Query(rule="Outbound Connection to C2 Servers"),
        Query(text="t1_X"),
        Query(text="_"),
        Query(text="%"),
        Query(since_ns=many[3].opened_ns),
        Query(visible=("a",)),
        Query(visible=()),
    ):
        found = {each.id for each in await world.catalogue.incidents(replace(query, limit=500))}
        every = await world.catalogue.incidents(Query(limit=500))
        assert found == {each.id for each in every if fits(each, query)}, query


async def test_an_event_is_tested_and_nothing_comes_of_it(world) -> None:
    """What the program says it would do is answered; without rules (a hub) that is said; bodies are bounded."""

    async def attempt(body: bytes) -> dict[str, object]:
        return {"length": len(body)}

    headers = {"content-type": "application/json"}
    async with (
        world.served(attempt=attempt) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        assert (await http.post("/v1/rules/test", content=b"{}", headers=headers)).json() == {
            "length": 2
        }
        assert (await http.post("/v1/rules/test", content=b"{}")).status_code == 415
        long = await http.post("/v1/rules/test", content=b"x" * (2 << 20), headers=headers)
        assert long.status_code == 413
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        none = await http.post("/v1/rules/test", content=b"{}", headers=headers)
        assert none.status_code == 404


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


async def test_one_reader_cannot_keep_others_from_watching(world, monkeypatch) -> None:
    """Streams are bounded by who reads them."""
    monkeypatch.setattr(live, "MOST_OF_ONE", 1)
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        http.stream("GET", "/v1/events") as first,
    ):
        assert first.status_code == 200
        async with asyncio.timeout(20):
            while not world.parts.watch.watchers:
                await asyncio.sleep(0)
        assert (await http.get("/v1/events")).status_code == 429
        assert list(world.parts.watch.watchers.values()) == [1]
