"""The pages, as a person sees and uses them: Chromium on a machine where a pod was taken over."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import (
    PATIENCE,
    PHONE,
    WIDE,
    Visitor,
    in_one_loop,
    requires_browser,
    requires_root,
)
from tests.browser.story import House
from tests.e2e.machine import evidence_files, falco_event
from tests.web.conftest import World, make_incident
from tripshark.errors import Denied, Transient
from tripshark.model.incident import State
from tripshark.store.verify import verify
from tripshark.web.app import App
from tripshark.web.pages import filters
from tripshark.web.serve import bind, serving

pytestmark = [pytest.mark.root, requires_root, requires_browser, in_one_loop]

TALK = """
import socket, sys
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(20): u.sendto(b"x", (sys.argv[1], 9))
"""
Accessible = Callable[[Page], Awaitable[None]]
Picture = Callable[[Page, str], Awaitable[None]]
expect.set_options(timeout=PATIENCE)


async def fits(page: Page) -> None:
    """Nothing sticks out of the page; what is wide scrolls in its own box."""
    over = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert over <= 0, f"{page.url} is {over} px too wide"


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", PHONE)], ids=str)
async def test_every_page_is_accessible_and_fits(
    house: House, visit: Visitor, accessible: Accessible, picture: Picture, theme, size
) -> None:
    """axe finds nothing, in light and wide or dark and at 360 px; pictures for the docs are of these very pages."""
    visit.expects("404")
    page = await visit(house.url, theme=theme, size=size)
    name = f"{theme}-{'phone' if size == PHONE else 'wide'}"
    for path, title in (
        ("/", "incidents"),
        (f"/incidents/{house.id}", "incident"),
        ("/targets", "targets"),
        ("/rules", "rules"),
        ("/capture", "capture"),
        ("/search?q=evil", "search"),
        ("/incidents/nobody", ""),
    ):
        await page.goto(house.url + path)
        if size == PHONE and title in ("targets", "capture", "search"):
            await fits(page)
            continue  # of the same elements as the others
        if title == "incident":
            await page.locator("#timeline canvas").wait_for()
        if title == "rules":
            await page.get_by_role("button", name="Test", exact=True).click()
            await page.get_by_text("Matches 1 of 2 rules").wait_for()
        await fits(page)
        await accessible(page)
        if title in ({"incidents", "incident", "rules"} if size == WIDE else {"incident"}):
            await page.evaluate("scrollTo(0, 0)")
            await picture(page, f"{title}-{name}")
    await page.goto(house.url)
    await page.keyboard.press("?")
    await page.get_by_role("dialog").wait_for()
    await accessible(page)


async def test_a_list_is_filtered_and_walked_by_keys(house: House, visit: Visitor) -> None:
    """Filters are an address; `/` searches, j and Enter open, and Escape lets go of a field."""
    visit.expects("400")
    page = await visit(house.url)
    row = page.locator(f'tr[data-id="{house.id}"]')
    await page.get_by_label("Text").fill("nothing like it")
    await page.keyboard.press("Enter")
    await page.get_by_text("No incident fits these filters").wait_for()
    await page.get_by_role("link", name="Show all").click()
    await page.get_by_label("Namespace").fill("payments")
    await page.get_by_role("button", name="Filter").click()
    await row.wait_for()
    assert "namespace=payments" in page.url
    await page.get_by_label("Since").fill("yesterday")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("alert")).to_contain_text("is not a time")
    await page.goto(f"{house.url}/?text=Outbound+Connection&state=sealed")
    await expect(page.locator("#live")).to_have_text("live")
    await page.keyboard.press("/")
    await expect(page.get_by_role("searchbox", name="Search names")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("j")
    await expect(row).to_have_class(re.compile("chosen"))
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/incidents/{house.id}")


async def test_an_incident_reads_from_the_sentence_to_the_packets(
    house: House, visit: Visitor
) -> None:
    """The sentence first; a stretch of time narrows tables and links; every value leads to packets that exist."""
    page = await visit(f"{house.url}/incidents/{house.id}")
    await expect(page.locator("#lead")).to_contain_text("c2.evil.example")
    for words in ("Who talked to whom", "DNS", "TLS", "HTTP", "What is missing", "Custody"):
        await page.get_by_role("heading", name=re.compile(words)).first.wait_for()
    links = page.locator("a[data-filter]")
    addresses = await links.evaluate_all(
        "them => them.map(each => [each.dataset.filter, each.href])"
    )
    shown = {filter for filter, _ in addresses if filter}
    assert len(shown) > 10
    assert all(f"/incidents/{house.id}/packets" in href for _, href in addresses)
    (file,) = evidence_files(house.incident)
    for filter in sorted(shown, key=len)[:3] + sorted(shown, key=len)[-3:]:
        found = subprocess.run(
            ["tshark", "-r", file, "-Y", filter], capture_output=True, check=True
        )
        assert found.stdout, filter
    together = " || ".join(f"({each})" for each in shown)
    subprocess.run(
        ["tshark", "-r", file, "-c", "1", "-Y", together], check=True, capture_output=True
    )
    box = await page.locator("#timeline .u-over").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + box["width"] * 0.01, middle)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.05, middle, steps=4)
    await page.mouse.up()
    stretch = page.get_by_role("link", name="Packets in this stretch")
    await stretch.wait_for()
    first = page.locator("#talkers tbody tr").first
    await expect(first).to_be_hidden()  # the beacon is later
    href = str(await stretch.get_attribute("href"))
    assert "frame.time_epoch%20%3E%3D%20" in href
    await page.get_by_role("button", name="Clear").click()
    await expect(first).to_be_visible()
    assert "time_epoch" not in str(await page.locator(".actions .first").get_attribute("href"))
    await page.get_by_label("from, seconds").fill("-0.5")
    await page.get_by_label("to, seconds").fill("0.5")
    await expect(first).to_be_visible()
    times = re.findall(r"\d{10}\.\d{9}", str(await stretch.get_attribute("href")))
    assert round(float(times[1]) - float(times[0]), 3) == 1.0


async def test_files_of_an_incident_are_downloaded_as_they_were_sealed(
    house: House, visit: Visitor, tmp_path: Path
) -> None:
    """The folder, too, is what `tripshark verify` takes; the link gives the very bytes whose SHA-256 stands beside it; custody knows."""
    page = await visit(f"{house.url}/incidents/{house.id}")
    async with page.expect_download() as began:
        await page.get_by_role("link", name="evidence.pcapng", exact=True).click()
    (file,) = evidence_files(house.incident)
    got = await (await began.value).path()
    assert got.read_bytes() == file.read_bytes()
    async with page.expect_download() as began:
        await page.get_by_role("link", name="evidence.zip").click()
    with ZipFile(await (await began.value).path()) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    verified = verify(tmp_path / house.id)
    assert verified.ok, verified
    await page.reload()
    for name in ("evidence.pcapng", "evidence.zip"):
        await expect(page.locator(".custody")).to_contain_text(name)


async def test_without_script_everything_can_be_read(house: House, visit: Visitor) -> None:
    """List, filters, the incident's sentence, its tables, alerts and downloads."""
    page = await visit(house.url, script=False)
    await page.get_by_label("Text").fill("Outbound Connection")
    await page.get_by_role("button", name="Filter").click()
    await page.get_by_role("link", name="payments/checkout-7d9f").first.click()
    await page.get_by_text("looked up c2.evil.example").first.wait_for()
    await page.get_by_role("heading", name="Who talked to whom").wait_for()
    await page.locator(".alert summary").first.click()
    await page.get_by_text("fd.name").first.wait_for()


