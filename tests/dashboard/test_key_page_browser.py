"""A key's holder in a real browser, on a phone: the key is looked up, and nothing of it is left behind."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import Running, usd
from tests.dashboard.test_journey import browser, dashboard

__all__ = ["browser", "dashboard"]
pytestmark = pytest.mark.world


@pytest.fixture(autouse=True)
def _page_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard's process, which is started after this, has the page."""
    monkeypatch.setenv("KEYDESK_KEY_PAGE", "on")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_holder_looks_the_key_up_on_a_phone(
    running: Running, dashboard: str, browser: Browser, tmp_path: Path, scheme: str
) -> None:
    """By keyboard, without a script; no side scroll; and the Back button leads to an empty form."""
    new = running.world.key("nightly", monthly_limit=usd(5))
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{dashboard}/key")
    page.get_by_label("API key").fill(new.secret)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="nightly")).to_be_visible()
    expect(page.get_by_role("row", name="Left $5.00")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert new.secret not in page.url + page.content()
    page.go_back()
    expect(page.get_by_label("API key")).to_have_value("")
    assert new.secret not in (tmp_path / "dashboard.log").read_text()
