"""The page Keys: what each role sees, and every dialog."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.runtime.context import ContextProxy

from tests.conftest import World, usd
from tests.dashboard.conftest import PASSWORD, Visit
from tests.rows import append, row
from toolkit.admin import keys, models, operators, organisations
from toolkit.admin.key_summaries import summaries
from toolkit.admin.sign_in import open_session
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.hosted_tools import HostedTools
from toolkit.core.period import billing_month
from toolkit.core.policy import HoldPolicy, KeyStatus, Role
from toolkit.core.secrets import is_well_formed
from toolkit.dashboard import identity, streamlit_sessions
from toolkit.store import audit
from toolkit.store.tables import ApiKey, KeyMonth, RetiredSecret
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]


def stored(world: World, name: str) -> ApiKey:
    """Return a key as the store has it."""
    with world.workspace.read() as tx:
        return keys.find(tx, name)


def reasons(world: World, key_id: str) -> dict[str, tuple[str, str]]:
    """Return who did what to a key and why, by action."""
    with world.workspace.read() as tx:
        return {row.action: (row.actor, row.reason) for row in audit.rows(tx, subject=key_id)}


def other_org(world: World) -> str:
    """Add a second organisation with one key."""
    with world.workspace.write() as tx:
        org = organisations.add(tx, "Borealis")
        keys.create(tx, world.workspace.keyring, org=org.id, name="their-key", plan=world.plan_id)
        return org.id


def test_empty_list_says_the_next_step(visit: Open) -> None:
    """Without keys the page says how to make the first one."""
    assert "No API keys yet. Press Create key, copy its secret, and paste the curl" in visit("keys").text


def test_list_shows_status_plan_limit_and_last_use(visit: Open, world: World) -> None:
    """A row names key, plan and state, what was spent and held of the limit, and tries with an old secret."""
    key = world.key("billing-bot", monthly_limit=usd(50), models=["gpt-test"]).key
    with world.workspace.write() as tx:
        now = tx.now
        tx.session.add(
            KeyMonth(
                key_id=key.id,
                month=billing_month(now),
                calls=1234,
                spent=usd(41.5),
                held=usd(2),
                last_call_at=now - timedelta(minutes=3),
            )
        )
        tx.session.add(
            RetiredSecret(digest="d", key_id=key.id, display="sk-old", retired_at=now, uses=7, last_used_at=now)
        )
    text = visit("keys").text
    assert "1 key · 1 active · 1 near or over the monthly limit" in text
    for part in (
        "billing-bot",
        key.display,
        "Acme",
        "Active",
        "standard",
        "1 model",
        "$41.50",
        "of $50.00",
        "1,234 calls · $2.00 held",
        "3 min ago",
        "7 old-secret tries",
    ):
        assert part in text


def test_names_are_shown_as_text(visit: Open, world: World) -> None:
    """A name may hold markup; it is shown and never obeyed."""
    key = world.key("<b>bold</b> *x* $1 $2").key
    page = visit("keys")
    assert "&lt;b&gt;bold&lt;/b&gt; *x* $1 $2" in " ".join(element.value for element in page.app.html)
    page.choose(key.id, "Disable").click("confirm")
    assert "<b>bold</b> *x* $1 $2 is disabled." in page.app.toast[0].value.replace("\\", "")


def test_search_and_deleted_keys(visit: Open, world: World) -> None:
    """The search narrows the list; deleted keys are found under Deleted and All, struck out and without actions."""
    world.key("alpha")
    gone = world.key("beta").key
    with world.workspace.write() as tx:
        keys.delete(tx, gone.id, confirm="beta")
    page = visit("keys")
    assert "beta" not in page.text
    page.app.segmented_control(key="key_shown").set_value("All")
    page.type("key_search", "BET")
    text = page.run().text
    assert "beta" in text
    assert "Deleted" in text
    assert "alpha" not in text
    assert page.actions(gone.id) == ["Details"]
    page.type("key_search", "nothing like it")
    assert "No key matches." in page.run().text


def test_search_finds_an_id(visit: Open, world: World) -> None:
    """An id is found however its letters are written; nothing else is listed."""
    key = world.key("alpha").key
    world.key("beta")
    assert key.id != key.id.lower()
    page = visit("keys")
    for wanted in (key.id, key.id.lower()):
        page.type("key_search", wanted)
        text = page.run().text
        assert "alpha" in text
        assert "beta" not in text


def test_refresh_keeps_the_search(visit: Open, world: World) -> None:
    """Refresh shows what has changed since, among what was searched for."""
    world.key("app-old")
    page = visit("keys")
    page.type("key_search", "app")
    page.run()
    world.key("app-new")
    world.key("other")
    text = page.click("key_refresh").text
    assert "app-new" in text
    assert "other" not in text


def test_create_shows_the_secret_once(visit: Open, world: World) -> None:
    """Create makes the key as asked and shows its secret with a curl; afterwards it is nowhere in the session."""
    page = visit("keys").click("create")
    page.type("key_name", "new-app")
    page.type("key_limit", "12.50")
    page.app.multiselect(key=f"key_models_{world.plan_id}").set_value(["gpt-test"])
    page.app.datetime_input(key="key_expires").set_value(datetime(2099, 1, 31, 12, 0))  # noqa: DTZ001 - as the input gives it
    page.app.radio(key="key_policy").set_value(HoldPolicy.EXPECTED)
    page.app.radio(key="key_hosted_tools").set_value(HostedTools.REFUSE)
    page.click("confirm")
    secret, curl, variables = [block.value for block in page.app.code]
    assert is_well_formed(secret)
    assert "Copy the secret now. It is stored nowhere and cannot be shown again." in page.text
    assert curl.startswith("curl http://127.0.0.1:8080/v1/chat/completions")
    assert secret in curl
    assert '"model": "gpt-test"' in curl
    assert variables == f"export OPENAI_BASE_URL=http://127.0.0.1:8080/v1\nexport OPENAI_API_KEY={secret}"

    key = stored(world, "new-app")
    assert (key.monthly_limit, key.scope, key.hold_policy) == (usd(12.5), '["gpt-test"]', HoldPolicy.EXPECTED)
    assert key.hosted_tools == HostedTools.REFUSE
    assert key.expires_at == datetime(2099, 1, 31, 12, 0, tzinfo=UTC)
    assert secret not in repr(page.app.session_state.to_dict())

    page.click("secret_stored")
    assert not page.app.code
    assert "new-app" in page.text
    assert secret not in page.text
    state = page.app.session_state.to_dict()
    assert not any(state.get(name) for name in ("dialog", "dialog_secret"))


def test_second_press_shows_the_same_secret(visit: Open, world: World) -> None:
    """A double click makes one key and does not lose its secret."""
    page = visit("keys").click("create")
    page.type("key_name", "once")
    page.click("confirm")
    first = page.app.code[0].value
    assert page.run().app.code[0].value == first
    assert stored(world, "once").version == 1


def test_going_to_another_page_drops_the_secret(visit: Open, world: World) -> None:
    """Leaving the page with the dialog open forgets the secret, and coming back does not bring it up."""
    page = visit("keys").click("create")
    page.type("key_name", "left-behind")
    page.click("confirm")
    assert page.app.code
    page.app.switch_page("toolkit/dashboard/requests.py").run()
    assert not page.app.session_state["dialog_secret"]
    page.app.switch_page("toolkit/dashboard/keys.py").run()
    assert not page.app.code


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        ("taken", "", "already has an API key named 'taken'"),
        ("", "", "name is empty. It must have 1 to 80 characters"),
        ("fine", "-1", "A monthly limit cannot be negative"),
        ("fine", "ten", "The monthly limit 'ten' is not a number"),
    ],
)
def test_create_explains_what_is_wrong(visit: Open, world: World, name: str, limit: str, message: str) -> None:
    """A wrong option is named in the dialog, which stays open; no key is made."""
    world.key("taken")
    page = visit("keys").click("create")
    page.type("key_name", name)
    page.type("key_limit", limit)
    page.click("confirm")
    assert message in page.text
    assert page.has_button("confirm")
    with world.workspace.read() as tx:
        assert len(summaries(tx)) == 1


def test_cancel_closes_the_dialog(visit: Open, world: World) -> None:
    """Cancel changes nothing and takes the dialog away."""
    key = world.key("kept").key
    page = visit("keys").choose(key.id, "Rotate").click("cancel")
    assert not page.has_button("confirm")
    assert stored(world, "kept").version == 1


def test_rotate_shows_a_new_secret(visit: Open, world: World) -> None:
    """Rotate replaces the secret and shows the new one, once."""
    old = world.key("rotated")
    page = visit("keys").choose(old.key.id, "Rotate")
    assert "stops at once" in page.text
    page.type("reason", "leaked")
    page.click("confirm")
    secret = page.app.code[0].value
    assert is_well_formed(secret)
    assert secret != old.secret
    assert stored(world, "rotated").display != old.key.display
    assert reasons(world, old.key.id)["key.rotate"] == ("platform_admin-none@keydesk.test", "leaked")
    assert not page.click("secret_stored").app.code


def test_disable_and_enable(visit: Open, world: World) -> None:
    """Disable and enable ask first, change the state, and say so."""
    key = world.key("switch").key
    page = visit("keys").choose(key.id, "Disable")
    assert stored(world, "switch").status == KeyStatus.ACTIVE
    page.click("confirm")
    assert stored(world, "switch").status == KeyStatus.DISABLED
    assert "switch is disabled." in page.text
    assert page.actions(key.id) == ["Details", "Edit options", "Rotate secret", "Enable", "Delete"]
    page.choose(key.id, "Enable").click("confirm")
    assert stored(world, "switch").status == KeyStatus.ACTIVE


def test_delete_wants_the_name(visit: Open, world: World) -> None:
    """Delete goes ahead only when the key's name was typed."""
    key = world.key("precious").key
    page = visit("keys").choose(key.id, "Delete")
    page.type("confirm_name", "preciuos")
    page.click("confirm")
    assert "To confirm, give the key's name exactly: 'precious', not 'preciuos'. Nothing was changed." in page.text
    assert stored(world, "precious").status == KeyStatus.ACTIVE
    page.type("confirm_name", "precious")
    page.click("confirm")
    assert stored(world, key.id).status == KeyStatus.DELETED
    assert "precious is deleted." in page.text


