"""The packet view as a person uses it: Chromium, a real sharkd in its sandbox, real and hostile captures."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect

from tests.analysis.crafted import ACK, C2, POD, PUSH, START_NS, Capture, get, hello
from tests.browser.conftest import (
    PHONE,
    WIDE,
    Theme,
    Visitor,
    in_one_loop,
    requires_browser,
    requires_root,
)
from tests.browser.library import Library, library, numbered
from tests.browser.story import House

pytestmark = [requires_browser, in_one_loop]

Accessible = Callable[[Page], Awaitable[None]]
Picture = Callable[[Page, str], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shelf() -> AsyncIterator[Library]:
    async with library() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(shelf: Library) -> str:
    """The address of a small incident: a look-up, an order and its answer, two alerts."""
    return await shelf.shelve(_story().bytes(), START_NS + 5_000_000)


def _story() -> Capture:
    capture = Capture(step_ns=20_000_000)
    capture.name(POD, "payments/checkout-7d9f")
    capture.look_up(b"c2.evil.example", C2)
    capture.alert_row("Shell in container\nPRIORITY=2\nSYSLOG_IDENTIFIER=falco")
    capture.handshake(41_000, C2, 80)
    capture.tcp(POD, 41_000, C2, 80, PUSH, get(b"c2.evil.example", b"/tool"))
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"
    capture.tcp(C2, 80, POD, 41_000, PUSH, reply)
    capture.alert_row("File read\nPRIORITY=4\nSYSLOG_IDENTIFIER=falco")
    for port in range(41_001, 41_031):
        capture.handshake(port, C2, 443)
        capture.tcp(POD, port, C2, 443, PUSH, hello(b"c2.evil.example"))
    return capture


async def _opened(page: Page) -> Page:
    await page.wait_for_selector("#packets[data-ready]")
    return page


def _row(page: Page, number: int) -> Locator:
    return page.locator(f'[role="row"][data-number="{number}"]')


async def _selected(page: Page, number: int) -> None:
    await expect(page.locator('#list [role="row"][aria-selected="true"]')).to_have_attribute(
        "data-number", str(number)
    )


async def _filtered(page: Page, filter: str) -> None:
    """The filter is in the box and in the address."""
    await expect(page.locator("#filter")).to_have_value(filter)
    await page.wait_for_function(
        "want => (new URL(location).searchParams.get('filter') ?? '') === want", arg=filter
    )


# ------------------------------------------------------------------------------------------ the journey


@pytest.mark.root
@requires_root
@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", WIDE), ("dark", PHONE)])
async def test_from_the_list_to_a_note_and_a_download(
    house: House,
    visit: Visitor,
    accessible: Accessible,
    picture: Picture,
    theme: Theme,
    size: tuple[int, int],
) -> None:
    """List, incident, brush, filter, packet, stream, note, download: everything an analyst does, and axe agrees."""
    name = f"packets-{'wide' if size == WIDE else 'phone'}-{theme}"
    page = await visit(house.url, theme=theme, size=size)
    await page.locator(f'a[href="/incidents/{house.id}"]').first.click()
    await page.get_by_role("link", name="Open packets").click()
    await _opened(page)
    await page.keyboard.press("]")
    await expect(page.locator("#list .is-alert").first).to_contain_text("▲")
    await expect(page.locator("#tree")).to_contain_text("FALCO Critical")
    total = await page.locator("#count").text_content()
    await accessible(page)
    if name in ("packets-wide-light", "packets-phone-dark"):
        await picture(page, name)

    strip = await page.locator("#timeline").bounding_box()
    assert strip is not None
    middle = strip["y"] + 20
    await page.mouse.move(strip["x"] + strip["width"] * 0.05, middle)
    await page.mouse.down()
    await page.mouse.move(strip["x"] + strip["width"] * 0.95, middle, steps=4)
    await page.mouse.up()
    await expect(page.locator("#filter")).to_have_value(re.compile(r"^frame\.time_epoch >= \d+"))
    await expect(page.locator("#count")).to_contain_text(" of ")

    await page.locator("#filter").fill("http.request")
    await page.locator("#filter").press("Enter")
    await _filtered(page, "http.request")
    login = page.locator("#list [role=row]", has_text="GET /login")
    number = int(str(await login.get_attribute("data-number")))
    await login.click()
    if size == PHONE:
        await page.get_by_role("button", name="Fields").click()
    await expect(page.locator("#packet-title")).to_have_text(f"Packet {number}")
    await expect(page.locator("#tree")).to_contain_text("Hypertext Transfer Protocol")
    await accessible(page)

    await page.get_by_role("button", name="Follow stream").click()
    await expect(page.locator("#follow .said.client").first).to_contain_text(
        "Authorization: Basic"
    )
    await expect(page.locator("#follow .said.server").first).to_contain_text("200 OK")
    await accessible(page)
    if name == "packets-wide-dark":
        await picture(page, "packets-follow")
    async with page.expect_download() as saved:
        await page.get_by_role("button", name="Save raw").click()
    assert b"GET /login HTTP/1.1" in Path(await (await saved.value).path()).read_bytes()
    await page.get_by_role("button", name="Filter this stream").click()
    await expect(page.locator("#filter")).to_have_value(re.compile(r"^tcp\.stream == \d+$"))

    await page.get_by_role("button", name="Add note").click()
    words = f"The password goes in the clear ({name})"
    await page.get_by_label(f"Note at packet {number}").fill(words)
    await page.get_by_role("button", name="Add the note").click()
    await expect(page.locator("#notes article", has_text=words)).to_be_visible()
    await expect(_row(page, number).locator(".c-marks")).to_contain_text("✎")
    if size == PHONE:
        await accessible(page)
    kept = house.machine.get(f"/v1/incidents/{house.id}/notes")["notes"]
    assert words in [each["text"] for each in kept]  # type: ignore[attr-defined]
    await page.locator("#notes article", has_text=words).get_by_text("Edit").click()
    await page.get_by_label(f"Note at packet {number}").fill(words + "!")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#notes article", has_text=words + "!")).to_be_visible()
    await page.locator("#notes article", has_text=words + "!").get_by_text("Delete").click()
    await expect(page.locator("#notes article", has_text=words)).to_have_count(0)

    await page.locator("summary", has_text="Save & share").click()
    async with page.expect_download() as saved:
        await page.get_by_role("link", name=re.compile("Download evidence.pcapng")).click()
    assert Path(await (await saved.value).path()).read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    await page.keyboard.press("Escape")
    await page.locator("#filter-clear").click()
    await expect(page.locator("#count")).to_have_text(str(total))


# ------------------------------------------------------------------------------------------- the list


async def test_a_million_rows_are_as_near_as_ten(shelf: Library, visit: Visitor) -> None:
    """Only what is in sight exists, and any row is reached, also beyond what a browser can lay out at once."""
    address = await shelf.shelve(numbered(130_000), START_NS)
    page = await _opened(await visit(address, size=PHONE))  # high rows: 7.4 million pixels
    grid = page.locator("#list")
    for key, number in (("End", 130_000), ("k", 129_999), ("Home", 1), ("j", 2)):
        await page.keyboard.press(key)
        await _selected(page, number)
        await expect(_row(page, number)).to_be_in_viewport()
    height = await grid.evaluate("it => it.scrollHeight")
    assert height < 7_000_000
    await grid.evaluate("(it, to) => { it.scrollTop = to }", height // 2)
    await page.evaluate(f"() => {{ window.firstInSight = {FIRST} }}")
    await page.wait_for_function("() => Math.abs(window.firstInSight() - 65000) < 100")
    assert await page.locator("#list .packet-body [role=row]").count() < 60
    before = int(await page.evaluate("() => window.firstInSight()"))
    await page.mouse.move(100, 500)
    await page.mouse.wheel(0, 57 * 3)  # three rows, whatever the scroll bar stands for
    await page.wait_for_function(
        "want => Math.abs(window.firstInSight() - want) < 1", arg=before + 3
    )
    await page.keyboard.press("g")
    await page.locator("#go-number").fill("98765")
    await page.keyboard.press("Enter")
    await _selected(page, 98_765)
    await page.wait_for_url("**#p=98765")
    await page.keyboard.press("/")
    await page.keyboard.type("udp.srcport == 7")
    await page.keyboard.press("Enter")
    await expect(page.locator("#count")).to_contain_text("3 of 130")
    await _selected(page, 100_008)  # the next one that the filter leaves
    await page.keyboard.press("x")
    await _selected(page, 98_765)  # and back to where one was


async def test_a_large_file_is_seen_through_a_window_that_moves(
    shelf: Library, visit: Visitor
) -> None:
    """What is shown is said; the window is moved by hand, by a packet's number and by a link."""
    capture = Capture()
    for number in range(7000):
        capture.udp(POD, number, C2, 4444, bytes(1400))
    address = await shelf.shelve(capture.bytes(), START_NS + 3_500_000_000)
    page = await _opened(await visit(address))
    notice = page.locator("#window")
    await expect(notice).to_contain_text("lie before this window")
    await expect(page.locator("#count")).to_contain_text(
        re.compile(r"^[\d\s]+ of 7\s000 packets$")
    )
    await _selected(page, 3501)  # where the alert was
    await page.get_by_role("button", name="Earlier").click()
    await expect(_row(page, 3501)).to_have_count(0)
    await page.get_by_role("button", name="Around the alert").click()
    await _selected(page, 3501)
    await page.keyboard.press("g")
    await page.locator("#go-number").fill("6990")
    await page.keyboard.press("Enter")
    await _selected(page, 6990)
    await expect(page.locator("#packet-title")).to_have_text("Packet 6990")
    await page.wait_for_url("**at=6990**#p=6990")
    await page.goto(f"{address}#p=12")
    await _selected(await _opened(page), 12)
    await page.locator("#filter").fill("udp.srcport == 20")
    await page.locator("#filter").press("Enter")
    await _selected(page, 21)


