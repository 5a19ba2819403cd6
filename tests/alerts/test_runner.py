"""Alerts on their way: signed, sent to real receivers, tried again, and by one process of several."""

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.alerts.receiver import Receiver, receiving
from tests.conftest import ROOT, Run, World, usd, variables_of, wait_until
from toolkit.alerts import destinations, queue, webhook
from toolkit.alerts import runner as runner_module
from toolkit.alerts.runner import Runner
from toolkit.core import destinations as addresses
from toolkit.core.settings import Settings
from toolkit.store.tables import AlertDelivery, AlertDestination, AlertRunner, KeyMonth
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

CONTEXT = ssl.create_default_context()
NOT_PUBLIC = (
    "127.0.0.1 10.1.2.3 192.168.1.1 172.16.0.9 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 169.254.169.254 ::1 :: "
    "fc00::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::"
)


@pytest.fixture(autouse=True)
def _one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's authorities are read once: each runner that a test makes would read them anew."""
    monkeypatch.setattr(runner_module, "tls_context", lambda _settings: CONTEXT)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks."""
    with receiving() as receiver:
        yield receiver


def add(world: World, url: str, name: str = "on-call", **options: Any) -> tuple[str, str]:
    """Add a destination; return its id and secret."""
    with world.workspace.write() as tx:
        row, secret = destinations.add(tx, world.workspace.keyring, name, url, **options)
        return row.id, secret


def pass_threshold(world: World, name: str = "app") -> None:
    """Let a key spend 80 % of its limit."""
    key_id = world.key(name, monthly_limit=usd(10)).key.id
    with world.workspace.write() as tx:
        month = f"{tx.now:%Y-%m}"
        tx.session.add(KeyMonth(key_id=key_id, month=month, calls=1, spent=usd(8), held=0, last_call_at=tx.now))


def make_due(world: World) -> None:
    """Let the pauses after failures be over."""
    with world.workspace.write() as tx:
        tx.session.execute(update(AlertDelivery).values(due_at=tx.now))


def send(world: World, runners: int = 1) -> None:
    """Let so many runners look and send at once, as `keydesk alerts run` does, until what they began is over."""

    async def work() -> None:
        workspace = world.workspace
        running = [Runner(workspace.store, workspace.settings, workspace.keyring) for _ in range(runners)]
        await asyncio.gather(*(runner.round() for runner in running))
        await asyncio.gather(*(runner.sent() for runner in running))
        for runner in running:
            await runner.close()

    asyncio.run(work())


def deliveries(world: World) -> list[AlertDelivery]:
    """Return all deliveries, in the order in which they were queued."""
    with world.workspace.read() as tx:
        return list(tx.session.scalars(select(AlertDelivery).order_by(AlertDelivery.queued_at)))


def documented_verify() -> Any:
    """Return the function that docs/alerts.md has for receivers."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/alerts.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope["verify"]


def test_an_alert_comes_signed_and_once(world: World, receiver: Receiver) -> None:
    """What the documentation says of signatures holds; another body, secret, id or time does not pass."""
    _, secret = add(world, receiver.url)
    pass_threshold(world)
    send(world)
    send(world)
    ((headers, body),) = receiver.got
    verify = documented_verify()
    assert verify(secret, headers, body)
    assert not verify(secret, headers, body + b" ")
    assert not verify("whsec_AAAA", headers, body)
    assert not verify(secret, headers | {"webhook-id": "alert_0"}, body)
    assert not verify(secret, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 301)}, body)
    assert json.loads(body)["data"]["id"] == headers["webhook-id"]
    assert headers["content-type"] == "application/json"
    (delivery,) = deliveries(world)
    assert (delivery.tries, delivery.failure, delivery.ended_at is not None) == (1, None, True)


def test_an_alert_is_signed_by_each_pepper(world: World) -> None:
    """So that receivers may change the secret in their own time: the present one is first."""
    verify = documented_verify()
    keys = [b"new" * 11, b"old" * 11]
    headers = webhook.signed(keys, "alert_1", b"{}")
    for key in keys:
        secret = "whsec_" + base64.b64encode(key).decode()
        assert verify(secret, headers, b"{}")
    assert headers["webhook-signature"].count("v1,") == 2


def test_of_two_runners_at_once_one_sends(world: World, receiver: Receiver) -> None:
    """Each alert is queued and sent by one."""
    add(world, receiver.url)
    for number in range(5):
        pass_threshold(world, f"app {number}")
    send(world, runners=3)
    assert len(set(receiver.ids())) == len(receiver.got) == 5


def test_what_is_not_taken_is_tried_again_with_the_same_id(world: World, receiver: Receiver) -> None:
    """Status 500: after a pause that doubles. Then 200: it is over."""
    add(world, receiver.url)
    pass_threshold(world)
    receiver.status = 500
    pauses = []
    for _ in range(3):
        send(world)
        (delivery,) = deliveries(world)
        pauses.append(round((delivery.due_at - datetime.now(UTC)).total_seconds(), -1))
        send(world)  # not yet
        make_due(world)
    assert pauses == [10, 20, 40]
    assert delivery.failure == "it answered with status 500"
    receiver.status = 200
    send(world)
    assert len(receiver.got) == 4
    assert len(set(receiver.ids())) == 1
    assert deliveries(world)[0].failure is None


