"""Stopping a gateway: calls under way finish or are settled; nothing stays held."""

import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from tests.conftest import ADMIN, free_port, gateway_process, make_world, wait_until
from toolkit.desk import Desk
from toolkit.models import Hold, Organisation, OutboxRow
from toolkit.settings import Settings

pytestmark = pytest.mark.both_stores


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("delay", "outcome"), [(0.5, "completed"), (60, "aborted")])
def test_sigterm_settles_every_call(
    settings: Settings, upstream: str, tmp_path: Path, stream: bool, delay: float, outcome: str
) -> None:
    """A call that ends within the grace completes; a longer one is ended and its input charged; no hold is left."""
    settings = replace(settings, gateway_port=free_port())
    desk = Desk.open(settings, ADMIN)
    world = make_world(desk, upstream)
    secret = world.key().secret
    answers: list[int | str] = []

    def call() -> None:
        body = {
            "model": "gpt-test",
            "stream": stream,
            "messages": [{"role": "user", "content": f"[[demo delay={delay}]]"}],
        }
        try:
            answers.append(
                httpx2.post(
                    f"http://127.0.0.1:{settings.gateway_port}/v1/chat/completions",
                    json=body,
                    headers={"authorization": f"Bearer {secret}"},
                    timeout=30,
                ).status_code
            )
        except httpx2.HTTPError as error:
            answers.append(type(error).__name__)

    def holds() -> int:
        with desk.read() as tx:
            return len(tx.session.scalars(select(Hold)).all())

    with gateway_process(settings, tmp_path / "log", {"KEYDESK_SHUTDOWN_GRACE": "2"}) as server:
        caller = threading.Thread(target=call)
        caller.start()
        wait_until(holds, "the call to be admitted")
        stopped = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(20)
        assert time.monotonic() - stopped < 10
        caller.join(20)
    with desk.read() as tx:
        row = tx.session.scalars(select(OutboxRow)).one()
        org = tx.session.scalars(select(Organisation)).one()
    assert (holds(), org.held) == (0, 0)
    desk.close()
    assert row.outcome == outcome
    assert row.cost == org.settled > 0
    assert (answers == [200]) == (outcome == "completed")
