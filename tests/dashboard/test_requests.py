"""The page Requests: search, filters, paging, and the arithmetic of one request."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.books import Books
from tests.conftest import World, usd
from tests.dashboard.conftest import Visit
from tests.rows import append, row
from toolkit.admin import keys, organisations
from toolkit.core.policy import Role
from toolkit.core.pricing import PriceSheet, charge
from toolkit.core.usage import Usage
from toolkit.dashboard import cost_breakdown
from toolkit.dashboard.requests import PAGE_SIZE
from toolkit.statements.corrections import correct
from toolkit.store.tables import ApiKey
from toolkit.store.transaction import utc_now

Open = Callable[..., Visit]

PRICED: dict[str, Any] = {
    "input_tokens": 1_000,
    "cached_input_tokens": 300,
    "cache_write_5m_tokens": 100,
    "output_tokens": 50,
    "input_price": usd(2),
    "cached_input_price": usd(0.5),
    "cache_write_5m_price": usd(2.5),
    "output_price": usd(10),
    "multiplier": 1_250_000,
    "cost": 2_625_000,
}
"""600 × 2 + 300 × 0.5 + 100 × 2.5 + 50 × 10 = 2,100 millionths of a USD; × 1.25 = 0.002625 USD."""


def log(world: World, key: ApiKey, **columns: Any) -> str:
    """Log a request of a second ago; return its id."""
    return append(world.workspace.store, [row(key, columns.pop("at", utc_now() - timedelta(seconds=1)), **columns)])[0]


def test_no_requests_yet_says_the_next_step(visit: Open) -> None:
    """An empty log says how the first request comes about."""
    page = visit("requests")
    page.app.segmented_control(key="request_period").set_value("All")
    assert "No requests yet. Create a key on the page Keys and paste the curl" in page.run().text


def test_list_shows_requests(visit: Open, world: World) -> None:
    """A row has time, key, model, outcome, tokens, duration and cost."""
    key = world.key("app").key
    log(world, key, cost=1_500_000, input_tokens=12_345, output_tokens=678, duration_ms=2_340, stream=True)
    log(world, key, outcome="refused", refusal="model_not_allowed", status=403, model=None)
    text = visit("requests").text
    for part in ("just now", "app Acme", "gpt-test stream", "Completed", "12,345 678 2.34 s $0.001500"):
        assert part in text
    assert "Refused model not allowed" in text


def test_search_by_id_shows_the_request(visit: Open, world: World) -> None:
    """A request is found by its id whatever the filters say, and shows how its cost came about."""
    request_id = log(
        world, world.key("app").key, at=utc_now() - timedelta(days=80), held=usd(0.5), usage_source="reported", **PRICED
    )
    log(world, world.key("other").key)
    page = visit("requests")
    page.type("id", f" {request_id} ")
    text = page.run().text
    for part in (
        request_id,
        "Input 600 $2 $0.0012",
        "Input read from cache 300 $0.5 $0.00015",
        "Input written to cache, 5 min 100 $2.5 $0.00025",
        "Output 50 $10 $0.0005",
        "Base price $0.0021",
        "1.25× price multiplier of",
        "Charged $0.002625",
        "Held before the call $0.50",
        "reported by the upstream",
        "First byte after",
        "Took",
    ):
        assert part in text
    assert "do not add up" not in text
    assert "other" not in text


def test_a_corrected_charge_is_shown_beside_the_first(visit: Open, world: World) -> None:
    """The details have what was charged and what it was corrected to, and why; a doubt stands beside the counts."""
    doubt = {"usage_doubt": "no input tokens", "provider_usage": '{"output_tokens":5}'}
    columns = PRICED | doubt | {"request_price": 0, "usage_source": "estimated"}
    request_id = Books(world).settle(world.key("app").key, columns.pop("cost"), at=utc_now(), **columns)
    correct(world.workspace, request_id, 2_000_000, "as the provider billed it", confirm=request_id)
    page = visit("requests")
    page.type("id", request_id)
    text = page.run().text
    assert "Charged $0.002625 Corrected to" in text
    assert "as the provider billed it $0.002" in text
    assert 'Doubt no input tokens Upstream\'s report {"output_tokens":5}' in text


def test_details_show_what_a_call_is_for(visit: Open, world: World) -> None:
    """A call's tags are shown as text, whatever its caller wrote; a call without tags says so."""
    tags = '{"feature":"<b>re</b>rank","team":"search"}'
    tagged, plain = (log(world, world.key(name).key, tags=of_call) for name, of_call in (("a", tags), ("b", None)))
    for request_id, shown in ((tagged, "Tags feature=<b>re</b>rank, team=search Call"), (plain, "Tags – Call")):
        page = visit("requests")
        page.type("id", request_id)
        assert shown in page.run().text


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"service_tier": "priority", "inference_geo": "us"}, "Served by priority · us Upstream's id"),
        ({"inference_geo": "us"}, "Served by us Upstream's id"),
        ({}, "Served by – Upstream's id"),
    ],
)
def test_details_show_which_tier_and_region_served(
    visit: Open, world: World, columns: dict[str, str], shown: str
) -> None:
    """As far as the provider says."""
    page = visit("requests")
    page.type("id", log(world, world.key("app").key, **columns))
    assert shown in page.run().text