FIRST = """() => {
  const grid = document.querySelector("#list").getBoundingClientRect();
  const rows = [...document.querySelectorAll("#list .packet-body [role=row]")];
  const numbers = rows.filter(it => it.getBoundingClientRect().top >= grid.top - 1).map(it => Number(it.dataset.number));
  return Math.min(...numbers);
}"""


async def test_rows_are_coloured_as_wireshark_does_and_can_be_read(
    shelf: Library, visit: Visitor, story: str
) -> None:
    """By day the colours are Wireshark's own; by night, too, every text has a contrast of 4.5 or more."""
    day = await _opened(await visit(story))
    background = await _row(day, 2).evaluate("it => getComputedStyle(it).backgroundColor")
    assert background == "rgb(218, 238, 255)"  # daeeff: UDP
    night = await _opened(await visit(story, theme="dark"))
    for page in (day, night):
        worst = await page.evaluate(CONTRAST)
        assert worst >= 4.5


CONTRAST = """async () => {
  const { contrast, rowColours } = await import(document.querySelector('script[src*="packets.js"]').src.replace("packets.js", "packets-colour.js"));
  const hex = (css) => css.match(/\\d+/g).slice(0, 3).map(it => Number(it).toString(16).padStart(2, "0")).join("");
  const rows = [...document.querySelectorAll("#list .packet-body [role=row]")];
  const seen = rows.map(it => getComputedStyle(it)).map(it => contrast(hex(it.color), it.backgroundColor === "rgba(0, 0, 0, 0)" ? hex(getComputedStyle(document.body).backgroundColor) : hex(it.backgroundColor)));
  const night = matchMedia("(prefers-color-scheme: dark)").matches;
  for (const ground of ["000000", "ffffff", "808080", "ff0000", "00ff00", "0000ff", "a40000", "12272e", "fce5cd", "a0a0a0"])
    for (const ink of ["000000", "ffffff", "777777", "f78787", "fffc9c", "2d6f9a"])
      for (const loud of [true, false]) {
        const made = rowColours(ground, ink, night, loud);
        seen.push(contrast(made.ink.slice(1), made.ground ? made.ground.slice(1) : hex(getComputedStyle(document.body).backgroundColor)));
      }
  return Math.min(...seen);
}"""


