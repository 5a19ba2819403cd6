"""The dashboard behind nginx, over TLS and below a path: a person signs in, changes a key and signs out in a browser.

The lines for nginx are those of docs/security.md. Set KEYDESK_TEST_BROWSER=required where a missing nginx or Chromium
must fail the run instead of skipping it.
"""

import os
import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import ROOT, World, free_port, process, variables_of, wait_until
from tests.dashboard.test_journey import (
    CHROMIUM,
    EMAIL,
    PASSWORD,
    PATIENCE,
    REPORT,
    act,
    browser,
    go_to,
    keep,
    sign_in,
)
from tests.gateway.network import Authority
from toolkit.admin import keys, operators
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role

__all__ = ["browser"]  # a fixture

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
MISSING = [name for name, found in (("nginx", NGINX), ("chromium", CHROMIUM)) if found is None]

pytestmark = [
    pytest.mark.world,
    pytest.mark.skipif(
        bool(MISSING) and os.environ.get("KEYDESK_TEST_BROWSER") != "required",
        reason=f"not found: {', '.join(MISSING)} (Debian's packages nginx-light and chromium)",
    ),
]

EXPECTED = re.compile(r":\d+/keydesk/(\w+/_stcore/(health|host-config)|auth/sign-in)$")
"""What answers with an error that belongs there: a wrong password, and where Streamlit's page looks for its server."""

SERVER = """
{user}
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
{location}
    }}
}}
"""


def documented(kept: bool, port: int) -> str:
    """Return the lines for a path of docs/security.md, with the dashboard at a port.

    Args:
        kept: whether the proxy leaves the path, or takes it off.
        port: of the dashboard.
    """
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    lines = re.search(r"^        location /keydesk/ \{.*?^        \}$", text, re.DOTALL | re.MULTILINE)
    asked = "http://127.0.0.1:8501;"
    assert lines is not None
    assert asked in lines[0]
    return lines[0].replace(asked, f"http://127.0.0.1:{port}{'' if kept else '/'};")


@contextmanager
def nginx(folder: Path, location: str, port: int, authority: Authority) -> Iterator[str]:
    """Run nginx with TLS by a private authority; its address."""
    config = folder / "nginx.conf"
    certificate = authority.issue("127.0.0.1", "localhost")
    user = "user root;" if os.geteuid() == 0 else ""  # whose folder it is
    config.write_text(SERVER.format(user=user, folder=folder, port=port, certificate=certificate, location=location))
    assert NGINX is not None
    server = subprocess.Popen([NGINX, "-e", "stderr", "-p", str(folder), "-c", str(config)])
    try:
        url = f"https://127.0.0.1:{port}"
        wait_until(lambda: status(f"{url}/", authority.believed()), "nginx")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def status(url: str, tls: ssl.SSLContext | None = None) -> int | None:
    """Return the status that a program gets; None without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=30, context=tls) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError:
        return None


GIVEN_UP = "net::ERR_TOO_MANY_RETRIES"
"""A busy browser's kept TLS connections were closed as it used them; what the page does is judged by itself."""


@contextmanager
def opened(browser: Browser, url: str) -> Iterator[Page]:
    """A tab that may report nothing to its console; it believes every certificate."""
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(REPORT)
    expect.set_options(timeout=PATIENCE)
    complaints: list[str] = []
    context.on(
        "console",
        lambda said: (
            complaints.append(f"{said.text} {said.location['url']}")
            if said.type == "error" and not EXPECTED.search(said.location["url"])
            else None
        ),
    )
    page = context.new_page()
    page.goto(url)
    yield page
    context.close()
    assert [said for said in complaints if GIVEN_UP not in said] == []


@pytest.mark.parametrize("kept", [True, False], ids=["path kept", "path taken off"])
def test_the_dashboard_works_below_a_path(world: World, browser: Browser, tmp_path: Path, kept: bool) -> None:
    """Sign-in, menu, a change over the websocket, a link, sign-out; elsewhere it is not, and directly it goes on."""
    port, outside = free_port(), free_port()
    inside, below = f"http://127.0.0.1:{port}", f"https://127.0.0.1:{outside}/keydesk"
    with world.workspace.write() as tx:
        operators.add(tx, EMAIL, Role.PLATFORM_ADMIN, hash_password(PASSWORD))
    key, secret = world.key("app").key, world.key("of a holder").secret
    env = variables_of(world.workspace.settings) | {
        "KEYDESK_DASHBOARD_PORT": str(port),
        "KEYDESK_DASHBOARD_URL": f"{below}, {inside}",
        "KEYDESK_TRUSTED_PROXIES": "127.0.0.1",
        "KEYDESK_KEY_PAGE": "on",
    }
    authority = Authority(tmp_path)
    with (
        process(["-m", "toolkit.cli", "dashboard"], f"{inside}/_stcore/health", env, tmp_path / "dashboard.log"),
        nginx(tmp_path, documented(kept, port), outside, authority),
        opened(browser, f"{below}/keys") as page,
    ):
        assert page.url == f"{below}/sign-in?next=%2Fkeys"
        keep(page, f"below-a-path-{'kept' if kept else 'taken'}-sign-in")
        page.get_by_label("E-mail").fill(EMAIL)
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()  # and the form leads on from another address now
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("button", name="Create key")).to_be_visible()
        assert page.url == f"{below}/keys"
        (cookie,) = [one for one in page.context.cookies() if one.get("name", "").startswith("__Host-keydesk")]
        assert (cookie.get("path"), cookie.get("secure"), cookie.get("httpOnly")) == ("/", True, True)

        act(page, "app", "Disable")
        page.get_by_role("dialog").get_by_role("button", name="Disable").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        with world.workspace.read() as tx:
            assert keys.find(tx, key.id).status == "disabled"

        go_to(page, "Requests")
        assert page.url == f"{below}/requests"
        go_to(page, "Overview")
        page.reload()
        expect(page.get_by_text("Wallet available")).to_be_visible()
        keep(page, f"below-a-path-{'kept' if kept else 'taken'}-overview")
        other = page.context.new_page()
        other.goto(f"{below}/keys")
        expect(other.get_by_role("button", name="Create key")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("E-mail")).to_be_visible()
        assert page.url == f"{below}/sign-in"
        other.get_by_role("button", name="Create key").click()
        expect(other.get_by_text("Your session has ended.")).to_be_visible()
        assert other.url == f"{below}/sign-in?ended=1"
        other.goto(f"{below}/key")
        other.get_by_label("API key").fill(secret)
        other.get_by_role("button", name="Show").click()
        other.get_by_text("Look up another key").click()
        expect(other.get_by_label("API key")).to_be_visible()
        assert other.url == f"{below}/key"
        page.goto(below)
        expect(page.get_by_label("E-mail")).to_be_visible()
        assert page.url == f"{below}/sign-in"

        tls = authority.believed()
        assert status(f"{below}/_stcore/health", tls) == 200
        assert [status(f"https://127.0.0.1:{outside}{path}", tls) for path in ("/", "/sign-in", "/keydeskx/")] == [
            404
        ] * 3
        page.goto(inside)  # the second address
        sign_in(page)
        assert page.url == f"{inside}/"