def test_unknown_id_says_where_ids_stand(visit: Open) -> None:
    """An id that is not there gets an explanation, not an empty page."""
    page = visit("requests")
    page.type("id", "req_nope")
    assert "No request has this id." in page.run().text


def test_row_opens_its_details(visit: Open, world: World) -> None:
    """Pressing a row's id shows the request, with the reason of a refusal in words."""
    request_id = log(
        world,
        world.key("app").key,
        outcome="refused",
        refusal="billing_shortfall",
        status=402,
        error="needs 0.5 USD, 0.1 left",
    )
    page = visit("requests").click(f"open_{request_id}")
    for part in ("Refused HTTP 402", "The organisation's wallet has no room for this call.", "needs 0.5 USD, 0.1 left"):
        assert part in page.text


def test_row_that_does_not_add_up_is_pointed_out(visit: Open, world: World) -> None:
    """If lines and cost differ, the page says so and what to run."""
    request_id = log(world, world.key("app").key, **PRICED | {"cost": 2_625_001})
    page = visit("requests")
    page.type("id", request_id)
    assert "These lines make $0.002625. Run keydesk reconcile." in page.run().text


@pytest.mark.parametrize(
    ("box", "value"), [("request_model", "claude-test"), ("request_outcome", "aborted"), ("request_key", "")]
)
def test_filters(visit: Open, world: World, box: str, value: str) -> None:
    """Each filter keeps what fits and leaves out the rest; a deleted key can be chosen too."""
    wanted = world.key("wanted").key
    log(world, wanted, model="claude-test", outcome="aborted", cost=usd(3))
    log(world, world.key("unwanted").key, cost=usd(4))
    with world.workspace.write() as tx:
        keys.delete(tx, wanted.id, confirm="wanted")
    page = visit("requests")
    assert {"$3.000000", "$4.000000"} <= set(page.text.split())
    page.app.selectbox(key=box).set_value(value or wanted.id)
    text = page.run().text
    assert "wanted (deleted)" in text
    assert "$3.000000" in text
    assert "$4.000000" not in text
    page.app.selectbox(key="request_outcome").set_value("upstream_error")
    assert "No request matches." in page.run().text


def test_paging(visit: Open, world: World) -> None:
    """More requests than fit are reached with Older and Newer; a filter starts at the newest again."""
    key, now = world.key("app").key, utc_now()
    rows = [row(key, now - timedelta(minutes=minute + 1), cost=usd(minute + 1)) for minute in range(PAGE_SIZE + 3)]
    append(world.workspace.store, rows)
    page = visit("requests")
    assert f"1–{PAGE_SIZE}, newest first" in page.text
    assert "$28.00" not in page.text
    page.click("older")
    assert f"{PAGE_SIZE + 1}–{PAGE_SIZE + 3}, newest first" in page.text
    assert "$28.00" in page.text
    assert page.app.button(key="older").disabled
    page.app.selectbox(key="request_model").set_value("gpt-test")
    assert f"1–{PAGE_SIZE}, newest first" in page.run().text


def test_org_admin_finds_no_foreign_request(visit: Open, world: World) -> None:
    """Another organisation's request is neither listed nor found by id."""
    with world.workspace.write() as tx:
        other = organisations.add(tx, "Borealis")
        theirs = keys.create(tx, world.workspace.keyring, org=other.id, name="their-key", plan=world.plan_id).key
    foreign = log(world, theirs)
    log(world, world.key("our-key").key)
    page = visit("requests", Role.ORG_ADMIN, world.org_id)
    assert "our-key" in page.text
    assert "their-key" not in page.text
    page.type("id", foreign)
    assert "No request has this id." in page.run().text


amounts = st.integers(0, 10**7)
prices = st.integers(0, 10**12)


@given(amounts, amounts, amounts, amounts, amounts, prices, prices, prices, prices, st.integers(0, 10**10))
def test_the_breakdown_makes_the_charge(
    fresh: int, cached: int, write: int, hour: int, output: int, price: int, low: int, middle: int, high: int, fee: int
) -> None:
    """Whatever was used at whatever price, the breakdown's lines make exactly what `pricing.charge` charges."""
    usage = Usage(fresh + cached + write + hour, cached, write, hour, output)
    sheet = PriceSheet.flat(price, high, low, middle, price, fee)
    bill = cost_breakdown.of(
        {
            "input_tokens": usage.input_tokens,
            "cached_input_tokens": cached,
            "cache_write_5m_tokens": write,
            "cache_write_1h_tokens": hour,
            "output_tokens": output,
            "input_price": price,
            "cached_input_price": low,
            "cache_write_5m_price": middle,
            "cache_write_1h_price": price,
            "output_price": high,
            "request_price": fee,
            "multiplier": 1_234_567,
        }
    )
    assert bill.cost == charge(usage, sheet, 1_234_567)
    assert sum((line.amount for line in bill.lines), Decimal(0)) == bill.base


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_the_filter_names_no_other_tenants_models(visit: Open, world: World, role: Role) -> None:
    """People of one organisation choose among the models of its keys' plans; the platform among all."""
    world.key("app")
    assert "other-test" in visit("requests").app.selectbox(key="request_model").options
    offered = visit("requests", role, world.org_id).app.selectbox(key="request_model").options
    assert "gpt-test" in offered
    assert "other-test" not in offered
