"""One real Chromium for all tests of pages, and a machine on which something has happened.

`visit` opens pages. At the end of each test it has seen to it that no page asked any other host, and that no page
complained in its console.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, Route, async_playwright

from tests.browser.story import House
from tests.browser.story import house as story
from tests.web.conftest import World, made_world

CHROMIUM = "/usr/bin/chromium"
PICTURES = Path(__file__).parents[2] / "docs" / "images"
TAKES_PICTURES = os.environ.get("WRITE_PICTURES", "")  # "1": docs/images is written anew
WIDE, PHONE = (1280, 860), (360, 740)
PATIENCE = 15_000  # milliseconds in which a page must do what is expected of it

requires_browser = pytest.mark.skipif(
    shutil.which(CHROMIUM) is None, reason="needs Debian's chromium: apt-get install chromium"
)
requires_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
in_one_loop = pytest.mark.asyncio(loop_scope="session")  # the browser lives in it

Theme = Literal["light", "dark"]


@pytest.fixture(scope="session")
def house() -> Iterator[House]:
    """A machine on which a pod was taken over; its evidence is sealed and read."""
    with story() as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield browser
        await browser.close()


class Visitor:
    """Opens pages and keeps an eye on what they do."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.foreign: list[str] = []  # requests to other hosts
        self.said: list[str] = []  # in the console
        self._expected: list[str] = []

    async def __call__(
        self,
        url: str,
        *,
        theme: Theme = "light",
        size: tuple[int, int] = WIDE,
        script: bool = True,
        **context: Any,
    ) -> Page:
        """A new page in a browser of its own (cookies too), which has loaded `url`."""
        opened = await self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,
            java_script_enabled=script,
            reduced_motion="reduce",
            accept_downloads=True,
            locale="en-GB",
            timezone_id="UTC",
            **context,
        )
        opened.set_default_timeout(PATIENCE)
        self._contexts.append(opened)
        ours = urlsplit(url).netloc

        async def only_ours(route: Route) -> None:
            if urlsplit(route.request.url).netloc == ours or route.request.url.startswith("data:"):
                await route.continue_()
            else:
                self.foreign.append(route.request.url)
                await route.abort()

        await opened.route("**/*", only_ours)
        page = await opened.new_page()
        page.on("console", lambda it: self.said.append(f"{it.type}: {it.text}"))
        page.on("pageerror", lambda it: self.said.append(f"error: {it}"))
        await page.goto(url)
        return page

    def expects(self, pattern: str) -> None:
        """Words like these in the console are no mistake in this test (a request is meant to fail)."""
        self._expected.append(pattern)

    async def leave(self) -> None:
        """Closes everything, and fails when a page did what it must not."""
        for each in self._contexts:
            await each.close()
        assert not self.foreign, f"asked other hosts: {self.foreign}"
        bad = [
            each
            for each in self.said
            if each.startswith(("error", "warning"))
            and not any(re.search(pattern, each) for pattern in self._expected)
        ]
        assert not bad, f"complained in the console: {bad}"


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A web application of its own, in which anything can be made to fail."""
    async with made_world(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def visit(chromium: Browser) -> AsyncIterator[Visitor]:
    visitor = Visitor(chromium)
    yield visitor
    await visitor.leave()


@pytest.fixture
def accessible() -> Callable[[Page], Awaitable[None]]:
    """Fails with what axe finds on a page."""

    async def check(page: Page) -> None:
        await page.wait_for_load_state()  # colours come with the style sheet
        found = await Axe().run(page)
        violations = [
            f"{each['id']}: {each['help']} at "
            + "; ".join(str(node["html"])[:160] for node in each["nodes"][:4])
            for each in found.response["violations"]
        ]
        assert not violations, "\n".join(violations)

    return check


@pytest.fixture
def picture() -> Callable[[Page, str], Awaitable[None]]:
    """Writes a picture of a page for docs/, when that is asked for with WRITE_PICTURES=1."""

    async def take(page: Page, name: str) -> None:
        if TAKES_PICTURES:
            PICTURES.mkdir(parents=True, exist_ok=True)
            await page.screenshot(path=PICTURES / f"{name}.png")

    return take
