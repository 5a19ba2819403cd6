"""The page Upstreams: what it shows, and the dialogs that add, change, try and retire one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import World
from tests.dashboard.conftest import Visit
from toolkit.admin import model_routes, models, upstream_credentials, upstreams
from toolkit.billing import leases
from toolkit.core.account_fault import AccountFault
from toolkit.core.gateway_report import CredentialKind, GatewayReport, SetAside
from toolkit.core.policy import Role
from toolkit.core.upstream_test import Found, TriedCall
from toolkit.core.upstream_traits import OnLeave
from toolkit.dashboard.pages import titled
from toolkit.store import audit, incidents, upstream_tests
from toolkit.store.incidents import At, Refused
from toolkit.store.tables import Upstream

Open = Callable[..., Visit]
GATEWAY = "gateway_of_the_test"


def add(world: World, name: str = "spare", **options: object) -> None:
    """Add an upstream of OpenAI's preset."""
    with world.workspace.write() as tx:
        upstreams.add_upstream(tx, name, preset="openai", **options)  # type: ignore[arg-type]


def stored(world: World, name: str = "spare") -> Upstream:
    """Return an upstream as the store has it."""
    with world.workspace.read() as tx:
        return upstreams.find(tx, name)


def opened(page: Visit, dialog: str, name: str = "spare") -> Visit:
    """Open a dialog about an upstream."""
    page.app.session_state["dialog"] = (dialog, name)
    return page.run()


def cells(page: Visit, name: str) -> dict[str, object]:
    """Return the row of an upstream."""
    rows = page.app.dataframe[0].value
    return {str(column): value for column, value in rows[rows["Name"] == name].iloc[0].to_dict().items()}


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_it_is_for_platform_admins_alone(visit: Open, world: World, role: Role) -> None:
    """There is no such page for others."""
    assert titled("Upstreams", role) is None
    page = visit("overview", role, world.org_id)
    with pytest.raises(ValueError, match="Could not find a navigation page"):
        page.app.switch_page("toolkit/dashboard/upstreams.py")


def test_each_upstream_has_its_state_and_whose_account_it_is(visit: Open, world: World) -> None:
    """One that refuses us says why and since when, with what to do; an organisation's own names it."""
    add(world)
    add(world, "theirs", org="Acme", credential_env="ACME_API_KEY")
    with world.workspace.write() as tx:
        moment = tx.now
        seen = Refused(moment, moment, 3, "You exceeded your current quota")
        incidents.write(tx, {At("spare", AccountFault.CREDIT, "", "OPENAI_API_KEY"): seen}, {})
    page = visit("upstreams")
    assert cells(page, "spare")["State"] == "Refuses us"
    assert cells(page, "theirs")["Account of"] == "Acme"
    assert cells(page, "theirs")["State"] == "Serves no model"
    shown = opened(page, "Upstream").text
    assert "You exceeded your current quota" in shown
    assert "Add credit, or raise the limit" in shown
    assert "from preset openai" in shown
    page.app.query_params = {"upstream": "nobodys"}
    assert "Not found." in page.run().text


def test_one_is_added_by_its_preset(visit: Open, world: World) -> None:
    """With a name and the name of a credential; a value in its place is refused in words."""
    page = visit("upstreams").click("add_upstream")
    page.app.selectbox(key="upstream_preset").set_value("mistral")
    page.run()
    page.type("upstream_name_mistral", "mistral-eu")
    page.type("upstream_credential", "sk-1234 5678")
    assert "Give the name, not the value" in page.click("confirm").text
    page.type("upstream_credential", "")
    assert "mistral-eu is added. Set MISTRAL_API_KEY where the gateway runs" in page.click("confirm").text
    assert stored(world, "mistral-eu").preset == "mistral"


def test_a_change_says_what_and_why(visit: Open, world: World) -> None:
    """Only what was touched is changed, credentials too, with the reason in the audit log."""
    add(world)
    page = opened(visit("upstreams"), "Change")
    page.app.selectbox(key="change_on_leave").set_value(OnLeave.READ_ON)
    page.type("change_credentials", "OPENAI_API_KEY, SECOND_API_KEY")
    page.type("reason", "bills the whole")
    assert "spare is changed" in page.click("confirm").text
    assert stored(world).on_leave == OnLeave.READ_ON
    with world.workspace.read() as tx:
        assert upstream_credentials.credentials_of(tx, "spare") == ["OPENAI_API_KEY", "SECOND_API_KEY"]
        [act] = [row for row in audit.rows(tx, subject="spare") if row.action == "upstream.update"]
    before, after = json.loads(act.before or ""), json.loads(act.after or "")
    assert {name for name in before if before[name] != after[name]} == {"on_leave"}
    assert act.reason == "bills the whole"


