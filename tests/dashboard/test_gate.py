"""The gate: nothing of the dashboard without a session, and a sign-in that can be neither guessed nor borrowed."""

import ast
import asyncio
import base64
import hashlib
import re
import runpy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
import streamlit as st
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime

from tests.conftest import ROOT, variables_of, wait_until
from toolkit.admin import operators, sessions, sign_in_throttle
from toolkit.core.errors import SignInFailed
from toolkit.core.passwords import hash_password
from toolkit.core.policy import Role
from toolkit.dashboard import gate, identity, streamlit_sessions
from toolkit.dashboard.forms import LARGEST_FORM
from toolkit.dashboard.sign_in import MOST_WAITING, PASSWORDS_AT_ONCE, SignIns
from toolkit.workspace import Workspace

EMAIL, PASSWORD = "ada@acme.test", "correct horse battery"
FORM = {"email": EMAIL, "password": PASSWORD}
HTML = {"accept": "text/html"}
STREAM = "/_stcore/stream"


@pytest.fixture
def operator(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> str:
    """Somebody who may sign in; the environment names this test's store."""
    for name, value in variables_of(workspace.settings).items():
        monkeypatch.setenv(name, value)
    with workspace.write() as tx:
        return operators.add(tx, EMAIL, Role.PLATFORM_ADMIN, hash_password(PASSWORD)).id


@contextmanager
def served(address: tuple[str, int] = ("testclient", 50000)) -> Iterator[TestClient]:
    """A browser without a cookie, at the app as the server imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "_instance", None)  # Streamlit allows one runtime in a process
        app = runpy.run_path(str(ROOT / "app.py"), run_name="app")["app"]
        with TestClient(app, follow_redirects=False, client=address) as client:
            yield client


@pytest.fixture
def client(operator: str) -> Iterator[TestClient]:
    """A browser without a cookie, at a dashboard with one operator."""
    with served() as client:
        yield client


def cookie_name() -> str:
    """Return the name of the session's cookie without TLS."""
    return identity.cookie_name(secure=False)


def sign_in(client: TestClient, **form: str) -> int:
    """Post the sign-in form; return the status."""
    return client.post("/auth/sign-in", data=FORM | form).status_code


def led_to(answer: Response) -> str:
    """Return the path that a redirect leads to, as a browser reads it; with its host, if it is another one."""
    return urljoin(str(answer.request.url), answer.headers["location"]).removeprefix("http://testserver")


def test_app_is_spelled_so_that_streamlit_run_finds_it() -> None:
    """`streamlit run` parses for an assignment of `st.App(...)`; any other spelling would run without the gate."""
    assigned = [
        ast.unparse(node.value.func)
        for node in ast.walk(ast.parse((ROOT / "app.py").read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    ]
    assert assigned == ["st.App"]


def test_page_without_session_leads_to_sign_in(client: TestClient) -> None:
    """A browser that opens a page is sent to the form, which remembers the page."""
    answer = client.get("/keys?id=1", headers=HTML)
    assert (answer.status_code, led_to(answer)) == (303, "/sign-in?next=%2Fkeys%3Fid%3D1")
    assert 'name="next" value="/keys?id=1"' in client.get(led_to(answer)).text


@pytest.mark.parametrize(
    "path", ["/", "/keys", "/media/abc.png", "/_stcore/metrics", "/_stcore/upload_file/a/b", "/component/x/y.js"]
)
def test_nothing_else_is_served_without_session(client: TestClient, path: str) -> None:
    """Anything but the public paths answers 401 to a program without a session."""
    assert client.get(path).status_code == 401


def test_health_check_and_sign_in_page_are_public(client: TestClient) -> None:
    """A supervisor may ask for health, and everybody may see the form; it loads nothing from elsewhere."""
    assert client.get("/_stcore/health").status_code == 200
    page = client.get("/sign-in")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")


def test_font_of_the_sign_in_page_exists(client: TestClient) -> None:
    """The form's font is the dashboard's own, found under whatever name this Streamlit gives it."""
    font = client.get("/sign-in").text.partition('url("')[2].partition('"')[0]
    assert client.get(font).headers["content-type"].startswith("font/")


def test_right_password_admits(client: TestClient) -> None:
    """After signing in the page is served, and the form leads straight on."""
    assert sign_in(client) == 303
    assert client.get("/", headers=HTML).status_code == 200
    assert led_to(client.get("/sign-in?next=/keys")) == "/keys"


def test_cookie_is_out_of_reach(client: TestClient) -> None:
    """The cookie is HttpOnly, SameSite=Lax and for the whole site; over TLS it is Secure too."""
    cookie = client.post("/auth/sign-in", data=FORM).headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "secure" not in cookie
    client.base_url = client.base_url.copy_with(scheme="https")
    assert "secure" in client.post("/auth/sign-in", data=FORM).headers["set-cookie"].lower()


@pytest.mark.parametrize("form", [{"password": "wrong horse battery"}, {"email": "eve@acme.test"}, {"email": ""}])
def test_wrong_sign_in_sets_no_cookie(client: TestClient, form: dict[str, str]) -> None:
    """A wrong e-mail and a wrong password get the same words, status 401 and no cookie."""
    answer = client.post("/auth/sign-in", data=FORM | form)
    assert answer.status_code == 401
    assert "E-mail or password is wrong." in answer.text
    assert "set-cookie" not in answer.headers


def test_what_was_typed_comes_back_escaped(client: TestClient) -> None:
    """The form shows the e-mail again, as text and never as markup; the password not at all."""
    answer = client.post("/auth/sign-in", data={"email": '"><script>x</script>', "password": "s3cret-typed"})
    assert "&quot;&gt;&lt;script&gt;" in answer.text
    assert "<script>" not in answer.text
    assert "s3cret-typed" not in answer.text


def test_too_many_tries_are_refused(client: TestClient) -> None:
    """After eight wrong passwords the right one is refused as well, for a while."""
    for _ in range(sign_in_throttle.PAIR.tries):
        assert sign_in(client, password="wrong horse battery") == 401
    answer = client.post("/auth/sign-in", data=FORM)
    assert answer.status_code == 401
    assert "Too many failed tries" in answer.text


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/requests?id=req_1", "/requests?id=req_1"),
        ("/", "/"),
        ("", "/"),
        ("//evil.test/x", "/"),
        ("/\\evil.test", "/"),
        ("/\t/evil.test", "/"),
        ("https://evil.test", "/"),
        ("javascript:alert(1)", "/"),
        ("/keys\r\nset-cookie: a=b", "/"),
    ],
)
def test_next_leads_only_to_this_site(client: TestClient, target: str, expected: str) -> None:
    """`next` is followed to a path of this site and nowhere else, however browsers may read it."""
    answer = client.post("/auth/sign-in", data=FORM | {"next": target})
    assert led_to(answer) == expected


@pytest.mark.parametrize("path", ["/auth/sign-in", "/auth/sign-out"])
@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.test"}],
)
def test_cross_site_post_is_refused(client: TestClient, path: str, headers: dict[str, str]) -> None:
    """Another site can sign nobody in or out."""
    sign_in(client)
    assert client.post(path, data=FORM, headers=headers).status_code == 403
    assert client.get("/", headers=HTML).status_code == 200