def test_edit_changes_only_what_was_touched(visit: Open, world: World) -> None:
    """Edit shows the present options; saving changes the limit and leaves the rest, seconds of the expiry too."""
    expires = datetime(2099, 5, 6, 7, 8, 9, tzinfo=UTC)
    key = world.key("old-name", monthly_limit=usd(5), models=["gpt-test"], expires_at=expires).key
    page = visit("keys").choose(key.id, "Edit")
    assert page.app.text_input(key="key_limit").value == "5"
    page.type("key_name", "new-name")
    page.type("key_limit", "")
    page.type("reason", "more room")
    page.click("confirm")
    changed = stored(world, key.id)
    assert (changed.name, changed.monthly_limit) == ("new-name", None)
    assert (changed.scope, changed.expires_at, changed.hold_policy) == ('["gpt-test"]', expires, HoldPolicy.STRICT)
    assert reasons(world, key.id)["key.update"][1] == "more room"


def test_edit_keeps_what_somebody_else_changed(visit: Open, world: World) -> None:
    """A form that was opened before another person's change and touches other options leaves that change alone."""
    key = world.key("shared", monthly_limit=usd(500)).key
    page = visit("keys").choose(key.id, "Edit")
    with world.workspace.write() as tx:
        keys.update(tx, key.id, monthly_limit=usd(5), models=["gpt-test"], hold_policy=HoldPolicy.EXPECTED)
        keys.update(tx, key.id, hosted_tools=HostedTools.REFUSE)
    page.type("key_name", "renamed")
    page.click("confirm")
    changed = stored(world, key.id)
    assert (changed.name, changed.monthly_limit, changed.scope) == ("renamed", usd(5), '["gpt-test"]')
    assert (changed.hold_policy, changed.hosted_tools) == (HoldPolicy.EXPECTED, HostedTools.REFUSE)
    assert page.choose(key.id, "Edit").app.text_input(key="key_limit").value == "5"