def test_a_form_that_is_out_of_date_changes_nothing(visit: Open, world: World) -> None:
    """Both values are named."""
    add(world)
    page = opened(visit("upstreams"), "Change")
    with world.workspace.write() as tx:
        upstreams.update_upstream(tx, "spare", reckon_rate=77)
    page.app.selectbox(key="change_on_leave").set_value(OnLeave.READ_ON)
    assert "reckon rate is 77, and was 200" in page.click("confirm").text
    assert stored(world).on_leave == OnLeave.CANCEL


def test_one_that_serves_models_is_not_retired(visit: Open, world: World) -> None:
    """The models are named; once they are elsewhere the name must be typed."""
    add(world)
    with world.workspace.write() as tx:
        models.add_model(tx, "gpt-5-mini", "spare")
    page = opened(visit("upstreams"), "Retire")
    page.type("confirm_name", "spare")
    assert "serves gpt-5-mini" in page.click("confirm").text
    with world.workspace.write() as tx:
        models.update_model(tx, "gpt-5-mini", upstream="test-openai")
    page.type("confirm_name", "spar")
    assert "give the upstream's name exactly" in page.click("confirm").text
    page.type("confirm_name", "spare")
    assert "spare is retired" in page.click("confirm").text
    with world.workspace.read() as tx:
        assert "spare" not in [each.name for each in upstreams.list_upstreams(tx)]


def test_one_is_tried_by_a_gateway_and_gets_its_models(visit: Open, world: World) -> None:
    """Without a gateway that is said; with one its words come, what to set, and models at public prices."""
    add(world)
    page = opened(visit("upstreams"), "Try it")
    assert "No gateway is running" in page.click("confirm").text
    with world.workspace.write() as tx:
        leases.renew(tx, GATEWAY, timedelta(minutes=5))
    page.click("confirm")
    assert "A gateway is at it" in " ".join(info.value for info in page.app.info)
    call = TriedCall("chat/completions", stream=True, works=True, usage={"input": 9}, left_out=("store",))
    found = Found(models=("gpt-5-mini", "of-nobody"), listing_said=None, model="gpt-5-mini", calls=(call,))
    with world.workspace.write() as tx:
        test = upstream_tests.take(tx, GATEWAY)
        assert test is not None
        upstream_tests.end(tx, test.id, GATEWAY, found=found.to_json())
    shown = page.run().text
    assert "without store, which it refuses" in shown
    assert "2 models listed, 2 not in the catalog; 1 more have no public price" in shown
    assert "keydesk upstreams update spare --no-add-store" in [code.value for code in page.app.code]
    page.app.multiselect(key="trial_models").set_value(["gpt-5-mini"])
    assert "1 model added" in page.click("add_models").text
    with world.workspace.read() as tx:
        assert model_routes.served_at(tx, "spare") == {"gpt-5-mini": "gpt-5-mini"}


def test_what_gateways_tell_is_shown(visit: Open, world: World) -> None:
    """What they have set aside and until when; which credential a command prints, and which is missing."""
    until = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)
    aside = SetAside("spare", "", "gpt-5-mini", "", None, until)
    kinds = {"OPENAI_API_KEY": CredentialKind.COMMAND, "SECOND_API_KEY": CredentialKind.MISSING}
    add(world)
    with world.workspace.write() as tx:
        upstream_credentials.set_credentials(tx, "spare", list(kinds))
        for name in (GATEWAY, "another"):
            leases.renew(tx, name, timedelta(minutes=5), "1", GatewayReport((aside,), kinds).to_json())
        leases.renew(
            tx, "ended", timedelta(minutes=-5), "1", GatewayReport((aside._replace(model="old"),), {}).to_json()
        )
    page = visit("upstreams")
    assert cells(page, "spare")["State"] == "Set aside"
    assert cells(page, "spare")["What is wrong"] == "gpt-5-mini is set aside until 03:04:05 UTC"
    assert cells(page, "test-openai")["State"] == "In use"
    shown = opened(page, "Upstream").text
    assert "OPENAI_API_KEY printed by a command" in shown
    assert "SECOND_API_KEY not set where a gateway runs" in shown
    assert shown.count("Set aside until 2099-01-02 03:04:05 UTC: gpt-5-mini.") == 1
