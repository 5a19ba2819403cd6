"""The dashboard's server: the gateway's bounds, Streamlit's application and its websocket."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port, prepare_workspace, process, settings_for
from tests.gateway.raw import answers, connected, say

UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: streamlit\r\n"
)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A dashboard in a process of its own, on every address; its port."""
    folder = tmp_path_factory.mktemp("dashboard")
    taken = free_port()
    env = {"KEYDESK_DATA_DIR": str(folder), "KEYDESK_DASHBOARD_PORT": str(taken), "KEYDESK_HOST": "::"}
    settings = settings_for(folder, "")
    prepare_workspace(folder, settings.store_url)
    health = f"http://127.0.0.1:{taken}/_stcore/health"
    with process(["-m", "toolkit.cli", "dashboard"], health, env, folder / "log"):
        yield taken


def test_its_options_do_not_depend_on_where_it_was_started(tmp_path: Path) -> None:
    """No traceback reaches a browser, and no unguarded CSV, from another folder either."""
    code = (
        "import streamlit; from tests.conftest import ROOT, settings_for; from toolkit.dashboard import server;"
        "from pathlib import Path; server.load_options(settings_for(Path('.'), ''), ROOT / 'app.py');"
        "print(*map(streamlit.get_option, ('client.showErrorDetails', 'client.disableDataExport')))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["none", "True"]


@pytest.mark.world
def test_it_serves_both_families(port: int) -> None:
    """KEYDESK_HOST=::"""
    with connected(port, "127.0.0.1") as client:
        client.sendall(b"GET /_stcore/health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answers(client.recv(1 << 16)) == [200]


def test_its_refusals_are_plain_sentences(port: int) -> None:
    """For people, who have no SDK that reads an envelope."""
    received = say(port, b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answers(received) == [414]
    assert received.endswith(b"The URL is too long: at most 8,192 bytes are read.")
    assert b"content-type: text/plain" in received
    assert answers(say(port, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000)) == [431]


def test_an_offer_of_http_2_is_declined(port: int) -> None:
    """As at the gateway."""
    head = b"GET /sign-in HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    assert answers(say(port, head)) == [200]


def test_a_websocket_is_spoken(port: int) -> None:
    """It reaches the gate, which sends whoever has no session away."""
    key = base64.b64encode(os.urandom(16))
    head = b"GET /_stcore/stream HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: " + key + b"\r\n" + UPGRADE + b"\r\n"
    with connected(port) as client:
        client.sendall(head)
        received = client.recv(1 << 16)
        assert answers(received)[0] in {101, 403}