def test_same_origin_post_is_accepted_by_either_header(client: TestClient) -> None:
    """Browsers that send Sec-Fetch-Site and those that send only Origin can both sign in."""
    for headers in ({"sec-fetch-site": "same-origin"}, {"origin": "http://testserver"}):
        assert client.post("/auth/sign-in", data=FORM, headers=headers).status_code == 303


def test_huge_form_is_refused(client: TestClient) -> None:
    """A form beyond the limit is not read to its end."""
    assert client.post("/auth/sign-in", data={"email": "x" * LARGEST_FORM}).status_code == 413


def test_sign_out_ends_the_session_and_not_only_the_cookie(client: TestClient) -> None:
    """A copy of the cookie made before signing out admits nobody afterwards."""
    sign_in(client)
    copy = client.cookies[cookie_name()]
    answer = client.post("/auth/sign-out")
    assert (answer.status_code, led_to(answer)) == (303, "/sign-in")
    assert cookie_name() not in client.cookies
    client.cookies.set(cookie_name(), copy)
    assert client.get("/").status_code == 401


def test_session_survives_a_restart(client: TestClient, operator: str) -> None:
    """A new server process with the same data folder knows the cookie."""
    sign_in(client)
    with served() as restarted:
        restarted.cookies.set(cookie_name(), client.cookies[cookie_name()])
        assert restarted.get("/", headers=HTML).status_code == 200


