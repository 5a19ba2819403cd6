"""The dashboard below a path: whether the proxy leaves it or takes it off, every address leads where it should."""

import re
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.conftest import ROOT, examples
from tests.dashboard.test_gate import FORM, HTML, STREAM, led_to, operator, served
from toolkit.core.errors import InvalidInput
from toolkit.dashboard import base_path, identity

__all__ = ["operator"]  # a fixture

URLS = "https://desk.example/keydesk, http://testserver/tools/desk, http://testserver"
ORIGIN = {"origin": "http://testserver"}


@pytest.fixture
def _below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYDESK_DASHBOARD_URL", URLS)


def links(client: TestClient, page: str) -> tuple[str, str]:
    """Return where the form and the font of a sign-in page lead, as a browser at that address reads them."""
    text = client.get(page).text if "auth" not in page else client.post(page, data=FORM | {"password": "wrong"}).text
    action, font = text.partition('action="')[2].partition('"')[0], text.partition('url("')[2].partition('"')[0]
    return urljoin(page, action), urljoin(page, font)


@pytest.mark.usefixtures("operator", "_below")
@pytest.mark.parametrize("path", ["/keydesk", "/tools/desk", ""])
def test_all_is_there_below_each_path_of_the_setting(path: str) -> None:
    """Sign-in, pages, font, websocket, sign-out; and at the root, for a proxy that takes the path off."""
    with served() as client:
        sent = client.get(f"{path}/keys?id=1", headers=HTML)
        assert (sent.status_code, led_to(sent)) == (303, f"{path}/sign-in?next=%2Fkeys%3Fid%3D1")
        for page in ("/sign-in", "/auth/sign-in"):
            action, font = links(client, path + page)
            assert action == f"{path}/auth/sign-in"
            assert client.get(font).headers["content-type"].startswith("font/")
        assert client.get(f"{path}/_stcore/health").status_code == 200
        entered = client.post(f"{path}/auth/sign-in", data=FORM | {"next": "/keys?id=1"}, headers=ORIGIN)
        assert (entered.status_code, led_to(entered)) == (303, f"{path}/keys?id=1")
        for page in ("/", "/keys", "/nothing"):
            assert client.get(path + page, headers=HTML).text.startswith("<!--")
        assert led_to(client.get(f"{path}/sign-in")) == f"{path}/"
        assert led_to(client.get(f"{path}/keys/", headers=HTML)) == f"{path}/keys"
        with client.websocket_connect(path + STREAM, subprotocols=["streamlit"], headers=ORIGIN):
            pass
        assert led_to(client.post(f"{path}/auth/sign-out", headers=ORIGIN)) == f"{path}/sign-in"


@pytest.mark.usefixtures("operator", "_below")
def test_without_its_slash_the_path_leads_to_the_front_page() -> None:
    """Or all that is relative there would lead beside it."""
    with served() as client:
        for path in ("/keydesk", "/tools/desk"):
            answer = client.get(path, headers=HTML)
            assert (answer.status_code, led_to(answer)) == (307, f"{path}/")
            assert answer.headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("operator", "_below")
def test_another_path_is_none_of_the_dashboards() -> None:
    """What only begins as one does, or is not in the setting, gets nothing without a session, and no way in."""
    with served() as client:
        for path in ("/keydeskx/sign-in", "/other/sign-in", "/keydesk/keydesk/sign-in", "/KEYDESK/sign-in"):
            assert client.get(path).status_code == 401
            assert client.post(path.replace("sign-in", "auth/sign-in"), data=FORM).status_code == 401


@pytest.mark.usefixtures("operator", "_below")
def test_the_cookie_is_of_the_whole_host() -> None:
    """As the prefix `__Host-` demands, which keeps other hosts of the domain from setting one."""
    with served() as client:
        headers = {"host": "desk.example", "origin": "https://desk.example"}
        cookie = client.post("/keydesk/auth/sign-in", data=FORM, headers=headers).headers["set-cookie"]
    assert cookie.startswith(f"{identity.cookie_name(secure=True)}=")
    assert "; Path=/;" in cookie


def test_no_link_or_form_of_ours_begins_at_the_root_of_the_host() -> None:
    """It would lead beside a path that the dashboard lies below."""
    folder = ROOT / "toolkit/dashboard"
    sources = [
        file.read_text(encoding="utf-8") for ending in ("py", "html", "css") for file in folder.glob(f"*.{ending}")
    ]
    assert not [
        found for source in sources for found in re.findall(r"""(?:href|action|src)=\\?["']/.*|url\(["']?/.*""", source)
    ]


@pytest.mark.parametrize("path", ["/keys", "/keys/x", "/static", "/_stcore", "/auth", "/sign-in", "/key"])
def test_a_path_that_begins_as_a_page_is_refused_at_the_start(path: str) -> None:
    """A proxy that takes it off would ask for the page, and nobody could tell the two apart."""
    with pytest.raises(
        InvalidInput, match=f"KEYDESK_DASHBOARD_URL: {path} begins as an address of the dashboard's own"
    ):
        base_path.check(["/keydesk", path])
    base_path.check(["/keydesk", "/keysets"])


_SEGMENTS = st.lists(st.text("ab.:-~%2Fé", min_size=1, max_size=4), max_size=4)


@examples(200)
@given(_SEGMENTS, st.text("/\\ab.:?#%@", max_size=12))
def test_a_relative_address_stays_on_the_host(asked: list[str], target: str) -> None:
    """Whatever was asked and wherever it leads: no scheme or host comes of it."""
    location = base_path.relative(f"/{target.lstrip('/')}", "/" + "/".join(asked))
    parts = urlsplit(location)
    assert (parts.scheme, parts.netloc) == ("", "")
    assert location.startswith((".", ".."))
    assert urlsplit(urljoin("https://desk.example/keydesk/" + "x/" * len(asked), location)).netloc == "desk.example"