async def test_a_capture_by_hand_is_followed_to_its_end(house: House, visit: Visitor) -> None:
    """Mistakes are told at their field; then the page of the incident goes on by itself, and so does the list."""
    visit.expects("40[049]")
    listed = await visit(house.url)
    await expect(listed.locator("#live")).to_have_text("live")
    before = await listed.locator("#incidents tbody tr").count()
    page = await visit(f"{house.url}/capture")
    await page.get_by_role("button", name="Capture", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("Whose packets?")
    await page.get_by_label("Target").fill("payments/nobody")
    await page.get_by_role("button", name="Capture", exact=True).click()
    await expect(page.locator("#target")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Target").fill(f"netns:{house.pod}")
    await page.get_by_label("Filter").fill("port eighty-ish")
    await page.get_by_role("button", name="Capture", exact=True).click()
    await expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Filter").fill("tcp")
    await page.get_by_label("Before").fill("3h")
    await page.get_by_label("After").fill("1s")
    await page.get_by_role("button", name="Capture", exact=True).click()
    await page.wait_for_url("**/incidents/2*")
    await page.get_by_text("under way").wait_for()
    await page.get_by_role("link", name="Open packets").wait_for()
    await expect(listed.locator("#incidents tbody tr")).to_have_count(before + 1)
    newest = listed.locator("#incidents tbody tr").first
    await expect(newest.locator('[data-f="word"]')).to_have_text("complete")


async def test_targets_are_live_and_lead_to_a_capture(house: House, visit: Visitor) -> None:
    """What is recorded is counted on while one looks; a target is one step from its capture."""
    page = await visit(f"{house.url}/targets")
    row = page.locator("tr", has_text="payments/checkout-7d9f")
    await expect(page.locator("#live")).to_have_text("live")
    packets = row.locator('[data-f="packets"]')
    before = str(await packets.text_content())
    house.network.python(house.pod, TALK, "10.66.0.2")
    await expect(packets).not_to_have_text(before)
    await page.get_by_label("Narrow").fill("nobody")
    await expect(row).to_be_hidden()
    await page.get_by_label("Narrow").fill("checkout")
    await row.get_by_role("link", name="Capture").click()
    await expect(page.get_by_label("Target")).to_have_value("payments/checkout-7d9f")


async def test_an_event_is_tested_against_the_rules(house: House, visit: Visitor) -> None:
    """What would be captured and why; what would not; what is no event."""
    visit.expects("400")
    page = await visit(f"{house.url}/rules")
    count = len(house.machine.incidents())
    for event, words in (
        (falco_event(pod="checkout-7d9f", connection="10.66.0.1:1->10.66.0.2:4444"), "It would be captured"),
        (falco_event(rule="Some other rule"), "It would not be captured"),
        (falco_event(pod="elsewhere"), "On a machine that records the target"),
        ("{", "This is not JSON"),
        ({"no": "event"}, "the event names no rule"),
    ):  # fmt: skip
        text = event if isinstance(event, str) else json.dumps(event)
        await page.get_by_label("Event of Falco").fill(text)
        await page.get_by_role("button", name="Test", exact=True).click()
        await expect(page.locator("#outcome")).to_contain_text(words)
    assert len(house.machine.incidents()) == count


# ------------------------------------------------------------------------------- when something is away


@asynccontextmanager
async def shown(world: World, port: int = 0, **changes: object):
    """Serve the world; yields its address."""
    app = App(replace(world.parts, watch=type(world.parts.watch)(), **changes), None)
    async with serving(app, bind("127.0.0.1", port)) as at:
        yield f"http://127.0.0.1:{at}"


class Door:
    """A gate that knows nobody for a while."""

    challenge = 'Bearer realm="tripshark"'
    is_open = False

    def __init__(self) -> None:
        self.refused: Denied | None = None

    def refuse(self, headers: object) -> Denied | None:
        return self.refused


class Sometimes:
    """A catalogue that is away for a while."""

    def __init__(self, within: object) -> None:
        self.within = within
        self.away: Exception | None = None

    def __getattr__(self, name: str):
        if self.away is not None:
            raise self.away
        return getattr(self.within, name)


async def test_a_page_says_what_is_away_and_recovers_by_itself(
    world: World, visit: Visitor, accessible: Accessible
) -> None:
    """The catalogue; then the whole server: what happened meanwhile is there when it is back."""
    visit.expects("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|503")
    catalogue = Sometimes(world.catalogue)
    async with shown(world, catalogue=catalogue) as url:
        page = await visit(url)
        line = page.locator("#lost")
        await expect(page.locator("#live")).to_have_text("live")
        catalogue.away = Transient("the database is locked")
        await expect(line).to_contain_text("the database is locked")
        await accessible(page)
        gone = await page.context.new_page()
        await gone.goto(url)
        await expect(gone.get_by_role("alert")).to_contain_text("The database is locked")
        catalogue.away = None
        await gone.get_by_role("heading", name="Incidents", exact=True).wait_for()
        await gone.close()
        await expect(line).to_be_hidden()
        port = int(url.rpartition(":")[2])
    await expect(line).to_contain_text("Connection lost")
    await world.catalogue.put(incidents=[make_incident(7, title="shop/meanwhile")])
    async with shown(world, port):
        await page.get_by_text("shop/meanwhile").wait_for(timeout=PATIENCE)
        await expect(line).to_be_hidden()
        await expect(page.locator("#live")).to_have_text("live")
        await page.close()


async def test_a_session_that_ended_is_told_and_can_begin_again(
    world: World, visit: Visitor
) -> None:
    """The page keeps what it shows, says how to sign in, and goes on when that was done elsewhere."""
    visit.expects("401")
    gate = Door()
    async with shown(world, gate=gate) as url:
        page = await visit(f"{url}/targets")
        await expect(page.locator("#live")).to_have_text("live")
        gate.refused = Denied("who are you?")
        line = page.locator("#lost")
        await expect(line).to_contain_text("Your session has ended")
        await expect(line.get_by_role("link")).to_have_attribute("href", "/signin?next=%2Ftargets")
        await expect(page.locator("#targets tbody tr")).to_have_count(1)
        gate.refused = None
        await expect(line).to_be_hidden()
        await page.close()


async def test_an_open_capture_whose_recorder_is_away_is_not_forgotten(
    world: World, visit: Visitor
) -> None:
    """The first page names the recorder; the page of an open incident goes on when it is sealed at last."""
    world.targets.away = Transient("the recorder is away")
    running = replace(make_incident(8), state=State.OPEN, sealed_ns=0)
    await world.catalogue.put(incidents=[running])
    async with shown(world) as url:
        page = await visit(url)
        await page.get_by_role("heading", name="What may be lost").wait_for()
        await page.get_by_text("the recorder is away").first.wait_for()
        await page.goto(f"{url}/incidents/{running.id}")
        await page.get_by_text("under way").wait_for()
        await world.catalogue.put(
            incidents=[replace(running, state=State.FAILED, problem="disk full")]
        )
        await page.get_by_text("disk full").wait_for()
        await page.close()


async def test_values_lead_to_filters_that_wireshark_takes() -> None:
    """Addresses of both kinds, MACs, ports, names with quotes; nothing for what is not what it says."""
    made = [
        filters.address("10.0.0.1"),
        filters.address("fe80::1"),
        filters.address("02:00:00:00:00:01"),
        filters.every(filters.address("10.0.0.1"), filters.port("tcp", 443)),
        filters.text("http.user_agent", 'a "quoted" one'),
        filters.text("dns.qry.name", "x.example"),
    ]
    check = [
        "tshark",
        "-r",
        "tests/captures/dns-mx.pcap",
        "-c",
        "1",
        "-Y",
        " || ".join(f"({each})" for each in made),
    ]
    process = await asyncio.create_subprocess_exec(
        *check, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said
    for nothing in (
        filters.address("payments/pod"),
        filters.address("1.2.3.4 || tcp"),
        filters.text("dns.qry.name", "a\\x00b"),
        filters.text("dns.qry.name", "cut…"),
        filters.port("udp) || (tcp", 1),
        filters.port("tcp", 70000),
        filters.every("", ""),
    ):
        assert nothing == ""
