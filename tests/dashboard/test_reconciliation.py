"""The page Reconciliation: what each role sees of the last run, of stuck holds, overruns and hold accuracy."""

import re
from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.books import Books
from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from toolkit.admin import keys, organisations, wallet
from toolkit.checks import reconcile
from toolkit.core.policy import Role
from toolkit.dashboard import reconciliation
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]
HOUR = timedelta(hours=1)


@pytest.fixture
def books(world: World) -> Books:
    """Empty books, with a gateway that lives."""
    books = Books(world)
    books.gateway("gateway_lives")
    return books


@pytest.fixture
def theirs(world: World) -> ApiKey:
    """A key of another organisation, which has money too."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis")
        wallet.credit(tx, other.id, usd(900), "first")
        return keys.create(tx, world.workspace.keyring, org=other.id, name="their-key", plan=world.plan_id).key


def test_nothing_yet_says_the_next_step(visit: Open) -> None:
    """Before the first run and the first call each part says what there will be and what to do."""
    text = visit("reconciliation").text
    assert "The books have not been checked yet. Press Run now; it reads only" in text
    assert "No hold is stuck. No call is under way." in text
    assert "No call cost more than its hold in this period." in text
    assert "No call was charged in this period. Choose a longer period above." in text


def test_a_run_shows_its_result(visit: Open, world: World, books: Books) -> None:
    """Run now checks the books and shows when, by whom, how many rows and that nothing was wrong."""
    books.settle(world.key().key, usd(1), at=utc_now() - HOUR)
    page = visit("reconciliation").click("run_now")
    assert "Last run just now by platform_admin-none@keydesk.test" in page.text
    assert "Result Clean no violation was found Rows checked 1 of the request log" in page.text
    assert [toast.value for toast in page.app.toast] == ["The books balance\\."]
    assert "Each wallet's settlements are the sum of its calls invariant I3 1 ok" in page.text


def test_violations_are_spelled_out(visit: Open, world: World, books: Books) -> None:
    """What is wrong stands there in a sentence beside what must hold."""
    books.execute("UPDATE organisation SET settled = settled + 5")
    page = visit("reconciliation").click("run_now")
    assert re.search(r"Result 1 failed of \d+ checks; details below", page.text)
    assert (
        "Each wallet's settlements are the sum of its calls invariant I3 "
        "Acme: the wallet settled 0.000000005 USD, its calls cost 0 USD." in page.text
    )
    assert not page.app.toast


def test_a_reader_of_all_sees_the_last_run_but_starts_none(visit: Open, world: World, books: Books) -> None:
    """An analyst of all organisations reads what the platform's run found."""
    text = visit("reconciliation", Role.ANALYST).text
    assert "A platform admin starts the check here, or with keydesk reconcile." in text
    books.execute("UPDATE organisation SET settled = settled + 5")
    reconcile.run(world.workspace)
    page = visit("reconciliation", Role.ANALYST)
    assert "Acme: the wallet settled 0.000000005 USD" in page.text
    assert not page.has_button("run_now")


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_one_organisation_sees_nothing_of_the_others(
    visit: Open, world: World, books: Books, theirs: ApiKey, role: Role
) -> None:
    """Neither the findings nor the holds, overruns and figures of another organisation are on the page."""
    at = utc_now() - 2 * HOUR
    books.settle(theirs, usd(7), held=usd(4), at=at)
    books.hold(theirs, usd(6), at=at, instance="gateway_died")
    ours = world.key("our-key").key
    books.settle(ours, usd(3), held=usd(2), at=at)
    books.hold(ours, usd(1), at=at, instance="gateway_died")
    books.execute("UPDATE organisation SET settled = settled + 5 WHERE name = 'Borealis'")
    reconcile.run(world.workspace)
    page = visit("reconciliation", role, world.org_id)
    text = page.text
    assert "Result Not clean a platform admin sees the details" in text
    assert "1 overrun, $1.00 beyond what was held" in text
    assert "$1.00 in 1 stuck hold." in text
    assert "our-key" in text
    for secret in ("their-key", "Borealis", "Rows checked", "$7.00", "$6.00", "What is wrong", "All checks"):
        assert secret not in text
    assert not page.app.selectbox
    assert not page.has_button("run_now")

    everything = visit("reconciliation").text
    for shown in ("their-key", "Borealis", "$7.00", "$6.00"):
        assert shown in everything


