"""A real browser calls the gateway from a page of a listed origin, and from one of another."""

import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.gateway.conftest import PAGE, Gate, request_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ASK = """async ({ url, body, secret }) => {
  const headers = { authorization: `Bearer ${secret}`, "content-type": "application/json", "x-stainless-lang": "js" };
  try {
    const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
    return { status: answer.status, id: answer.headers.get("x-request-id"), text: await answer.text() };
  } catch (error) {
    return { error: String(error) };
  }
}"""

pytestmark = [
    pytest.mark.world,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("KEYDESK_TEST_BROWSER") != "required", reason="no Chromium found"
    ),
]


class AnyPage(BaseHTTPRequestHandler):
    """Answers whatever is asked with an empty page."""

    def do_GET(self) -> None:
        """Send it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>a page</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium, for which all hosts of the domain `example` are a server of pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), AnyPage) as pages, sync_playwright() as playwright:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        mapped = f"--host-resolver-rules=MAP *.example 127.0.0.1:{pages.server_address[1]}"
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", mapped])
        yield chromium
        chromium.close()
        pages.shutdown()


def page_of(browser: Browser, origin: str) -> Page:
    """Return a tab with a page of an origin."""
    page = browser.new_page()
    page.goto(f"{origin}/")
    return page


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_calls_the_gateway(gate: Gate, browser: Browser, stream: bool) -> None:
    """It reads answers, our headers, and errors; the browser has asked before."""
    page = page_of(browser, PAGE)
    path, body = request_of("chat", "hello", stream=stream)
    asked: dict[str, Any] = {"url": gate.url + path, "body": body, "secret": gate.secret}
    answer = page.evaluate(ASK, asked)
    assert (answer["status"], answer["id"]) == (200, gate.row().request_id)
    assert ("data: [DONE]" in answer["text"]) == stream
    refused = page.evaluate(ASK, asked | {"secret": "sk-wrong"})
    assert refused["status"] == 401
    assert "is not one of ours" in refused["text"]


def test_a_page_of_another_origin_calls_nothing(gate: Gate, browser: Browser) -> None:
    """Its browser does not even send the call."""
    path, body = request_of("chat", "hello")
    answer = page_of(browser, "http://other.example").evaluate(
        ASK, {"url": gate.url + path, "body": body, "secret": gate.secret}
    )
    assert "Failed to fetch" in answer["error"]
    assert gate.rows() == []
