"""Signing in, in a real browser: a wrong token is told, a right one leads to where one wanted to go, signing out ends it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import PHONE, WIDE, Theme, Visitor, in_one_loop, requires_browser
from tests.web.conftest import World
from tripshark.model.role import Grant, Right, Role
from tripshark.signin.desk import Desk
from tripshark.signin.failures import Failures
from tripshark.signin.sessions import Sessions
from tripshark.signin.tokens import Token, Tokens

pytestmark = [requires_browser, in_one_loop]

TOKEN = "a-token-of-somebody-0123456789"


@pytest.mark.parametrize(("theme", "size"), [("light", WIDE), ("dark", PHONE)])
async def test_a_person_signs_in_and_out(
    world: World,
    visit: Visitor,
    accessible: Callable[[Page], Awaitable[None]],
    theme: Theme,
    size: tuple[int, int],
) -> None:
    """By keys alone; the door is clean to axe before and after a refusal, and so is the page behind it."""
    visit.expects("401")
    grant = Grant(name="token:ana", rights=(Right(role=Role.RESPONDER),))
    desk = Desk(
        tokens=Tokens([Token(grant=grant, value=TOKEN)]),
        sessions=Sessions(idle_s=600, absolute_s=3600, most=10),
        failures=Failures(per_minute=10),
        assignments=(),
        url="",
    )
    async with world.served(signin=desk) as port:
        url = f"http://127.0.0.1:{port}"
        page = await visit(f"{url}/targets", theme=theme, size=size)
        await expect(page).to_have_url(re.compile(r"/signin\?next=/targets$"))
        await accessible(page)
        box = page.get_by_label("Token")
        await box.fill("wrong-" + TOKEN)
        await box.press("Enter")
        await expect(page.get_by_role("alert")).to_be_visible()
        await accessible(page)
        await page.get_by_label("Token").fill(TOKEN)
        await page.get_by_label("Token").press("Enter")
        await expect(page).to_have_url(f"{url}/targets")
        await accessible(page)
        await page.get_by_role("link", name="sign out").click()
        await accessible(page)
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_text("signed out")).to_be_visible()
        await accessible(page)
        await page.goto(f"{url}/targets")
        await expect(page).to_have_url(re.compile(r"/signin\?next="))
        await page.close()
    await desk.close()