def test_edit_does_not_overwrite_what_somebody_else_changed(visit: Open, world: World) -> None:
    """The same option: both values are told, and nothing is saved."""
    key = world.key("shared", monthly_limit=usd(500)).key
    page = visit("keys").choose(key.id, "Edit")
    with world.workspace.write() as tx:
        keys.update(tx, key.id, monthly_limit=usd(5))
    page.type("key_limit", "700")
    assert "monthly limit usd is 5, and was 500" in page.click("confirm").text
    assert stored(world, key.id).monthly_limit == usd(5)


def test_a_key_is_found_by_owner_label_and_note(visit: Open, world: World) -> None:
    """And its details say all of them."""
    key = world.key("app", owner="search team", labels=["nightly"], note="for the crawler").key
    world.key("other")
    page = visit("keys")
    for typed in ("SEARCH", "nightly", "crawler"):
        page.type("key_search", typed)
        page.run()
        assert page.actions(key.id)
        assert "1 key ·" in page.text
    page.choose(key.id, "Details")
    for part in ("search team", "nightly", "for the crawler"):
        assert part in page.text


def test_stopping_a_key_says_what_it_did_lately(visit: Open, world: World) -> None:
    """Calls of the last day, those under way, and this month's spend."""
    key = world.key("busy").key
    append(world.workspace.store, [row(key, utc_now(), cost=usd(3))])
    for act in ("Rotate", "Disable", "Delete"):
        page = visit("keys").choose(key.id, act)
        assert "1 call in the last 24 hours, $3.00 ; 0 calls under way" in page.text


