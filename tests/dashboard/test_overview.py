"""The page Overview: what each role sees, and that a new call shows."""

from collections.abc import Callable
from datetime import timedelta

from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from tests.rows import append, row
from toolkit.admin import keys, organisations, sessions, wallet
from toolkit.core.policy import Role
from toolkit.dashboard import identity, streamlit_sessions
from toolkit.dashboard.overview import TOP
from toolkit.store.tables import ApiKey, Organisation
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]


def call(world: World, key: ApiKey, cost: int, *, days_ago: int = 0, **columns: object) -> None:
    """Log a call and count it in the wallet, as a settlement does."""
    at = utc_now() - timedelta(days=days_ago, seconds=1)
    append(world.workspace.store, [row(key, at, cost=cost, input_tokens=1000, output_tokens=200, **columns)])
    with world.workspace.write() as tx:
        org = tx.session.get(Organisation, key.org_id)
        assert org
        org.settled += cost


def test_no_calls_yet_says_the_next_step(visit: Open) -> None:
    """A new installation shows its wallet and what to do first."""
    text = visit("overview").text
    assert "Wallet available $100.00" in text
    assert "No calls yet." in text
    assert "create a key on the page Keys, then paste the curl" in text


def test_figures_of_the_month(visit: Open, world: World) -> None:
    """Wallet, held, spend, calls and refusals of this month, in the amounts of the rows."""
    key = world.key("app").key
    call(world, key, usd(3.25))
    call(world, key, usd(1.5))
    call(world, key, 0, outcome="upstream_error", refusal="upstream_error")
    call(world, key, 0, outcome="refused", refusal="api_key_quota_exceeded")
    with world.workspace.write() as tx:
        org = tx.session.get(Organisation, world.org_id)
        assert org
        org.held = usd(10)
    text = visit("overview").text
    month = f"{utc_now() - timedelta(seconds=2):%B}"
    assert "Wallet available $85.25 $95.25 balance − $10.00 held" in text
    assert f"Spent in {month} $4.75" in text
    assert f"Calls in {month} 3 3,000 tokens in, 600 out" in text
    assert f"Refused in {month} 1 1 upstream error" in text


def test_top_keys_models_and_refusals(visit: Open, world: World) -> None:
    """Keys and models stand with their spend, the dearest first; refusals with reason and key."""
    call(world, world.key("cheap").key, usd(1), model="gpt-test")
    call(world, world.key("dear").key, usd(7), model="claude-test")
    call(world, world.key("capped").key, 0, outcome="refused", refusal="api_key_quota_exceeded")
    page = visit("overview")
    text = page.text
    assert text.index("dear") < text.index("cheap")
    assert text.index("claude-test") < text.index("gpt-test")
    assert "$8.00 in all" in text
    assert "api_key_quota_exceeded capped 1 just now" in text
    assert len(page.app.get("plotly_chart")) == 2


def test_one_key_more_than_fits_is_named(visit: Open, world: World) -> None:
    """The table sums up two keys or more; a single one stands there under its own name."""
    for position in range(TOP + 1):
        call(world, world.key(f"app-{position}").key, usd(position + 1))
    text = visit("overview").text
    assert "app-0 Acme 1 $1.00" in text
    assert " more " not in text
    call(world, world.key("last").key, usd(0.5))
    assert "2 more 2 $1.50" in visit("overview").text


def test_deleted_key_is_still_named(visit: Open, world: World) -> None:
    """A deleted key keeps its place in the table of spend."""
    key = world.key("gone").key
    call(world, key, usd(2))
    with world.workspace.write() as tx:
        keys.delete(tx, key.id, confirm="gone")
    assert "gone (deleted)" in visit("overview").text


def test_period_narrows_tables(visit: Open, world: World) -> None:
    """Calls before the chosen period are left out of the tables."""
    key = world.key("app").key
    call(world, key, usd(1))
    call(world, key, usd(40), days_ago=20)
    page = visit("overview")
    assert "$41.00 in all" in page.text
    page.app.segmented_control(key="overview_period").set_value("7 days")
    assert "$1.00 in all" in page.run().text


def test_new_call_shows_at_the_next_run(visit: Open, world: World) -> None:
    """Figures are kept only as long as nothing has happened: the next run has the new call's spend."""
    key = world.key("app").key
    call(world, key, usd(1))
    page = visit("overview")
    assert "$1.00 in all" in page.text
    call(world, key, usd(2))
    text = page.run().text
    assert "$3.00 in all" in text
    assert "Wallet available $97.00" in text


def test_empty_wallet_says_what_to_do(visit: Open, world: World) -> None:
    """With nothing left the card says that calls are refused, and the cure: an org admin must ask for it."""
    with world.workspace.write() as tx:
        wallet.adjust(tx, world.org_id, -usd(100), "r", "closing")
    assert "calls are refused: credit the wallet" in visit("overview").text
    text = visit("overview", Role.ORG_ADMIN, world.org_id).text
    assert "calls are refused: ask a platform admin to credit the wallet" in text


def test_org_admin_sees_its_own_organisation_only(visit: Open, world: World) -> None:
    """Neither the other organisation's wallet nor its keys reach an org admin's page; a platform admin sees both."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis")
        wallet.credit(tx, other.id, usd(900), "first")
        theirs = keys.create(tx, world.workspace.keyring, org=other.id, name="their-key", plan=world.plan_id).key
    call(world, theirs, usd(5))
    call(world, world.key("our-key").key, usd(2))
    page = visit("overview", Role.ORG_ADMIN, world.org_id)
    assert "Wallet available $98.00" in page.text
    assert "our-key" in page.text
    assert "their-key" not in page.text
    assert "$2.00 in all" in page.text
    assert not page.app.selectbox

    page = visit("overview")
    assert "Available in 2 wallets $993.00" in page.text
    page.app.selectbox(key="overview_org").set_value(other.id)
    text = page.run().text
    assert "Wallet available $895.00" in text
    assert "our-key" not in text


def test_sidebar_names_the_person(visit: Open, world: World) -> None:
    """The sidebar says who is signed in, in which role and organisation, and offers to sign out."""
    page = visit("overview", Role.ORG_ADMIN, world.org_id)
    assert f"org_admin-{world.org_id}@keydesk.test Org admin · Acme Sign out".lower() in page.text.lower()
    assert any('<form method="post" action="auth/sign-out">' in element.value for element in page.app.html)


def test_ended_session_shows_nothing(visit: Open, world: World) -> None:
    """A script run without a session shows the way to the form and no figure."""
    page = visit("overview")
    from streamlit.runtime.context import ContextProxy

    given: dict[str, str] = ContextProxy.headers  # type: ignore[assignment]
    sessions.sign_out(world.workspace.store, identity.unseal(given[streamlit_sessions.HEADER]) or "")
    text = page.run().text
    assert "You are signed out. Sign in" in text
    assert "Wallet" not in text