def test_signed_in_websocket_is_served(client: TestClient) -> None:
    """With a session the websocket opens."""
    sign_in(client)
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        assert socket.accepted_subprotocol == "streamlit"


@pytest.mark.parametrize("cookie", [None, "forged", "eyJhIjoxfQ.aaaaaa.bbbbbbbbbbbb"])
def test_websocket_without_good_cookie_gets_only_the_way_to_sign_in(client: TestClient, cookie: str | None) -> None:
    """No cookie, or one that we did not sign: a tab that came back by the Back button is sent to the form."""
    if cookie:
        client.cookies.set(cookie_name(), cookie)
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        assert ForwardMsg.FromString(socket.receive_bytes()).auth_redirect.url == gate.ENDED
        with pytest.raises(WebSocketDisconnect) as refused:
            socket.receive_bytes()
    assert refused.value.code == 1008


def test_cookie_of_another_installation_is_refused(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A cookie signed under another pepper is as good as none."""
    sign_in(client)
    session_id = identity.unseal(client.cookies[cookie_name()])
    assert session_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYDESK_DATA_DIR", str(tmp_path_factory.mktemp("other")))
        foreign = identity.seal(session_id)
        identity.workspace().close()
    client.cookies.clear()
    client.cookies.set(cookie_name(), foreign)
    assert client.get("/").status_code == 401


def test_websocket_of_an_ended_session_gets_only_the_way_out(client: TestClient) -> None:
    """A tab that reconnects after its session ended is sent to the form, reaches no script, and is cut off."""
    sign_in(client)
    sessions.sign_out(identity.workspace().store, identity.unseal(client.cookies[cookie_name()]) or "")
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        assert ForwardMsg.FromString(socket.receive_bytes()).auth_redirect.url == gate.ENDED
        with pytest.raises(WebSocketDisconnect):
            socket.receive_bytes()


def test_open_websocket_ends_with_its_session(client: TestClient) -> None:
    """The first message after a sign-out elsewhere reaches no script: the tab is sent to the form."""
    sign_in(client)
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        sessions.sign_out(identity.workspace().store, identity.unseal(client.cookies[cookie_name()]) or "")
        socket.send_bytes(b"")
        assert ForwardMsg.FromString(socket.receive_bytes()).auth_redirect.url == gate.ENDED
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_bytes()
    assert end.value.code == 1008


def test_password_reset_ends_sessions(client: TestClient, operator: str, workspace: Workspace) -> None:
    """When an operator's sessions are ended, an open browser is signed out."""
    sign_in(client)
    with workspace.write() as tx:
        operators.reset_password(tx, EMAIL, hash_password("another long password"))
    assert led_to(client.get("/", headers=HTML)) == "/sign-in"


# -- what a tab holds belongs to one sign-in -----------------------------------------------------------------------


@pytest.fixture
def plain(operator: str, tmp_path: Path) -> Iterator[TestClient]:
    """A browser without a cookie, at the gate before a page that is quickly drawn."""
    script = tmp_path / "page.py"
    script.write_text("import streamlit as st\n\nst.write('Hello')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "_instance", None)
        app = st.App(script, routes=gate.routes(), middleware=gate.middleware(), lifespan=gate.lifespan)
        with TestClient(app, follow_redirects=False) as client:
            yield client


def tab(client: TestClient, known_as: str = "") -> str:
    """Open a tab as Streamlit's page does, naming the session that it had before; return the id of the one it got."""
    protocols = ["streamlit", "none", known_as] if known_as else ["streamlit"]
    with client.websocket_connect(STREAM, subprotocols=protocols) as socket:
        socket.send_bytes(BackMsg(rerun_script=ClientState()).SerializeToString())
        session_id = ""
        while True:
            message = ForwardMsg.FromString(socket.receive_bytes())
            if message.WhichOneof("type") == "new_session":
                session_id = str(message.new_session.initialize.session_id)
            if message.WhichOneof("type") == "script_finished":
                break
        info = Runtime.instance()._session_mgr.get_session_info(session_id)
        assert info
        # Its thread winds up what the session has open, or the test ends with a warning of it.
        wait_until(lambda: info.session._scriptrunner is None, "the script's thread to end")
        return session_id


@pytest.mark.world
def test_a_tab_that_reconnects_keeps_its_state(plain: TestClient) -> None:
    """With the same cookie the session goes on, as after a short break of the network."""
    sign_in(plain)
    first = tab(plain)
    assert tab(plain, first) == first


@pytest.mark.world
def test_who_knows_a_sessions_id_does_not_get_its_state(plain: TestClient) -> None:
    """Streamlit's id of somebody's tab opens nothing with another sign-in, be it of the same person."""
    sign_in(plain)
    first = tab(plain)
    plain.cookies.clear()
    sign_in(plain)
    assert tab(plain, first) != first


@pytest.mark.world
def test_a_header_of_the_browsers_own_names_nobody(plain: TestClient) -> None:
    """What says whose a tab is comes from the gate: the same header from outside is thrown away."""
    sign_in(plain)
    theirs, first = plain.cookies[cookie_name()], tab(plain)
    plain.cookies.clear()
    sign_in(plain)
    plain.headers[streamlit_sessions.HEADER] = theirs
    assert tab(plain, first) != first


@pytest.mark.world
def test_signing_out_drops_what_the_tabs_held(plain: TestClient) -> None:
    """Not only can nobody resume them: they are gone from the server's memory."""
    sign_in(plain)
    first = tab(plain)
    plain.post("/auth/sign-out")
    runtime = Runtime.instance()
    assert not runtime.is_active_session(first)
    assert runtime._session_mgr.get_session_info(first) is None


def test_a_session_ended_elsewhere_drops_what_the_tabs_held(plain: TestClient) -> None:
    """When a tab comes back after its sign-in was ended by somebody else, its state is dropped as well."""
    sign_in(plain)
    first = tab(plain)
    sessions.sign_out(identity.workspace().store, identity.unseal(plain.cookies[cookie_name()]) or "")
    with plain.websocket_connect(STREAM, subprotocols=["streamlit", "none", first]) as socket:
        assert ForwardMsg.FromString(socket.receive_bytes()).auth_redirect.url == gate.ENDED
    assert Runtime.instance()._session_mgr.get_session_info(first) is None


# -- whose page speaks, over what, and how much --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "served"),
    [
        ("http://testserver", True),
        ("https://testserver", True),  # as a proxy that speaks TLS passes it on
        ("http://testserver:8501", False),
        ("http://evil.test", False),
        ("http://localhost", False),  # which Streamlit itself would believe
        ("null", False),
    ],
)
def test_websocket_of_another_page_is_refused(client: TestClient, origin: str, served: bool) -> None:
    """Unless a setting names the dashboard's origins, the page must be of the host and port that it asks."""
    sign_in(client)
    try:
        with client.websocket_connect(STREAM, subprotocols=["streamlit"], headers={"origin": origin}):
            assert served
    except WebSocketDisconnect as refused:
        assert (refused.code, served) == (1008, False)  # noqa: PT017 - a refusal is one of the outcomes


def test_origins_of_the_setting_are_the_dashboards(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """With KEYDESK_DASHBOARD_URL its origins count, whatever Host a proxy sends, and the Host does not."""
    monkeypatch.setenv("KEYDESK_DASHBOARD_URL", "http://workspace.example, http://tunnel.example:9000")
    for path in ("/auth/sign-in", "/auth/sign-out"):
        assert client.post(path, data=FORM, headers={"origin": "http://testserver"}).status_code == 403
    assert client.post("/auth/sign-in", data=FORM, headers={"origin": "http://tunnel.example:9000"}).status_code == 303
    with client.websocket_connect(STREAM, subprotocols=["streamlit"], headers={"origin": "http://workspace.example"}):
        pass
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(STREAM, subprotocols=["streamlit"], headers={"origin": "http://testserver"}),
    ):
        pytest.fail("the websocket was accepted")


def test_nothing_takes_a_file(plain: TestClient) -> None:
    """No page has an upload, so none is stored, and its body is not waited for."""
    sign_in(plain)
    path = f"/_stcore/upload_file/{tab(plain)}/1"
    for method in ("PUT", "POST", "DELETE", "OPTIONS"):
        answer = plain.request(method, path, content=b"x" * 100_000)
        assert (answer.status_code, answer.headers["connection"]) == (403, "close")


@pytest.mark.parametrize("path", ["/_stcore/agent/interact", "/_stcore/agent/mcp", "/keys"])
def test_pages_are_only_read(client: TestClient, path: str) -> None:
    """Nothing but the two forms takes what is posted."""
    sign_in(client)
    assert client.post(path, content=b"{}").status_code == 405


def test_a_huge_message_ends_the_websocket(client: TestClient) -> None:
    """A message that no page of ours sends reaches nothing behind the gate."""
    sign_in(client)
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        socket.send_bytes(b"x" * (gate.LARGEST_MESSAGE + 1))
        while (message := socket.receive())["type"] != "websocket.close":
            pass
        assert message["code"] == 1009


def test_sign_ins_wait_in_a_short_line(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passwords are compared at once, some wait, and whoever comes then is told to come again, in words."""
    going_on = threading.Event()

    def compare(*_arguments: object) -> str:
        going_on.wait(60)
        raise SignInFailed("E-mail or password is wrong.")

    async def crowd() -> list[int]:
        app = Starlette(routes=SignIns().routes())
        async with AsyncClient(transport=ASGITransport(app=app), base_url="http://testserver") as browser:
            tries = [asyncio.create_task(browser.post("/auth/sign-in", data=FORM)) for _ in range(crowd_size)]
            busy, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            going_on.set()
            answers = [await one for one in tries]
        (turned_away,) = {answer.text for answer in answers if answer.status_code == 503}
        assert "Too many people are signing in" in turned_away
        assert all(one.result().status_code == 503 for one in busy)
        return [answer.status_code for answer in answers]

    monkeypatch.setattr("toolkit.dashboard.sign_in.open_session", compare)
    crowd_size = PASSWORDS_AT_ONCE + MOST_WAITING + 3
    statuses = asyncio.run(crowd())
    assert (statuses.count(401), statuses.count(503)) == (PASSWORDS_AT_ONCE + MOST_WAITING, 3)


# -- headers -------------------------------------------------------------------------------------------------------


def test_no_browser_keeps_a_page(client: TestClient) -> None:
    """Pages, data and the way to the form are not stored; only Streamlit's bundle is, which is the same for all."""
    for path in ("/", "/_stcore/host-config", "/sign-in"):
        assert client.get(path, headers=HTML).headers["cache-control"] == "no-store"
    sign_in(client)
    page = client.get("/", headers=HTML)
    assert page.headers["cache-control"] == "no-store"
    (script,) = re.findall(r'src="\.(/static/js/index[^"]+)"', page.text)
    assert "immutable" in client.get(script).headers["cache-control"]


def test_pages_load_and_frame_nothing_foreign(client: TestClient) -> None:
    """The policy names no other host, forbids frames and plugins, and knows Streamlit's one inline script."""
    sign_in(client)
    page = client.get("/", headers=HTML)
    rules = dict(rule.strip().partition(" ")[::2] for rule in page.headers["content-security-policy"].split(";"))
    assert [rules[name] for name in ("frame-ancestors", "object-src", "base-uri", "frame-src")] == ["'none'"] * 4
    assert [rules[name] for name in ("default-src", "connect-src", "form-action")] == ["'self'"] * 3
    assert "http" not in page.headers["content-security-policy"]
    assert "unsafe-inline" not in rules["script-src"]
    (inline,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() in rules["script-src"]


@pytest.mark.parametrize(
    ("given", "headers", "secure", "strict"),
    [
        ({}, {}, False, False),
        ({}, {"x-forwarded-proto": "https"}, True, False),
        ({"KEYDESK_DASHBOARD_URL": "https://testserver"}, {}, True, True),
        ({"KEYDESK_DASHBOARD_URL": "https://workspace.example, http://testserver"}, {}, False, False),
        ({"KEYDESK_DASHBOARD_URL": "https://workspace.example"}, {"host": "127.0.0.1:8501"}, True, True),
        ({"KEYDESK_TRUSTED_PROXIES": "192.0.2.1"}, {"x-forwarded-proto": "https"}, True, True),
        ({"KEYDESK_TRUSTED_PROXIES": "192.0.2.1"}, {"x-forwarded-proto": "http"}, False, False),
    ],
)
def test_cookie_is_secure_and_https_strict_where_they_may_be(
    operator: str,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    headers: dict[str, str],
    secure: bool,
    strict: bool,
) -> None:
    """Anybody's word makes the cookie Secure; only what is known makes the browser insist on TLS from then on."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with served(("192.0.2.1", 4711)) as client:
        answer = client.post("/auth/sign-in", data=FORM, headers=headers)
        name = identity.cookie_name(secure=secure)
        assert answer.headers["set-cookie"].startswith(f"{name}=")
        assert ("; secure" in answer.headers["set-cookie"].lower()) is secure
        assert ("strict-transport-security" in answer.headers) is strict
        brought = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        assert client.get("/", headers=HTML | headers | brought).status_code == 200
        answer = client.post("/auth/sign-out", headers=headers | brought)
        assert answer.headers["set-cookie"].startswith(f'{name}=""')


def test_over_tls_a_cookie_without_prefix_counts_for_nothing(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host of the same domain may set cookies for ours, but none whose name begins with `__Host-`."""
    monkeypatch.setenv("KEYDESK_DASHBOARD_URL", "https://testserver")
    with served() as client:
        value = client.post("/auth/sign-in", data=FORM).headers["set-cookie"].partition("=")[2].partition(";")[0]
        client.cookies.clear()
        assert client.get("/", headers={"cookie": f"{identity.cookie_name(secure=False)}={value}"}).status_code == 401
        assert client.get("/", headers={"cookie": f"{identity.cookie_name(secure=True)}={value}"}).status_code == 200


def test_the_address_of_a_sign_in_is_nobodys_word_but_a_trusted_proxys(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The throttle counts the connection's own address, loopback or not, unless a setting trusts it."""
    with served(("127.0.0.1", 4711)) as client:
        for number in range(sign_in_throttle.PAIR.tries):
            wrong = FORM | {"password": "wrong horse battery"}
            client.post("/auth/sign-in", data=wrong, headers={"x-forwarded-for": f"198.51.100.{number}"})
        assert "Too many" in client.post("/auth/sign-in", data=FORM).text
        monkeypatch.setenv("KEYDESK_TRUSTED_PROXIES", "127.0.0.1")
        answer = client.post("/auth/sign-in", data=FORM, headers={"x-forwarded-for": "198.51.100.1"})
        assert answer.status_code == 303


def test_two_installations_on_one_host_keep_their_cookies_apart(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cookies know hosts but not ports: signing in to another Keydesk overwrites nothing of this one."""
    sign_in(client)
    first = cookie_name()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYDESK_DATA_DIR", str(tmp_path_factory.mktemp("other")))
        second = cookie_name()
        identity.workspace().close()
    assert second != first
    assert cookie_name() == first
