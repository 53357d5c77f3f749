"""The pages, as a person sees and uses them: Chromium on a machine where a pod was taken over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page

from tests.browser.conftest import Visitor, in_one_loop, requires_browser, requires_root
from tests.browser.story import House

pytestmark = [pytest.mark.root, requires_root, requires_browser, in_one_loop]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_list_of_incidents(
    house: House, visit: Visitor, accessible: Callable[[Page], Awaitable[None]], theme: str
) -> None:
    """Shows the incident, finds it by its words, is accessible in light and dark."""
    page = await visit(house.url, theme=theme)
    await page.get_by_role("link", name="payments/checkout-7d9f").wait_for()
    await accessible(page)