def test_details_show_options_and_history(visit: Open, world: World) -> None:
    """Details name the id, who made the key, and every act on it."""
    key = world.key("known").key
    with world.workspace.write() as tx:
        keys.disable(tx, key.id, confirm="known", reason="holidays")
    text = visit("keys").choose(key.id, "Details").text
    for part in (key.id, key.display, "all models of the plan", "admin@keydesk.local", "disable", "holidays"):
        assert part in text


def test_analyst_sees_keys_and_no_buttons(visit: Open, world: World) -> None:
    """An analyst reads the list; nothing on it offers a change."""
    key = world.key("watched").key
    page = visit("keys", Role.ANALYST)
    assert "watched" in page.text
    assert not page.has_button("create")
    assert page.actions(key.id) == ["Details"]


def test_org_admin_sees_its_own_organisation_only(visit: Open, world: World) -> None:
    """An org admin sees its keys, is not asked for an organisation, and may use the plans its keys have."""
    other_org(world)
    world.key("our-key")
    page = visit("keys", Role.ORG_ADMIN, world.org_id)
    assert "our-key" in page.text
    assert "their-key" not in page.text
    page.click("create")
    assert {box.key for box in page.app.selectbox} == {"key_plan"}
    page.type("key_name", "by-org-admin")
    page.click("confirm")
    assert stored(world, "by-org-admin").created_by == f"org_admin-{world.org_id}@keydesk.test".lower()


def test_org_admin_without_a_plan_is_told_whom_to_ask(visit: Open, world: World) -> None:
    """Before the platform has assigned a plan the dialog says who does."""
    page = visit("keys", Role.ORG_ADMIN, world.org_id).click("create")
    assert "A platform admin creates its first key." in page.text
    assert page.app.button(key="confirm").disabled