def test_what_is_not_taken_for_days_is_given_up(world: World, receiver: Receiver) -> None:
    """And no more is heard of it."""
    add(world, receiver.url)
    pass_threshold(world)
    receiver.status = 410
    send(world)
    with world.workspace.write() as tx:
        old = tx.now - queue.GIVEN_UP_AFTER - timedelta(seconds=1)
        tx.session.execute(update(AlertDelivery).values(queued_at=old, due_at=old))
    send(world)
    send(world)
    assert len(receiver.got) == 2
    assert deliveries(world)[0].ended_at is not None


def test_no_redirect_is_followed(world: World, receiver: Receiver) -> None:
    """To wherever it leads."""
    add(world, receiver.url)
    pass_threshold(world)
    with receiving() as elsewhere:
        for receiver.status in (302, 307):
            receiver.location = elsewhere.url
            send(world)
            make_due(world)
        assert not elsewhere.got
    assert "no redirect is followed" in str(deliveries(world)[0].failure)


def test_a_receiver_that_hangs_delays_no_other(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one holds its answer back, the other gets everything; then the one is late."""
    monkeypatch.setattr(webhook, "PATIENCE", 0.5)
    receiver.held.clear()
    add(world, receiver.url, "a hangs")
    with receiving() as other:
        add(world, other.url, "b answers")
        for number in range(3):
            pass_threshold(world, f"app {number}")
        send(world)
        assert len(other.got) == 3
    assert len(receiver.got) == 1
    failures = {delivery.failure for delivery in deliveries(world)}
    assert failures == {None, "it did not answer within 0.5 s"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_an_org_admin_named_is_judged_when_connecting(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Whatever its name was when it was added: where it leads to this machine, nothing is sent."""
    add(world, receiver.url.replace("127.0.0.1", host), org="Acme")
    with world.workspace.write() as tx:
        tx.session.execute(update(AlertDestination).values(any_address=False))
    pass_threshold(world)
    send(world)
    assert not receiver.got
    assert "is no address of the public internet, which is never called" in str(deliveries(world)[0].failure)


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public_are_told(address: str) -> None:
    """However they are written; and those of the internet are not."""
    assert addresses.fault_of_address(address, public_only=True)
    assert addresses.fault_of_address("93.184.216.34", public_only=True) is None
    assert addresses.fault_of_address("2606:4700::1111", public_only=True) is None


def test_a_runner_takes_over_when_another_has_ended(world: World, receiver: Receiver) -> None:
    """At once if it said so; else when its lease is over."""
    add(world, receiver.url)
    send(world)
    with world.workspace.write() as tx:
        assert tx.session.get(AlertRunner, 1) is None
        queue.take_lease(tx, "killed", timedelta(hours=1))
    pass_threshold(world)
    send(world)
    assert not receiver.got
    with world.workspace.write() as tx:
        queue.take_lease(tx, "killed", timedelta(seconds=-1))
    send(world)
    assert len(receiver.got) == 1


@pytest.mark.world
def test_the_command_tests_a_destination(world: World, receiver: Receiver, run: Run) -> None:
    """It says that nobody sends; then that it was taken, or why not."""
    add(world, receiver.url)
    failed = run("alerts", "test", "on-call")
    assert failed.exit_code == 1
    assert "keydesk alerts run" in failed.stderr
    with alerts_process(world.workspace.settings):
        wait_until(lambda: leased(world.workspace), "the lease")
        assert run("alerts", "test", "on-call").stdout.startswith("on-call has taken the test alert alert_")
        receiver.status = 503
        refused = run("alerts", "test", "on-call")
    assert refused.exit_code == 1
    assert "it answered with status 503" in refused.stdout
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["alert.test", "alert.test"]


@pytest.mark.world
def test_an_alert_that_was_sent_by_a_process_that_was_killed_is_sent_again(world: World, receiver: Receiver) -> None:
    """Killed between sending and noting it: another process sends it with the same id."""
    add(world, receiver.url)
    pass_threshold(world)
    receiver.held.clear()
    settings = replace(world.workspace.settings, lease=1.0)
    with alerts_process(settings) as first:
        wait_until(lambda: receiver.got, "the first try")
        first.send_signal(signal.SIGKILL)
        first.wait()
    receiver.held.set()
    with alerts_process(settings):
        wait_until(lambda: deliveries(world)[0].ended_at, "the second try")
    assert len(receiver.got) == 2
    assert len(set(receiver.ids())) == 1


def leased(workspace: Workspace) -> bool:
    """Whether a process sends."""
    with workspace.read() as tx:
        return not queue.is_free(tx)


@contextlib.contextmanager
def alerts_process(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `keydesk alerts run` until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.cli", "alerts", "run"],
        env={**os.environ, **variables_of(settings), "KEYDESK_LEASE": str(settings.lease)},
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_a_host_that_is_nowhere_is_said_in_words_of_a_webhook(world: World) -> None:
    """Those of upstreams would send people to look for a base URL."""
    add(world, "http://nowhere.invalid/hook")
    pass_threshold(world)
    send(world)
    with world.workspace.read() as tx:
        [failure] = tx.session.scalars(select(AlertDelivery.failure))
    assert failure is not None
    assert "is its URL right" in failure
