"""What a gateway tells of itself: what it has set aside, and how it has its credentials, never what they are."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.conftest import Running, World, wait_until
from toolkit.admin import catalog, gateway_reports, upstream_credentials
from toolkit.billing import leases
from toolkit.core.errors import Forbidden
from toolkit.core.gateway_report import CredentialKind, GatewayReport
from toolkit.core.policy import Role
from toolkit.gateway.call_ways import Place, Ways
from toolkit.gateway.self_report import SelfReport
from toolkit.store.actor import Actor
from toolkit.store.tables import GatewayInstance
from toolkit.store.transaction import utc_now

SECRET = "the-credential-itself"


def test_it_says_what_is_set_aside_and_how_credentials_are_there(world: World, tmp_path: Path) -> None:
    """By the wall's clock, what is over left out; a command and a missing one are told, and no value."""
    secrets = tmp_path / "secrets"
    secrets.write_text(f"TEST_UPSTREAM_API_KEY={SECRET}\nPRINTED_API_KEY!=print-it\n")
    secrets.chmod(0o600)
    with world.workspace.write() as tx:
        upstream_credentials.set_credentials(tx, "test-openai", ["PRINTED_API_KEY", "NOWHERE_API_KEY"])
        known = catalog.load(tx)
    now = 1_000.0
    ways = Ways(lambda: now)
    ways.set_aside(Place("test-gemini"), 30)
    ways.set_aside(Place("test-openai", "PRINTED_API_KEY", "gpt-test"), 90, world.org_id)
    ways.set_aside(Place("test-anthropic"), 5)
    now += 10
    settings = replace(world.workspace.settings, secrets_file=secrets)
    told = SelfReport(settings, ways, lambda: known)
    text = told.text()
    assert text is not None
    assert SECRET not in text
    assert "print-it" not in text
    report = GatewayReport.from_json(text)
    assert report.credentials == {
        "TEST_UPSTREAM_API_KEY": CredentialKind.VALUE,
        "PRINTED_API_KEY": CredentialKind.COMMAND,
        "NOWHERE_API_KEY": CredentialKind.MISSING,
    }
    first, second = report.aside
    assert (first.upstream, first.credential, first.model, first.org_id) == (
        "test-openai",
        "PRINTED_API_KEY",
        "gpt-test",
        world.org_id,
    )
    assert (first.what, second.what) == ("gpt-test, PRINTED_API_KEY", "all of it")
    assert second.upstream == "test-gemini"
    assert timedelta(seconds=15) < second.until - utc_now() <= timedelta(seconds=20)


def test_a_living_gateways_report_is_read_by_platform_admins(world: World) -> None:
    """One that told nothing with a heartbeat keeps what it told before; one that has ended tells nothing."""
    report = GatewayReport((), {"A_API_KEY": CredentialKind.VALUE})
    with world.workspace.write() as tx:
        leases.renew(tx, "alive", timedelta(minutes=1), "1", report.to_json())
        leases.renew(tx, "alive", timedelta(minutes=1))
        leases.renew(tx, "ended", timedelta(minutes=-1), "1", report.to_json())
        leases.renew(tx, "older", timedelta(minutes=1))
        assert gateway_reports.reports(tx) == [report]
    with (
        pytest.raises(Forbidden),
        world.workspace.store.read(Actor("eve@acme.example", Role.ORG_ADMIN, world.org_id)) as tx,
    ):
        gateway_reports.reports(tx)


@pytest.mark.world
def test_a_running_gateway_tells(running: Running) -> None:
    """From its first heartbeat after the catalog was read."""
    workspace = running.world.workspace

    def told() -> dict[str, CredentialKind]:
        with workspace.read() as tx:
            texts = [text for text in tx.session.scalars(select(GatewayInstance.report)) if text]
        return GatewayReport.from_json(texts[0]).credentials if texts else {}

    wait_until(lambda: told() == {"TEST_UPSTREAM_API_KEY": CredentialKind.VALUE}, "the gateway's report")