# --------------------------------------------------------------------------------------- without a mouse


async def test_everything_is_reached_by_keys(
    visit: Visitor, story: str, accessible: Accessible
) -> None:
    """Alerts, fields, bytes, filters by field, completion, stream, note and span of time: no mouse is needed."""
    page = await _opened(await visit(story))
    await page.keyboard.press("]")
    await _selected(page, 3)
    await page.keyboard.press("]")
    await _selected(page, 9)
    await page.keyboard.press("[")
    await _selected(page, 3)
    for _ in range(4):
        await page.keyboard.press("ArrowDown")
    await _selected(page, 7)
    await expect(page.locator("#packet-title")).to_have_text("Packet 7")
    await page.keyboard.press("Enter")  # into the fields
    await page.keyboard.press("End")
    await page.keyboard.press("Home")
    for _ in range(3):
        await page.keyboard.press("ArrowDown")
    focused = page.locator("#tree [role=treeitem]:focus")
    await expect(focused).to_contain_text("Transmission Control Protocol")
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    await expect(focused).to_have_text("Source Port: 41000")
    await expect(page.locator("#bytes .chosen").first).to_have_text("a0 28")
    await expect(page.locator("#field-filter")).to_have_text("tcp.srcport == 41000")
    await page.keyboard.press("Enter")
    await _filtered(page, "tcp.srcport == 41000")
    await expect(page.locator("#count")).to_contain_text("3 of ")

    await page.locator("#bytes").focus()
    await page.keyboard.press("Home")
    for _ in range(2):
        await page.keyboard.press("ArrowUp")
    chosen = page.locator('#tree [aria-selected="true"] > .says')
    await expect(chosen).to_contain_text(re.compile("Destination:|LG bit|IG bit|Address:"))

    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await page.keyboard.type("http.req")
    await expect(page.locator("#choices [role=option]").first).to_be_visible()
    await page.keyboard.press("ArrowDown")
    await accessible(page)
    await page.keyboard.press("Tab")
    await expect(page.locator("#filter")).to_have_value(re.compile(r"^http\.request"))
    await page.locator("#filter").fill("http.request ==")
    await expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#filter-message")).to_be_visible()
    await page.locator("#filter").fill("http.request")
    await page.keyboard.press("Enter")
    await _filtered(page, "http.request")
    await _selected(page, 7)

    await page.keyboard.press("f")
    await expect(page.locator("#follow .said.client")).to_contain_text("GET /tool HTTP/1.1")
    await page.locator('#follow [data-part="as"]').select_option("hex")
    await expect(page.locator("#follow .said.client")).to_contain_text("47 45 54 20 2f 74 6f 6f")
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await page.keyboard.type("By keys alone")
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#notes article")).to_contain_text("By keys alone")

    await page.locator("#timeline").focus()
    await page.keyboard.press("Home")
    for _ in range(5):
        await page.keyboard.press("Shift+ArrowRight")
    await page.keyboard.press("Enter")
    await expect(page.locator("#filter")).to_have_value(
        re.compile(r"^http\.request && frame\.time_epoch >= 1790000000 &&")
    )
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("next alert")
    await page.keyboard.press("Escape")


