"""The main job in a real browser: sign in, create a key, call with it, see the spend, rotate, delete.

Gateway, demo upstream and dashboard are processes of their own, as `keydesk up` starts them. Screenshots are left in
`artifacts/`. Set KEYDESK_TEST_BROWSER=required where a missing Chromium must fail the run instead of skipping it.
"""

import json
import os
import re
import shlex
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, WebSocket, expect, sync_playwright

from tests.conftest import ROOT, Running, free_port, process, variables_of, wait_until
from toolkit.admin import operators
from toolkit.core.money import usd
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.reports import spend

EMAIL, PASSWORD = "admin@keydesk.test", "correct horse battery"
CLIPBOARD = "navigator.clipboard.readText()"
SECRET = re.compile(r"sk-[0-9A-Za-z]{49}")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REPORT = """
addEventListener("securitypolicyviolation", event =>
  console.error(`content security policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))
"""
SOUGHT = re.compile(r":\d+/\w+/_stcore/(health|host-config)$")
"""Streamlit's page looks for its server below its own address first, and is told that it is not there."""
PATIENCE = 60_000
"""Milliseconds that the browser may take for what has no limit of its own."""

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("KEYDESK_TEST_BROWSER") != "required",
    reason="no Chromium found: install Debian's package chromium to run the journey in a browser",
)


