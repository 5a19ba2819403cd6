"""The pages Models & prices and Plans: what each role sees, and what a platform admin changes."""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World
from tests.dashboard.conftest import Visit
from tests.reports.test_attribution import called
from tests.rows import append
from toolkit.admin import model_routes, models, plans, prices, upstreams
from toolkit.admin.model_routes import RouteWay
from toolkit.core.dialect import Dialect
from toolkit.core.money import NANO, parse_usd
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet, Tier, charge
from toolkit.core.usage import Usage
from toolkit.dashboard import price_calculator
from toolkit.store.tables import Plan
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]
COUNTS = st.integers(0, 5_000_000)
PRICES = st.integers(0, 10**12)
TIERS = st.builds(Tier, st.just(0), PRICES, PRICES, PRICES, PRICES, PRICES)


def seen(page: Visit) -> str:
    return " ".join(str(frame.value.to_csv()) for frame in page.app.dataframe)


def opened(page: Visit, dialog: str, subject: str = "") -> Visit:
    """Open a dialog, as its button or choosing a row does."""
    page.app.session_state["dialog"] = (dialog, subject)
    return page.run()


def plan_of(world: World) -> Plan:
    with world.workspace.read() as tx:
        return plans.find(tx, world.plan_id)


def test_a_price_is_entered_and_a_model_added(visit: Open, world: World) -> None:
    """Both prices are needed; a public model needs none."""
    page = opened(visit("models"), "Enter price", "gpt-test")
    page.type("price_output", "")
    assert "both input and output" in page.click("confirm").text
    page.type("price_input", "0.15")
    page.type("price_output", "0.60")
    assert "holds from" in page.click("confirm").text
    with world.workspace.read() as tx:
        entry = prices.list_prices(tx, "gpt-test")[-1]
    tier = PriceSheet.from_json(entry.sheet).tiers[0]
    assert (tier.input, tier.output) == (150_000_000, 600_000_000)
    page.click("add_model")
    page.type("model_id", "gpt-5-mini")
    page.app.selectbox(key="model_upstream").select("test-openai")
    assert "priced from genai-prices" in page.click("confirm").text
    with world.workspace.read() as tx:
        assert "gpt-5-mini" in [model.id for model in models.list_models(tx)]
    assert "gpt-5-mini" in opened(page, "Model", "gpt-5-mini").text
    assert "in force" in seen(page)


def test_copied_prices_that_are_up_to_date_need_nothing(visit: Open, world: World) -> None:
    """It is said; there is nothing to enter."""
    page = visit("models").click("compare")
    assert "as genai-prices has them" in page.text
    assert not page.has_button("confirm")


def test_a_copied_price_that_is_not_is_entered(visit: Open, world: World) -> None:
    """With what it would have done to last month's calls beside it."""
    with world.workspace.write() as tx:
        models.add_model(tx, "gpt-5-mini", "test-openai")
        old = prices.list_prices(tx, "gpt-5-mini")[-1]
        old.sheet = PriceSheet.flat(1, 1).to_json()
    page = visit("models").click("compare")
    assert "input" in page.text
    assert "1 price entered" in page.click("confirm").text


def test_what_is_published_otherwise_is_to_look_at(visit: Open, world: World) -> None:
    """The model's dialog leads to the comparison; of organisations nobody is told."""
    with world.workspace.write() as tx:
        models.add_model(tx, "gpt-5-mini", "test-openai")
        prices.list_prices(tx, "gpt-5-mini")[-1].sheet = PriceSheet.flat(1, 1).to_json()
        plans.update(tx, world.plan_id, models=["gpt-5-mini", "gpt-test"])
    page = visit("models")
    assert "1 model to look at" in page.text
    page.app.segmented_control(key="prices").set_value("To look at")
    assert "published otherwise" in seen(page.run())
    assert "gpt-test" not in seen(page)
    opened(page, "Model", "gpt-5-mini")
    assert "has another price" in page.text
    assert "Enter 1 price" in page.click("compare_prices_here").text
    other = visit("models", Role.ORG_ADMIN, world.org_id)
    assert "to look at" not in other.text
    assert "Published" not in seen(other)


def test_a_model_without_a_price_takes_that_of_its_route(visit: Open, world: World) -> None:
    """Until then nobody can call it, which is said."""
    with world.workspace.write() as tx:
        later = tx.now + timedelta(days=1)
        models.add_model(tx, "later", "test-openai", sheet=PriceSheet.flat(1, 1), valid_from=later)
        upstreams.add_upstream(tx, "second", Dialect.OPENAI, "http://127.0.0.1:9", "SECOND_API_KEY")
    page = visit("models")
    assert "1 model without a price: nobody can call it" in page.text
    with world.workspace.write() as tx:
        ways = [RouteWay("test-openai"), RouteWay("second", price_model="gpt-test")]
        model_routes.set_route(tx, "later", ways)
    assert "without a price" not in page.run().text
    assert "the price of gpt-test, by its route" in seen(page)


def test_a_price_is_not_entered_over_one_that_was_not_seen(visit: Open, world: World) -> None:
    """Both are told; the book keeps the other's."""
    page = opened(visit("models"), "Enter price", "gpt-test")
    with world.workspace.write() as tx:
        other = prices.set_price(tx, "gpt-test", PriceSheet.flat(7_000_000_000, 9_000_000_000)).id
    page.type("price_input", "0.15")
    told = page.click("confirm").text
    assert "price in force is input $7.00" in told
    assert "and was input" in told
    with world.workspace.read() as tx:
        assert prices.list_prices(tx, "gpt-test")[-1].id == other