async def test_bytes_that_were_put_together_are_a_source_of_their_own(
    shelf: Library, visit: Visitor, accessible: Accessible
) -> None:
    """A field of a reassembled answer shows its bytes there, and a byte there leads to its field."""
    capture = Capture()
    capture.handshake(41_000, C2, 80)
    capture.tcp(POD, 41_000, C2, 80, PUSH, get(b"c2.evil.example", b"/tool"))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 26\r\n\r\n"
    capture.tcp(C2, 80, POD, 41_000, ACK, head + b"abcdefghijklm")
    capture.tcp(C2, 80, POD, 41_000, PUSH, b"nopqrstuvwxyz", seq=1 + len(head) + 13)
    page = await _opened(await visit(f"{await shelf.shelve(capture.bytes(), START_NS)}#p=6"))
    sources = page.locator("#sources [role=tab]")
    await expect(sources).to_have_count(2)
    await page.locator("#tree .says", has_text="Hypertext Transfer Protocol").dblclick()
    await page.locator("#tree .says", has_text="Content-Length: 26").click()
    await expect(sources.nth(1)).to_have_attribute("aria-selected", "true")
    await expect(page.locator("#bytes .chosen").first).to_have_text(
        re.compile("^(43 )?6f 6e 74|^43")
    )
    await accessible(page)
    await sources.nth(0).click()
    await sources.nth(0).press("ArrowRight")
    await expect(sources.nth(1)).to_have_attribute("aria-selected", "true")
    await page.locator("#bytes .ascii").first.click(position={"x": 3, "y": 5})
    chosen = page.locator('#tree [aria-selected="true"] > .says')
    await expect(chosen).to_contain_text("HTTP/1.1")
    await page.locator("#tree .says", has_text=re.compile("Request in frame: 4")).click()
    await page.get_by_role("button", name="Go to packet 4").click()
    await _selected(page, 4)