@pytest.fixture
def dashboard(running: Running, tmp_path: Path) -> Iterator[str]:
    """The dashboard in a process of its own, beside a running gateway; its address."""
    settings = running.world.workspace.settings
    with running.world.workspace.write() as tx:
        operators.add(tx, EMAIL, Role.PLATFORM_ADMIN, hash_password(PASSWORD))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = variables_of(settings) | {
        "KEYDESK_GATEWAY_PORT": str(settings.gateway_port),
        "KEYDESK_DASHBOARD_PORT": str(port),
    }
    with process(["-m", "toolkit.cli", "dashboard"], f"{url}/_stcore/health", env, tmp_path / "dashboard.log"):
        yield url


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, dashboard: str) -> Iterator[Page]:
    """A tab that may use the clipboard, at the dashboard's front page; no tab may report anything to its console."""
    context = browser.new_context(
        base_url=dashboard, viewport={"width": 1440, "height": 900}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(PATIENCE)
    context.add_init_script(REPORT)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []

    def listen(said: ConsoleMessage) -> None:
        if said.type == "error" and not SOUGHT.search(said.location["url"]):
            complaints.append(f"{said.text} {said.location['url']}")

    context.on("console", listen)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    page = context.new_page()
    page.goto("/")
    yield page
    assert complaints == []


class Frames:
    """Everything that passes over a tab's websockets."""

    def __init__(self, page: Page) -> None:
        self.payloads: list[bytes] = []
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        for event in ("framereceived", "framesent"):
            socket.on(event, self._keep)

    def _keep(self, payload: bytes | str) -> None:
        self.payloads.append(payload.encode() if isinstance(payload, str) else payload)

    def hold(self, text: str) -> bool:
        """Whether any frame since the last `clear` has the text."""
        return any(text.encode() in payload for payload in self.payloads)


def sign_in(page: Page) -> None:
    """Fill the form and wait for the page behind it."""
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Wallet available")).to_be_visible()


def keep(page: Page, name: str) -> None:
    """Leave a screenshot for a person to look at."""
    (ROOT / "artifacts").mkdir(exist_ok=True)
    page.screenshot(path=ROOT / "artifacts" / f"journey-{name}.png")


def go_to(page: Page, title: str) -> None:
    """Follow the sidebar."""
    page.get_by_test_id("stSidebarNav").get_by_text(title, exact=True).click()
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()


def act(page: Page, key: str, action: str) -> None:
    """Choose from the menu of a key's row."""
    page.locator("[class*='st-key-row_key']", has_text=key).get_by_role("button").click()
    page.get_by_text(action, exact=True).click()


def call(command: str) -> int:
    """Do what the pasted curl command does; return the status."""
    words = [word for word in shlex.split(command) if word.strip()]
    assert words[0] == "curl"
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1]
    json.loads(body)
    request = urllib.request.Request(words[1], body.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def shown_secret(page: Page) -> tuple[str, str]:
    """Copy secret and curl from the open dialog with its own buttons; return both."""
    copies = []
    for name in ("Copy variables", "Copy secret", "Copy curl"):
        page.evaluate("navigator.clipboard.writeText('')")
        page.get_by_role("dialog").get_by_role("button", name=name).click()
        wait_until(lambda: page.evaluate(CLIPBOARD) != "", "the copy")
        copies.append(str(page.evaluate(CLIPBOARD)))
    variables, secret, curl = copies
    assert f"OPENAI_API_KEY={secret}\n" in variables
    assert SECRET.fullmatch(secret)
    return secret, curl


def test_journey(page: Page, running: Running) -> None:
    """From the sign-in to the deleted key, with the spend on the Overview by itself after the call."""
    keep(page, "1-sign-in")
    sign_in(page)
    expect(page.get_by_text("No calls yet.")).to_be_visible()
    frames = Frames(page)
    page.goto("/keys")
    page.get_by_role("button", name="Create key").click()
    page.get_by_role("textbox", name="Name", exact=True).press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Create key").click()
    page.get_by_role("textbox", name="Name", exact=True).fill("journey")
    page.get_by_role("textbox", name="Monthly limit (USD)").fill("5")
    keep(page, "2-create")
    page.get_by_role("dialog").get_by_role("button", name="Create key").click()
    expect(page.get_by_text("Copy the secret now.")).to_be_visible()
    secret, curl = shown_secret(page)
    page.keyboard.press("Escape")  # must not lose it
    expect(page.get_by_text("Copy the secret now.")).to_be_visible()
    keep(page, "3-secret")
    assert frames.hold(secret)  # or the search below would prove nothing

    frames.payloads.clear()
    page.get_by_role("button", name="I have stored it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_text("journey", exact=True)).to_be_visible()
    assert secret not in page.content()
    page.reload()
    expect(page.get_by_text("journey", exact=True)).to_be_visible()
    assert secret not in page.content()
    assert not frames.hold(secret)

    go_to(page, "Overview")
    expect(page.get_by_text("No calls yet.")).to_be_visible()
    assert call(curl) == 200
    cost = f"${usd(spend.totals(running.world.workspace.ledger).cost)}"
    assert cost != "$0"
    expect(page.locator(".kd-card", has_text="Spent in").get_by_title(cost)).to_be_visible()
    expect(page.locator(".kd-table tr", has_text="journey").get_by_title(cost).last).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    keep(page, "4-overview")

    assert call(curl) == 200
    cost = f"${usd(spend.totals(running.world.workspace.ledger).cost)}"
    expect(page.locator(".kd-table tr", has_text="journey").get_by_title(cost).last).to_be_visible()

    go_to(page, "Requests")
    page.locator("[class*='st-key-row_'] button").first.click()
    expect(page.get_by_role("dialog").get_by_text("Charged")).to_be_visible()
    keep(page, "5-request")
    page.keyboard.press("Escape")

    go_to(page, "Keys")
    act(page, "journey", "Rotate secret")
    page.get_by_role("button", name="Rotate now").click()
    expect(page.get_by_text("Copy the secret now.")).to_be_visible()
    second, second_curl = shown_secret(page)
    assert second != secret
    frames.payloads.clear()
    page.get_by_role("button", name="I have stored it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert second not in page.content()
    assert call(curl) == 401
    assert call(second_curl) == 200

    act(page, "journey", "Delete")
    page.get_by_role("textbox", name="Name of the key").fill("journey")
    keep(page, "6-delete")
    page.get_by_role("button", name="Delete for ever").click()
    expect(page.get_by_text("No key matches.")).to_be_visible()
    assert call(second_curl) == 401
    page.get_by_text("Deleted", exact=True).click()
    expect(page.locator(".kd-gone", has_text="journey")).to_be_visible()
    keep(page, "7-keys")
    assert not frames.hold(second)


@pytest.mark.world
def test_sign_out_ends_the_other_tab(page: Page) -> None:
    """Signing out in one tab leads another one, left open on the Overview, to the sign-in form by itself."""
    sign_in(page)
    other = page.context.new_page()
    other.goto("/keys")
    other.get_by_role("button", name="Sign out").click()
    other.wait_for_url("**/sign-in")
    page.wait_for_url("**/sign-in?ended=1")
    expect(page.get_by_text("Your session has ended.")).to_be_visible()
    keep(page, "8-session-ended")

    # What the tabs showed before is gone for whoever sits down there next: Back leads to the form as well.
    for tab in (page, other):
        tab.go_back()
        tab.wait_for_url("**/sign-in*")
        expect(tab.get_by_role("button", name="Sign in")).to_be_visible()
    keep(other, "9-back")
