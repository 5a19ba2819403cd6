"""The gate: nothing of the dashboard without a session, and a sign-in that can be neither guessed nor borrowed."""

import ast
import runpy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime import Runtime

from tests.conftest import ROOT, environment
from toolkit import accounts, operators, sessions, throttle
from toolkit.credentials import hash_password
from toolkit.dashboard import gate, identity
from toolkit.desk import Desk
from toolkit.policy import Role

EMAIL, PASSWORD = "ada@acme.test", "correct horse battery"
FORM = {"email": EMAIL, "password": PASSWORD}
HTML = {"accept": "text/html"}
STREAM = "/_stcore/stream"


@pytest.fixture
def operator(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> str:
    """Somebody who may sign in; the environment names this test's store."""
    for name, value in environment(desk.settings).items():
        monkeypatch.setenv(name, value)
    with desk.write() as tx:
        return accounts.add_operator(tx, EMAIL, Role.PLATFORM_ADMIN, hash_password(PASSWORD)).id


@contextmanager
def served() -> Iterator[TestClient]:
    """A browser without a cookie, at the app as the server imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runtime, "_instance", None)  # Streamlit allows one runtime in a process
        app = runpy.run_path(str(ROOT / "app.py"), run_name="app")["app"]
        with TestClient(app, follow_redirects=False) as client:
            yield client


@pytest.fixture
def client(operator: str) -> Iterator[TestClient]:
    """A browser without a cookie, at a dashboard with one operator."""
    with served() as client:
        yield client


def sign_in(client: TestClient, **form: str) -> int:
    """Post the sign-in form; return the status."""
    return client.post("/auth/sign-in", data=FORM | form).status_code


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
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fkeys%3Fid%3D1")
    assert 'name="next" value="/keys?id=1"' in client.get(answer.headers["location"]).text


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
    assert client.get("/sign-in?next=/keys").headers["location"] == "/keys"


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
    for _ in range(throttle.PAIR.tries):
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
    assert answer.headers["location"] == expected


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
    assert client.post("/auth/sign-in", data={"email": "x" * gate.LARGEST_FORM}).status_code == 413


def test_sign_out_ends_the_session_and_not_only_the_cookie(client: TestClient) -> None:
    """A copy of the cookie made before signing out admits nobody afterwards."""
    sign_in(client)
    copy = client.cookies[identity.COOKIE]
    answer = client.post("/auth/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert identity.COOKIE not in client.cookies
    client.cookies.set(identity.COOKIE, copy)
    assert client.get("/").status_code == 401


def test_session_survives_a_restart(client: TestClient, operator: str) -> None:
    """A new server process with the same data folder knows the cookie."""
    sign_in(client)
    with served() as restarted:
        restarted.cookies.set(identity.COOKIE, client.cookies[identity.COOKIE])
        assert restarted.get("/", headers=HTML).status_code == 200


def test_signed_in_websocket_is_served(client: TestClient) -> None:
    """With a session the websocket opens."""
    sign_in(client)
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        assert socket.accepted_subprotocol == "streamlit"


@pytest.mark.parametrize("cookie", [None, "forged", "eyJhIjoxfQ.aaaaaa.bbbbbbbbbbbb"])
def test_websocket_without_good_cookie_is_refused(client: TestClient, cookie: str | None) -> None:
    """No cookie, or one that we did not sign: the handshake itself is refused."""
    if cookie:
        client.cookies.set(identity.COOKIE, cookie)
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(STREAM, subprotocols=["streamlit"]):
        pytest.fail("the websocket was accepted")
    assert refused.value.code == 1008


def test_cookie_of_another_installation_is_refused(
    client: TestClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A cookie signed under another pepper is as good as none."""
    sign_in(client)
    session_id = identity.unseal(client.cookies[identity.COOKIE])
    assert session_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYDESK_DATA_DIR", str(tmp_path_factory.mktemp("other")))
        foreign = identity.seal(session_id)
        identity.desk().close()
    client.cookies.clear()
    client.cookies.set(identity.COOKIE, foreign)
    assert client.get("/").status_code == 401


def test_websocket_of_an_ended_session_gets_only_the_way_out(client: TestClient) -> None:
    """A tab that reconnects after its session ended is sent to the form, reaches no script, and is cut off."""
    sign_in(client)
    sessions.sign_out(identity.desk().store, identity.unseal(client.cookies[identity.COOKIE]) or "")
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        assert ForwardMsg.FromString(socket.receive_bytes()).auth_redirect.url == gate.ENDED
        with pytest.raises(WebSocketDisconnect):
            socket.receive_bytes()


def test_open_websocket_ends_with_its_session(client: TestClient) -> None:
    """The first message after a sign-out elsewhere reaches no script: the tab is sent to the form."""
    sign_in(client)
    with client.websocket_connect(STREAM, subprotocols=["streamlit"]) as socket:
        sessions.sign_out(identity.desk().store, identity.unseal(client.cookies[identity.COOKIE]) or "")
        socket.send_bytes(b"")
        assert ForwardMsg.FromString(socket.receive_bytes()).auth_redirect.url == gate.ENDED
        with pytest.raises(WebSocketDisconnect) as end:
            socket.receive_bytes()
    assert end.value.code == 1008


def test_password_reset_ends_sessions(client: TestClient, operator: str, desk: Desk) -> None:
    """When an operator's sessions are ended, an open browser is signed out."""
    sign_in(client)
    with desk.write() as tx:
        operators.reset_password(tx, EMAIL, hash_password("another long password"))
    assert client.get("/", headers=HTML).headers["location"] == "/sign-in"
