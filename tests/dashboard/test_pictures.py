"""Every page in a real browser, light and dark, on a desktop and on a phone; pictures are left in `artifacts/pictures`.

A new page comes under it by its row in `pages.PAGES`.
"""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT, Running
from tests.dashboard.test_journey import EMAIL, PASSWORD, PATIENCE, browser, dashboard
from tests.dashboard.test_journey import pytestmark as needs_chromium
from toolkit.dashboard.pages import PAGES
from toolkit.demo import data

__all__ = ["browser", "dashboard"]  # fixtures

pytestmark = [needs_chromium, pytest.mark.world]

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
FOLDER = ROOT / "artifacts" / "pictures"
QUIET = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@pytest.fixture
def filled(running: Running) -> None:
    """The demo's organisations, keys and calls, so that there is something to see."""
    workspace = running.world.workspace
    data.load(workspace, calls=300)
    workspace.ledger.sync()


def drawn(page: Page, title: str) -> None:
    """Wait until a page is drawn."""
    expect(page.get_by_role("heading", name=title, exact=True, level=1)).to_be_visible()
    expect(page.locator(QUIET)).to_have_count(1)
    expect(page.get_by_test_id("stSpinner")).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_its_window(browser: Browser, dashboard: str, filled: None, scheme: str, size: str) -> None:
    """Nothing is wider than the window, and no page is an error, whatever the theme."""
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=dashboard,
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page = context.new_page()
    page.goto("/sign-in")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    drawn(page, PAGES[0].title)
    folder = FOLDER / f"{scheme}-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    too_wide = []
    for each in PAGES:
        page.goto(f"/{each.name}")
        drawn(page, each.title)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            too_wide.append(each.title)
        if scheme == "dark":
            assert page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor") == DARK
        page.screenshot(path=folder / f"{each.name}.png", full_page=True)
    _index(folder)
    context.close()
    assert too_wide == []


DARK = "rgb(18, 24, 30)"
"""The background of the dark theme (.streamlit/config.toml)."""


def _index(folder: Path) -> None:
    """Write what each picture shows beside them."""
    lines = [f"- [{each.title}]({each.name}.png): {each.help}" for each in PAGES]
    (folder / "index.md").write_text("\n".join([f"# The dashboard, {folder.name}", "", *lines, ""]))