async def test_what_stays_encrypted_is_said(visit: Visitor, story: str) -> None:
    """A TLS stream without its keys is no error of ours, and is still there as TCP."""
    visit.expects("404")
    page = await _opened(await visit(f"{story}?filter=tls#p=13"))
    await expect(page.locator("#packet-title")).to_have_text("Packet 13")
    await page.keyboard.press("f")
    await expect(page.locator("#follow .said.client")).to_contain_text("c2.evil.example")
    await page.locator('#follow [data-part="proto"]').select_option(label="TLS")
    await expect(page.locator("#follow [role=alert]")).to_contain_text("keys are not in the file")


async def test_an_address_shows_what_it_showed_and_back_goes_back(
    visit: Visitor, story: str
) -> None:
    """Filter and packet are in the address, each filter is a step to go back over, and a link brings it all again."""
    page = await _opened(await visit(story))
    await _selected(page, 1)
    await page.locator('[data-chip="alerts"]').click()
    await expect(page.locator("#count")).to_contain_text("2 of ")
    await page.locator('[data-chip="tls"]').click()
    await expect(page.locator("#count")).to_contain_text("30 of ")
    await _row(page, 29).click()
    await page.wait_for_url("**#p=29")
    link = page.url
    await page.go_back()
    await expect(page.locator("#count")).to_contain_text("2 of ")
    await page.go_back()
    await expect(page.locator("#filter")).to_have_value("")
    again = await _opened(await visit(link))
    await _filtered(again, "tls || quic")
    await _selected(again, 29)
    await again.locator("#filter-clear").click()
    await _selected(again, 29)


async def test_times_are_told_three_ways_and_a_link_is_copied(visit: Visitor, story: str) -> None:
    """Since the first packet, since the alert, of the day; and what is shown is one address."""
    page = await visit(story, permissions=["clipboard-read", "clipboard-write"])
    time = _row(await _opened(page), 2).locator(".c-time")
    await expect(time).to_have_text("0.020000000")
    await page.get_by_label("Times").select_option("alert")
    await expect(time).to_have_text("+0.015000")
    await page.get_by_label("Times").select_option("utc")
    await expect(time).to_have_text("14:13:20.020000")
    await page.locator('[data-chip="dns"]').click()
    await _row(page, 2).click()
    await page.locator("summary").click()
    await page.get_by_role("button", name="Copy a link to what is shown").click()
    await expect(page.locator("#said")).to_contain_text("copied")
    assert await page.evaluate("navigator.clipboard.readText()") == f"{story}?filter=dns#p=2"
    await expect(page.locator("[data-oneliner]")).to_contain_text("| wireshark -k -i -")


async def test_a_browser_that_remembers_nothing_works(visit: Visitor, story: str) -> None:
    """Where storage is denied, filters are forgotten and nothing else is lost."""
    page = await visit(story)
    await page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    await page.reload()
    await _opened(page)
    await page.keyboard.press("/")
    await page.keyboard.type("dns")
    await page.keyboard.press("Enter")
    await expect(page.locator("#count")).to_contain_text("2 of ")


# ------------------------------------------------------------------------------------------- hostile

BAD = "<img src=x onerror=document.title=1><script>document.title=1</script>"
ANSI = "\x1b]0;owned\x07\x1b[31m"


async def test_what_packets_say_stays_text(shelf: Library, visit: Visitor) -> None:
    """Markup, terminal orders and turned text in names, alerts, fields, streams and notes: shown, never obeyed."""
    capture = Capture()
    capture.name(POD, f"{BAD[:40]}")
    capture.alert_row(f"{BAD} \u202egnp.exe{ANSI}\nPRIORITY=1\nSYSLOG_IDENTIFIER=falco")
    capture.look_up(b"<svg/onload=document~title=1>.evil.example", C2)
    capture.handshake(41_000, C2, 80)
    request = get(BAD.encode(), f"/{BAD}{ANSI}".replace(" ", "%20").encode())
    capture.tcp(POD, 41_000, C2, 80, PUSH, request)
    capture.tcp(
        C2, 80, POD, 41_000, PUSH, b"HTTP/1.1 200 OK\r\nServer: " + BAD.encode() + b"\r\n\r\n"
    )
    capture.tcp(POD, 41_000, C2, 80, ACK, ANSI.encode() + bytes(range(256)), seq=1 + len(request))
    page = await _opened(await visit(await shelf.shelve(capture.bytes(), START_NS)))
    title = await page.title()
    elements = await page.evaluate("document.querySelectorAll('script, img, svg, style').length")
    await expect(_row(page, 1)).to_contain_text("<script>")
    for number in range(1, 10):
        await _row(page, number).click()
        await expect(page.locator("#packet-title")).to_have_text(f"Packet {number}")
        await page.locator("#tree [role=treeitem]").first.focus()
        await page.keyboard.press("*")
    await _row(page, 7).click()
    await page.keyboard.press("f")
    await expect(page.locator("#follow .said.client").first).to_contain_text("<img src=x")
    shown = str(await page.locator("#follow").text_content())
    assert not set(shown) & {"\x1b", "\x07", "\u202e", "\x00"}
    await page.keyboard.press("Escape")
    await page.keyboard.press("n")
    await page.keyboard.type(BAD)
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#notes article")).to_contain_text(BAD)
    everything = str(await page.locator("body").text_content())
    assert not set(everything) & {"\x1b", "\x07", "\u202e"}
    assert await page.title() == title
    assert elements == await page.evaluate(
        "document.querySelectorAll('script, img, svg, style').length"
    )


