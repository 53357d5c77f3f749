"""The report in a real browser: from a file, by day and by night, on a phone and on paper, without network and script."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

from tests.report import cases
from tests.report.test_page import HOSTILE
from tripshark.report import exports

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = Path(__file__).parents[2] / "docs" / "images"
TAKES_PICTURES = os.environ.get("WRITE_PICTURES", "")  # "1": docs/images is written anew
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield made
        made.close()


def _shown(browser: Browser, page_at: Path, **how: Any) -> tuple[Any, list[str], list[str]]:
    """The page, what the console said, what was asked for."""
    context = browser.new_context(offline=True, **how)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_at.as_uri())
    return page, said, asked


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_it_reads_well(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    """Nothing to say on the console, no request beyond the file, nothing wider than the screen, nothing for axe."""
    at = tmp_path / "report.html"
    at.write_bytes(exports.report_html([cases.rich()]))
    how = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    page, said, asked = _shown(browser, at, **how)
    assert said == []
    assert asked == [at.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if TAKES_PICTURES and width > 400:
        page.screenshot(
            path=PICTURES / f"report-{scheme}-{width}.png",
            full_page=True,
            clip={"x": 0, "y": 0, "width": width, "height": 1860},
        )
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    page.context.close()


def test_hostile_text_does_nothing(browser: Browser, tmp_path: Path) -> None:
    """No dialog, no request, no element that is not the report's own; without the policy too."""
    at = tmp_path / "report.html"
    for text in ("".join(HOSTILE[:3]), "".join(HOSTILE[3:])):
        content = exports.report_html([cases.hostile(text)])
        at.write_bytes(re.sub(rb"<meta http-equiv=[^>]*>", b"", content))
        page, said, asked = _shown(browser, at)
        assert said == []
        assert asked == [at.as_uri()]
        assert page.locator("script, iframe, img, object, a:not([href^='#'])").count() == 0
        page.context.close()


def test_it_prints(browser: Browser, tmp_path: Path) -> None:
    """A PDF of a few pages: what a manager reads is on the first, tables that are wide lie on their side."""
    at = tmp_path / "report.html"
    at.write_bytes(exports.report_html([replace(cases.rich(), node="worker-1")]))
    page, _, _ = _shown(browser, at, color_scheme="dark")
    page.emulate_media(media="print")
    assert (
        page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 28, 30)"
    )  # ink, also by night
    made = page.pdf(prefer_css_page_size=True, print_background=True)
    sizes = re.findall(rb"/MediaBox ?\[0 0 ([0-9.]+) ([0-9.]+)\]", made)
    assert 4 <= len(sizes) <= 16
    sides = {float(width) > float(height) for width, height in sizes}
    assert sides == {True, False}
    page.context.close()
