"""Stopping a gateway: calls under way finish or are settled; nothing stays held."""

import http.client
import json
import signal
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from tests.conftest import ADMIN, free_port, gateway_process, make_world, wait_until
from toolkit.admin.upstreams import update_upstream
from toolkit.core.settings import Settings
from toolkit.core.upstream_traits import OnLeave
from toolkit.store.tables import HoldRow, Organisation, OutboxRow
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store


@pytest.mark.parametrize(
    ("stream", "delay", "grace", "outcome"),
    [
        (False, 0.5, 3, "completed"),
        (True, 60, 1, "aborted"),
        pytest.param(True, 0.5, 3, "completed", marks=pytest.mark.world),
        pytest.param(False, 60, 1, "aborted", marks=pytest.mark.world),
    ],
)
def test_sigterm_settles_every_call(
    settings: Settings, upstream: str, tmp_path: Path, stream: bool, delay: float, grace: int, outcome: str
) -> None:
    """A call that ends within the grace completes; a longer one is ended and its input charged; no hold is left."""
    body = {"model": "gpt-test", "stream": stream, "messages": said(f"[[demo delay={delay}]]")}
    answers, row, org = stopped_during(settings, upstream, tmp_path, grace, "/v1/chat/completions", body)
    assert row.outcome == outcome
    assert row.cost == org.settled > 0
    assert (answers == [200]) == (outcome == "completed")


@pytest.mark.world
@pytest.mark.only_store("sqlite")
def test_sigterm_makes_no_usage_of_a_free_call(settings: Settings, upstream: str, tmp_path: Path) -> None:
    """Counting tokens that is cut short is no estimated call of so many tokens: what is free has no usage."""
    body = {"model": "claude-test", "messages": said("[[demo delay=60]]")}
    _, row, org = stopped_during(settings, upstream, tmp_path, 1, "/v1/messages/count_tokens", body)
    assert (row.outcome, row.endpoint) == ("aborted", "messages/count_tokens")
    assert (row.usage_source, row.input_tokens, row.cost, org.settled) == (None, 0, 0, 0)


@pytest.mark.world
@pytest.mark.only_store("sqlite")
def test_sigterm_ends_what_is_read_on(settings: Settings, upstream: str, tmp_path: Path) -> None:
    """A stream whose caller has left is nobody's: the gateway does not wait for it, and charges what it knows."""
    settings = replace(settings, gateway_port=free_port())
    workspace = Workspace.open(settings, ADMIN, make=True)
    secret = make_world(workspace, upstream).key().secret
    with workspace.write() as tx:
        update_upstream(tx, "test-openai", on_leave=OnLeave.READ_ON)
    body = json.dumps({"model": "gpt-test", "stream": True, "messages": said("[[demo delay=60]]")})

    def forwarded() -> bool:
        with urllib.request.urlopen(f"{upstream}/demo/calls", timeout=60) as calls, workspace.read() as tx:
            held = tx.session.scalars(select(HoldRow.request_id)).all()
            return any(call["request_id"] in held for call in json.load(calls))

    with gateway_process(settings, tmp_path / "log", {"KEYDESK_SHUTDOWN_GRACE": "600"}) as server:
        caller = http.client.HTTPConnection("127.0.0.1", settings.gateway_port)
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        caller.request("POST", "/v1/chat/completions", body, headers)
        wait_until(forwarded, "the call to be forwarded")
        caller.close()
        for _ in range(2):  # the gateway's loop has then seen that the caller left
            httpx2.get(f"http://127.0.0.1:{settings.gateway_port}/healthz")
        server.send_signal(signal.SIGTERM)
        server.wait(20)
    with workspace.read() as tx:
        row = tx.session.scalars(select(OutboxRow)).one()
        assert tx.session.scalars(select(HoldRow)).all() == []
    workspace.close()
    assert (row.outcome, row.usage_source, row.output_tokens) == ("aborted", "estimated", 0)
    assert row.error == "the caller left, and the answer was read on for its usage"
    assert row.cost > 0


def said(words: str) -> list[dict[str, str]]:
    """Return the messages of a call."""
    return [{"role": "user", "content": words}]


def stopped_during(
    settings: Settings, upstream: str, folder: Path, grace: int, path: str, body: dict[str, Any]
) -> tuple[list[int | str], OutboxRow, Organisation]:
    """Stop a gateway, which gives its calls `grace` seconds, while it has one under way.

    Returns:
        What the caller got, the call's row, and the organisation; nothing is held any more.
    """
    settings = replace(settings, gateway_port=free_port())
    workspace = Workspace.open(settings, ADMIN, make=True)
    secret = make_world(workspace, upstream).key().secret
    answers: list[int | str] = []

    def call() -> None:
        url, headers = f"http://127.0.0.1:{settings.gateway_port}{path}", {"authorization": f"Bearer {secret}"}
        try:
            answers.append(httpx2.post(url, json=body, headers=headers, timeout=30).status_code)
        except httpx2.HTTPError as error:
            answers.append(type(error).__name__)

    def holds() -> int:
        with workspace.read() as tx:
            return len(tx.session.scalars(select(HoldRow)).all())

    with gateway_process(settings, folder / "log", {"KEYDESK_SHUTDOWN_GRACE": str(grace)}) as server:
        caller = threading.Thread(target=call)
        caller.start()
        wait_until(holds, "the call to be admitted")
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        caller.join(20)
    with workspace.read() as tx:
        row = tx.session.scalars(select(OutboxRow)).one()
        org = tx.session.scalars(select(Organisation)).one()
    assert (holds(), org.held) == (0, 0)
    workspace.close()
    return answers, row, org