def test_what_a_tab_holds_is_dropped_with_the_sign_in(
    visit: Open, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open secret is gone in the first run that is for another sign-in, be it of the same person."""
    key = world.key("guarded").key
    page = visit("keys").choose(key.id, "Rotate").click("confirm")
    (secret,) = {code.value for code in page.app.code if code.value.startswith("sk-")}
    assert secret in page.run().text
    email = f"{Role.PLATFORM_ADMIN}-None@keydesk.test".lower()
    again = identity.seal(open_session(world.workspace.store, email, PASSWORD, "test"))
    monkeypatch.setattr(ContextProxy, "headers", {streamlit_sessions.HEADER: again})
    assert secret not in page.run().text
    assert "Copy the secret now." not in page.text
    assert "guarded" in page.text


def test_rights_are_the_services_word(visit: Open, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a right is lost while a dialog is open, it closes, says so, and nothing has happened."""
    key = world.key("guarded").key
    page = visit("keys", Role.ORG_ADMIN, world.org_id).choose(key.id, "Disable")
    with world.workspace.write() as tx:
        operator = operators.with_email(tx, f"org_admin-{world.org_id}@keydesk.test")
        assert operator
        operator.role = Role.ANALYST
    page.click("confirm")
    assert "Your rights have changed, so what was open here has been closed." in page.text
    assert stored(world, "guarded").status == KeyStatus.ACTIVE


def test_details_name_nobody_of_the_platform_to_an_organisation(visit: Open, world: World) -> None:
    """Its people read "platform"; the platform reads the name."""
    key = world.key("app").key
    assert "admin@keydesk.local" in visit("keys").choose(key.id, "Details").text
    text = visit("keys", Role.ANALYST, world.org_id).choose(key.id, "Details").text
    assert "admin@keydesk.local" not in text
    assert "by platform" in text


def test_a_suspended_organisations_keys_are_shown_as_such(visit: Open, world: World) -> None:
    """In the list and in the details; a disabled key stays disabled, as its callers are told."""
    key, other = world.key("app").key, world.key("other").key
    with world.workspace.write() as tx:
        keys.disable(tx, other.id, confirm="other")
        organisations.suspend(tx, "Acme", confirm="Acme")
    page = visit("keys", Role.ORG_ADMIN, world.org_id)
    assert "Org suspended" in page.text
    assert "Disabled" in page.text
    assert "0 active" in page.text
    assert "app Org suspended" in page.choose(key.id, "Details").text


def test_an_edit_keeps_a_scope_that_is_not_served_now(visit: Open, world: World) -> None:
    """A form that left such a model out would leave the scope empty, which is every model of the plan."""
    key = world.key("app", models=["gpt-test"]).key
    with world.workspace.write() as tx:
        organisations.add(tx, "Borealis")
        add_upstream(
            tx, "own", Dialect.OPENAI, "http://127.0.0.1:1/v1", credential_env="BOREALIS_API_KEY", org="Borealis"
        )
        models.update_model(tx, "gpt-test", upstream="own")
    page = visit("keys").choose(key.id, "Edit")
    page.app.text_area(key="key_note").set_value("a note")
    page.click("confirm")
    assert (stored(world, "app").scope, stored(world, "app").note) == ('["gpt-test"]', "a note")


def test_a_key_is_stopped_though_the_ledger_does_not_answer(visit: Open, world: World) -> None:
    """What it did lately cannot be told then, and is no reason to let it go on."""
    key = world.key("leaked").key
    append(world.workspace.store, [row(key, utc_now(), cost=3)])
    world.workspace.ledger.sync()
    for segment in Path(world.workspace.settings.ledger_root).rglob("*.parquet"):
        segment.write_bytes(b"no parquet")
    page = visit("keys").choose(key.id, "Disable")
    assert "The ledger does not say now" in page.text
    page.click("confirm")
    assert stored(world, "leaked").status == KeyStatus.DISABLED
