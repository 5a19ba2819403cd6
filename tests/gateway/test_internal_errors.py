"""A fault of ours is told in the caller's dialect, logged once with the request's id, and charged by what is known."""

import json
import logging
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from uvicorn.config import Config
from uvicorn.server import Server

from tests.conftest import CREDENTIAL, Running, free_port, make_world, wait_until
from tests.gateway.conftest import KINDS, PAGE, Gate, dialect_of, make_gate
from toolkit.dialects import MODULES
from toolkit.gateway.app import create_app
from toolkit.gateway.key_cache import KeyCache
from toolkit.gateway.responses import early_refusal
from toolkit.gateway.server import protocol
from toolkit.gateway.server_connection import ServerConnection
from toolkit.workspace import Workspace

WORDS = "The gateway failed on this request."


@pytest.fixture
def here(workspace: Workspace, upstream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A key at a gateway that this process serves, so that a test can break a part of it."""
    monkeypatch.setenv("TEST_UPSTREAM_API_KEY", CREDENTIAL)
    # Whatever has set up uvicorn's logging in this process before (and its level, below): the test reads it.
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "propagate", True)
    world = make_world(workspace, upstream)
    port = free_port()
    config = Config(
        create_app(replace(workspace.settings, cors_origins=(PAGE,))),
        port=port,
        http=cast("type[ServerConnection]", protocol(early_refusal, workspace.settings.trusted_proxies)),
        log_config=None,
        log_level="warning",
        access_log=False,
        ws="none",
    )
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, "the gateway")
    nothing = cast("subprocess.Popen[bytes]", None)
    yield make_gate(Running(world, f"http://127.0.0.1:{port}", upstream, tmp_path / "log", nothing))
    server.should_exit = True
    thread.join()


def breaks(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: int = 0) -> None:
    """Have a function raise what nobody expects, after some calls that go well."""
    right, calls = getattr(owner, name), iter(range(after))

    def broken(*values: Any, **named: Any) -> Any:
        if next(calls, None) is None:
            raise ZeroDivisionError("what nobody expects")
        return right(*values, **named)

    monkeypatch.setattr(owner, name, broken)


def logged(caplog: pytest.LogCaptureFixture, request_id: str) -> None:
    """Check that the traceback is in the log, once, with the request's id."""
    wait_until(lambda: request_id in caplog.text, "the traceback, which is logged after the answer")
    assert caplog.text.count("ZeroDivisionError: what nobody expects") == 1
    assert caplog.text.count(request_id) == 1
    assert "without starting response" not in caplog.text


def test_the_log_has_the_traceback_once_with_the_request_id(
    here: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is given the id finds why."""
    breaks(monkeypatch, KeyCache, "current_key")
    reply = here.send("/v1/models", method="GET")
    assert (reply.status, reply.type, reply.headers["connection"]) == (500, "internal_error", "close")
    assert reply.request_id == reply.json["error"]["request_id"]
    logged(caplog, reply.request_id)


def test_a_page_may_read_of_a_fault(here: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its browser shows it nothing that does not say so."""
    breaks(monkeypatch, KeyCache, "current_key")
    reply = here.send("/v1/models", None, {"Origin": PAGE}, method="GET")
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (500, PAGE)


def test_what_was_not_forwarded_costs_nothing(
    here: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The call was admitted, and breaks on its way to the provider: its hold ends, and it may be tried again."""
    breaks(monkeypatch, MODULES[dialect_of("chat")], "rewrite")
    reply, row = here.ask("chat", "hello"), here.row()
    assert (reply.status, reply.type) == (500, "internal_error")
    assert "x-should-retry" not in reply.headers
    assert (row.outcome, row.refusal, row.status, row.cost) == ("upstream_error", "internal_error", 500, 0)
    assert row.error == "the gateway failed on this call (ZeroDivisionError)"
    assert here.totals() == (0, 0)
    logged(caplog, reply.request_id)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_what_was_forwarded_is_charged_by_what_is_known(
    here: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """The answer has come and cannot be metered: it is estimated by its size, and nobody is told to try again."""
    breaks(monkeypatch, MODULES[dialect_of(kind)], "usage_of")
    reply, row = here.ask(kind, "hello"), here.row()
    assert (reply.status, reply.type, reply.headers["x-should-retry"]) == (500, "internal_error", "false")
    assert reply.headers["x-hold-id"]
    assert (row.outcome, row.refusal, row.usage_source) == ("upstream_error", "internal_error", "estimated")
    assert row.input_tokens > 0
    assert row.output_tokens > 0
    assert here.totals() == (row.cost, 0)
    assert row.cost > 0
    logged(caplog, reply.request_id)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_on_which_we_fail_ends_with_an_error_event(
    here: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """What was passed on is charged; the stream does not end as if it were whole."""
    breaks(monkeypatch, MODULES[dialect_of(kind)].Meter, "feed", after=3)
    reply = here.ask(kind, "[[demo tokens=40 chunk_delay=0.02]]", stream=True)
    wait_until(lambda: here.totals()[1] == 0, "the hold's end")
    row = here.row()
    assert reply.status == 200
    assert WORDS.encode() in reply.body
    assert (row.refusal, row.usage_source) == ("internal_error", "estimated")
    assert here.totals() == (row.cost, 0)
    assert row.cost > 0
    logged(caplog, reply.request_id)


def test_a_hold_ends_even_if_what_is_known_cannot_be_read(here: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the stream is what is broken: then nothing is known of it."""
    meter = MODULES[dialect_of("chat")].Meter
    breaks(monkeypatch, meter, "feed")
    monkeypatch.setattr(meter, "report", property(lambda _: 1 // 0))
    reply = here.ask("chat", "hello", stream=True)
    assert WORDS.encode() in reply.body
    assert (here.row().cost, here.totals()) == (0, (0, 0))


def test_others_go_on(here: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault on one dialect's calls is none on another's."""
    breaks(monkeypatch, MODULES[dialect_of("messages")], "inspect")
    assert here.ask("messages", "hello").status == 500
    reply = here.ask("chat", "hello")
    assert reply.status == 200
    assert json.loads(reply.body)["choices"]