def test_stuck_holds_are_listed_with_age_and_gateway(visit: Open, world: World, books: Books) -> None:
    """A hold of a dead gateway and one older than an hour are listed, the oldest first; a call under way is not."""
    key, now = world.key("app").key, utc_now()
    books.hold(key, usd(1), at=now - timedelta(minutes=2), instance="gateway_lives")
    assert "No hold is stuck. Held for 1 call under way: $1.00" in visit("reconciliation").text
    books.hold(key, usd(2), at=now - timedelta(minutes=5), instance="gateway_died")
    books.hold(key, usd(4), at=now - timedelta(minutes=185), instance="gateway_lives")
    text = visit("reconciliation").text
    assert "app Acme gpt-test $4.00 3 h ago gateway_lives old" in text
    assert "app Acme gpt-test $2.00 5 min ago gateway_died orphaned" in text
    assert text.index("$4.00 3 h ago") < text.index("$2.00 5 min ago")
    assert "$1.00" not in text
    assert "$6.00 in 2 stuck holds." in text


def test_overruns_lead_to_their_requests(visit: Open, world: World, books: Books) -> None:
    """Each overrun has held, charged and the difference, and its id is a link to the request."""
    at = utc_now() - HOUR
    books.settle(world.key("fits").key, usd(8), held=usd(9), at=at)
    wanted = books.settle(world.key("app").key, usd(5), held=usd(3), at=at)
    page = visit("reconciliation")
    assert f"{wanted} 1 h ago app Acme gpt-test $3.00 $5.00 $2.00" in page.text
    assert "1 overrun, $2.00 beyond what was held; all was charged." in page.text
    assert any(f'<a href="requests?id={wanted}" target="_self">' in element.value for element in page.app.html)


def test_more_overruns_than_fit_are_counted(visit: Open, world: World, books: Books) -> None:
    """The newest are listed, all are summed up."""
    key, at = world.key("app").key, utc_now() - HOUR
    for number in range(reconciliation.MOST_OVERRUNS + 2):
        books.settle(key, usd(2), held=usd(1), at=at + number * timedelta(seconds=1))
    text = visit("reconciliation").text
    assert "27 overruns, $27.00 beyond what was held; all was charged. The newest 25 are shown." in text


def test_hold_accuracy_per_key_and_model(visit: Open, world: World, books: Books) -> None:
    """Calls, held, charged and their ratio stand for each key and model, with its overruns."""
    app, at = world.key("app").key, utc_now() - HOUR
    books.settle(app, usd(2), held=usd(5), at=at)
    books.settle(app, usd(2), held=usd(4), at=at)
    books.settle(app, usd(4), held=usd(3), at=at, model="claude-test")
    text = visit("reconciliation").text
    assert "app Acme gpt-test 2 $9.00 $4.00 2.25× 0" in text
    assert "app Acme claude-test 1 $3.00 $4.00 0.75× 1 · $1.00" in text


def test_period_and_organisation_narrow_the_figures(visit: Open, world: World, books: Books, theirs: ApiKey) -> None:
    """Calls before the chosen period, and those of other organisations than the chosen one, are left out."""
    books.settle(world.key("app").key, usd(5), held=usd(3), at=utc_now() - timedelta(days=20))
    books.settle(theirs, usd(9), held=usd(3), at=utc_now() - HOUR)
    page = visit("reconciliation")
    assert "2 overruns, $8.00 beyond" in page.text
    page.app.segmented_control(key="reconciliation_period").set_value("7 days")
    assert "1 overrun, $6.00 beyond" in page.run().text
    page.app.selectbox(key="reconciliation_org").set_value(world.org_id)
    assert "No call cost more than its hold in this period." in page.run().text