# ------------------------------------------------------------------------------------- when things fail


async def test_a_dissector_that_is_killed_is_started_anew(
    shelf: Library, visit: Visitor, story: str
) -> None:
    """The reader stays where they were; what they ask next is answered by another one."""
    visit.expects("503")
    page = await _opened(await visit(f"{story}#p=20"))
    await _selected(page, 20)
    for pid in shelf.dissectors():
        os.kill(pid, signal.SIGKILL)
    await page.keyboard.press("j")
    await _selected(page, 21)
    await expect(page.locator("#packet-title")).to_have_text("Packet 21")
    await expect(page.locator("#trouble")).to_be_hidden()


async def test_without_network_nothing_is_lost_and_all_comes_back(
    visit: Visitor, story: str
) -> None:
    """What does not work is said; place, filter and typed words stay, and it recovers by itself."""
    visit.expects("ERR_INTERNET_DISCONNECTED")
    page = await _opened(await visit(f"{story}#p=6"))
    await page.keyboard.press("n")
    await page.keyboard.type("Half a thought")
    await page.context.set_offline(True)
    await page.keyboard.press("Control+Enter")
    await expect(page.locator("#trouble")).to_contain_text("cannot be reached")
    await expect(page.locator("#notes textarea")).to_have_value("Half a thought")
    await _row(page, 8).click()
    await _selected(page, 8)
    await page.context.set_offline(False)
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator("#packet-title")).to_have_text("Packet 8")
    await _row(page, 6).click()
    await expect(page.locator("#notes textarea")).to_have_value("Half a thought")
    await page.locator("#notes textarea").press("Control+Enter")
    await expect(page.locator("#notes article")).to_contain_text("Half a thought")


async def test_a_session_that_ends_is_taken_up_again(
    shelf: Library, visit: Visitor, story: str
) -> None:
    """It is said, with the way to sign in, and after that the view goes on where it was."""
    visit.expects("401")
    page = await _opened(await visit(f"{story}#p=5"))
    shelf.door.is_locked = True
    try:
        await page.keyboard.press("j")
        await expect(page.locator("#trouble")).to_contain_text("session has ended")
        sign_in = page.get_by_role("link", name="Sign in again")
        await expect(sign_in).to_have_attribute("href", re.compile("^/signin\\?next=%2Fincidents"))
    finally:
        shelf.door.is_locked = False
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator("#packet-title")).to_have_text("Packet 6")


async def test_a_database_that_is_away_is_waited_for(
    shelf: Library, visit: Visitor, story: str
) -> None:
    """What is on the page stays, what is away is said, and the view goes on by itself when it is back."""
    visit.expects("503")
    page = await _opened(await visit(f"{story}#p=5"))
    shelf.books.is_away = True
    try:
        await page.keyboard.press("j")
        await expect(page.locator("#trouble")).to_contain_text("database cannot be reached")
        await expect(_row(page, 6)).to_be_visible()
        await page.keyboard.press("/")
        await page.keyboard.type("tls")
    finally:
        shelf.books.is_away = False
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator("#packet-title")).to_have_text("Packet 6")
    await expect(page.locator("#filter")).to_have_value("tls")


async def test_a_file_that_is_not_there_is_no_empty_list(visit: Visitor, story: str) -> None:
    """It is said, with what there is instead."""
    visit.expects("404")
    page = await visit(f"{story}?file=other.pcapng")
    await expect(page.locator("body")).to_contain_text("No such capture file")