def test_a_model_is_changed_as_it_was_seen(visit: Open, world: World) -> None:
    """What it is called upstream, and its limits; not over what somebody else has changed."""
    page = opened(visit("models"), "Change model", "gpt-test")
    page.type("changed_upstream_model", "gpt-next")
    page.app.number_input(key="changed_max_output").set_value(30_000)
    assert "gpt-test is saved" in page.click("confirm").text
    opened(page, "Change model", "gpt-test")
    with world.workspace.write() as tx:
        assert models.find(tx, "gpt-test").upstream_model == "gpt-next"
        assert models.find(tx, "gpt-test").max_output == 30_000
        models.update_model(tx, "gpt-test", max_output=20_000)
    page.app.number_input(key="changed_max_output").set_value(25_000)
    assert "max output is 20000, and was 30000" in page.click("confirm").text
    with world.workspace.read() as tx:
        assert models.find(tx, "gpt-test").max_output == 20_000


@given(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS), TIERS, st.integers(0, 10**9), st.integers(0, 3_000_000))
def test_the_calculator_ends_in_the_charge(
    counts: tuple[int, int, int, int, int], tier: Tier, fee: int, multiplier: int
) -> None:
    """Its lines add up to what is charged, to within the last rounding."""
    fresh, cached, write_5m, write_1h, output = counts
    usage = Usage(fresh + cached + write_5m + write_1h, cached, write_5m, write_1h, output)
    sheet = PriceSheet((tier,), fee)
    shown = price_calculator.lines(sheet, usage, multiplier)
    charged = charge(usage, sheet, multiplier)
    (total,) = re.findall(r"<b>\$([\d,.]+)</b>", shown)
    assert parse_usd(total) == charged
    cells = re.findall(r'kd-right">(-?)\$([\d,.]+)</td></tr>', shown)  # the charge's own cell holds markup
    amounts = [Decimal(f"{sign}{figure.replace(',', '')}") for sign, figure in cells]
    assert abs(sum(amounts, Decimal(0)) * 10**9 - charged) <= Decimal("0.5")


def test_a_plan_is_added_and_changed(visit: Open, world: World) -> None:
    """The preview has what a key pays: price times multiplier."""
    page = visit("plans").click("add_plan")
    page.type("plan_name", "Dear")
    page.type("plan_multiplier", "2")
    page.app.multiselect(key="plan_models").set_value(["gpt-test"])
    assert "Dear is added" in page.click("confirm").text
    with world.workspace.read() as tx:
        dear = plans.find(tx, "Dear")
    opened(page, "Change plan", dear.id)
    page.type("plan_multiplier", "2.5")
    assert "made no call" in page.click("confirm").text
    page.click("confirm")
    with world.workspace.read() as tx:
        assert plans.find(tx, "Dear").multiplier == 2_500_000
        sheet = PriceSheet.from_json(prices.list_prices(tx, "gpt-test")[-1].sheet)
    shown = opened(page, "Plan", dear.id).app.dataframe[-1].value
    assert shown[["Model", "Input"]].values.tolist() == [["gpt-test", sheet.tiers[0].input * 2.5 / NANO]]


def test_a_change_of_a_plan_is_saved_only_as_its_effect_was_shown(visit: Open, world: World) -> None:
    """Whose keys have it, what last month would have cost, and which calls would have been refused."""
    app = world.key("app").key
    at = utc_now().replace(day=1) - timedelta(days=1)
    append(world.workspace.store, [called(app, at, 1_000_000), called(app, at, 1_000_000, model="claude-test")])
    world.workspace.ledger.sync()
    page = opened(visit("plans"), "Change plan", world.plan_id)
    assert "1 key of Acme has" in page.text
    page.type("plan_multiplier", "3")
    page.app.multiselect(key="plan_models").set_value(["gpt-test"])
    told = page.click("confirm").text.replace(" :", ":").replace(" ,", ",")
    assert "were charged $4.00, and would have cost $6.00: $2.00 more" in told
    assert "1 call, charged $2.00, would have been refused for the model" in told
    page.type("plan_multiplier", "0.5")
    assert "would have cost $1.00 : $3.00 less" in page.click("confirm").text
    assert plan_of(world).multiplier == 1_250_000
    page.click("confirm")
    assert plan_of(world).multiplier == 500_000


def test_a_plan_that_was_changed_meanwhile_is_not_overwritten(visit: Open, world: World) -> None:
    """Both values are told, and nothing is saved."""
    page = opened(visit("plans"), "Change plan", world.plan_id)
    with world.workspace.write() as tx:
        plans.update(tx, world.plan_id, multiplier=3_000_000)
    page.type("plan_multiplier", "2")
    page.click("confirm")
    assert "multiplier is 3.00×, and was 1.25×" in page.click("confirm").text
    assert plan_of(world).multiplier == 3_000_000


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_others_look_and_change_nothing(visit: Open, world: World, role: Role) -> None:
    """Dialogs that change do not open, whatever a browser asks for."""
    page = visit("models", role, world.org_id)
    assert "gpt-test" in seen(page)
    assert not opened(page, "Model", "gpt-test").has_button("enter_price_here")
    for name in ("Enter price", "Add model", "Compare prices", "Change model"):
        assert not opened(page, name, "gpt-test").has_button("confirm")
    page = visit("plans", role, world.org_id)
    for name in ("Change plan", "Add plan"):
        assert not opened(page, name, world.plan_id).has_button("confirm")
    assert not page.has_button("add_plan")
