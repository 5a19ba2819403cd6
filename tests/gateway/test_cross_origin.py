"""Pages of listed origins may call the gateway from a browser; of others it shows them nothing."""

import re
from dataclasses import replace

import pytest

from tests.conftest import ROOT, World
from tests.gateway.conftest import PAGE, Gate, request_of
from tests.gateway.raw import answers, say
from tests.gateway.test_server_connection import port_of
from toolkit.gateway.app import create_app
from toolkit.gateway.cross_origin import headers_for_page

ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/anthropic/v1/messages", "/v1/nothing"])
def test_a_preflight_of_a_listed_origin_is_answered_without_a_key(gate: Gate, path: str) -> None:
    """Browsers send it by themselves; all headers of the SDKs are allowed, and no credentials of the browser's own."""
    reply = gate.send(path, None, ASKED | {"Origin": PAGE}, method="OPTIONS", secret=None)
    assert reply.status == 200
    allowed = {name.removeprefix("access-control-allow-"): value for name, value in reply.headers.items()}
    assert (allowed["origin"], allowed["methods"]) == (PAGE, "GET, HEAD, POST")
    assert allowed["headers"] == ASKED["Access-Control-Request-Headers"]
    assert "credentials" not in allowed
    assert gate.rows() == []


@pytest.mark.parametrize("origin", ["https://evil.example", f"{PAGE}.evil.example", f"{PAGE}:444", "null", "*", ""])
def test_other_origins_get_what_they_would_get_without_it(gate: Gate, origin: str) -> None:
    """No preflight is answered, and no answer says that it may be read."""
    path, body = request_of("chat", "hello")
    preflight = gate.send(path, None, ASKED | {"Origin": origin}, method="OPTIONS", secret=None)
    assert (preflight.status, preflight.type) == (405, "method_not_allowed")
    answer = gate.send(path, body, {"Origin": origin})
    assert answer.status == 200
    for reply in (preflight, answer):
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_page_reads_answers_and_our_headers(gate: Gate, stream: bool) -> None:
    """Those that say what a call cost and what was left out of it, and those that the SDKs obey."""
    path, body = request_of("chat", "hello", stream=stream)
    reply = gate.send(path, body, {"Origin": PAGE})
    assert (reply.status, reply.headers["access-control-allow-origin"], reply.headers["vary"]) == (200, PAGE, "Origin")
    shown = reply.headers["access-control-expose-headers"].lower().split(", ")
    assert {"x-request-id", "x-cost-usd", "x-keydesk-left-out", "retry-after", "x-should-retry"} <= set(shown)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/chat/completions", {"Authorization": "Bearer sk-wrong"}, 401),
        ("/v1/nothing", {}, 404),
        ("/v1/models", {}, 405),
        ("/v1/chat/completions", {}, 400),
    ],
)
def test_a_page_reads_errors(gate: Gate, path: str, headers: dict[str, str], status: int) -> None:
    """Without that all it could tell is that something went wrong."""
    reply = gate.send(path, {}, headers | {"Origin": PAGE})
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (status, PAGE)
    assert reply.message


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v1/" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 426),
        (b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: %b\r\nTransfer-Encoding: x\r\n\r\n", 400),
    ],
)
def test_a_page_reads_refusals_that_come_before_its_request_is_read(gate: Gate, head: bytes, status: int) -> None:
    """As far as its headers were read: an overlong URL stands before them."""
    received = say(port_of(gate), head.replace(b"%b", PAGE.encode()))
    assert answers(received) == [status]
    assert (f"access-control-allow-origin: {PAGE}".encode() in received) == (status != 414)


def test_a_page_may_read_each_header_that_is_ours() -> None:
    """Those that docs/gateway.md lists, and what the SDKs wait by."""
    text = (ROOT / "docs/gateway.md").read_text()
    ours = re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^\| (`X-.*?) \|", text, re.MULTILINE)))
    [shown] = [
        value for name, value in headers_for_page([(b"origin", b"a")], ("a",)) if name.endswith(b"expose-headers")
    ]
    assert len(ours) >= 7
    assert set(ours) | {"Retry-After", "retry-after-ms", "x-should-retry"} == set(shown.decode().split(", "))


def test_nothing_of_it_is_there_by_default(world: World) -> None:
    """A gateway without a list of origins has no such layer; with one it is around all others."""
    assert world.workspace.settings.cors_origins == ()
    assert create_app(world.workspace.settings).middleware_stack is None
    assert create_app(replace(world.workspace.settings, cors_origins=(PAGE,))).middleware_stack is not None
    assert headers_for_page([(b"origin", PAGE.encode())], ()) == []
