"""A provider's invoice against our log: each cause by figures worked out by hand; errors that name line and column."""

import contextlib
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import World, examples, usd
from tests.ledgers import kept
from tests.rows import NOON, append, row
from toolkit.admin.model_routes import RouteWay, set_route
from toolkit.admin.models import update_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Forbidden, InvalidInput, NotFound
from toolkit.core.policy import Role
from toolkit.statements import invoice_comparison, invoice_gaps
from toolkit.statements.invoice_calls import OurCalls
from toolkit.statements.invoice_gaps import Cause, Comparison
from toolkit.statements.invoice_lines import read
from toolkit.store.actor import Actor
from toolkit.store.tables import ApiKey

# A token costs 2,000 nano-USD in, 500 from the cache, 10,000 out: 1,000 in and 100 out are 0.003 USD.
PRICES = {"input_price": usd(2), "cached_input_price": usd(0.5), "output_price": usd(10)}
HEADING = "date,model,id,input_tokens,cached_tokens,output_tokens,amount_usd"
THREE = {"input_tokens": 1_000, "output_tokens": 100}


@pytest.fixture
def key(world: World) -> ApiKey:
    """A key."""
    return world.key().key


def call(key: ApiKey, response_id: str | None = None, **columns: Any) -> dict[str, Any]:
    """Return the row of a call that cost 0.003 USD at list price, at a multiplier of 1.25."""
    usual = {"upstream": "test-openai", "response_id": response_id, "usage_source": "reported", "held": usd(1)}
    return row(key, **(usual | PRICES | THREE | {"multiplier": 1_250_000, "cost": 3_750_000} | columns))


def compare(world: World, text: str, **options: Any) -> Comparison:
    """Compare an invoice with November."""
    options = {"upstream": "test-openai", "month": "2026-11"} | options
    return invoice_comparison.compare(world.workspace.ledger, read(text), **options)


def causes(found: Comparison) -> dict[Cause, str]:
    """Return each cause's amount as plain text."""
    return {cause: f"{amount.normalize():f}" for cause, amount in found.total.causes.items()}


def lines(*rows: str, heading: str = HEADING) -> str:
    """Return an invoice."""
    return "\n".join([heading, *rows])


# -- call by call -----------------------------------------------------------------------------------------------------


@pytest.mark.any_store
def test_an_invoice_that_agrees_has_no_gap(world: World, key: ApiKey) -> None:
    """At list price: what our plans multiply by is not the provider's."""
    append(world.workspace.store, [call(key, "a"), call(key, "b", input_tokens=1_100, cached_input_tokens=100)])
    # The cached 100 of 1,100 cost 50,000 nano-USD on top of 0.003 USD.
    found = compare(
        world, lines("2026-11-23,gpt-test,a,1000,0,100,0.003", "2026-11-23,gpt-test,b,1100,100,100,0.00305")
    )
    (gap,) = found.models
    assert (gap.model, gap.our_calls, gap.their_lines) == ("gpt-test", 2, 2)
    assert (gap.ours, gap.theirs) == (Decimal("0.00605"), Decimal("0.00605"))
    assert (gap.gap, gap.causes) == (Decimal(0), {})


def test_an_upstream_of_a_route_bills_its_own_name_of_the_model(world: World, key: ApiKey) -> None:
    """Another upstream of the model bills another name."""
    with world.workspace.write() as tx:
        add_upstream(tx, "second", Dialect.OPENAI, "http://127.0.0.1:9", "TEST_UPSTREAM_API_KEY")
        set_route(tx, "gpt-test", [RouteWay("test-openai"), RouteWay("second", "gpt-b")])
    append(world.workspace.store, [call(key, "a"), call(key, "b", upstream="second")])
    for upstream, line in (("test-openai", "gpt-test,a"), ("second", "gpt-b,b")):
        found = compare(world, lines(f"2026-11-23,{line},1000,0,100,0.003"), upstream=upstream)
        assert [gap.model for gap in found.models] == [line.partition(",")[0]]
        assert found.total.gap == 0
    summed = lines("gpt-b,1000,0,100,0.003", heading="model,input_tokens,cached_tokens,output_tokens,amount_usd")
    assert compare(world, summed, upstream="second").total.gap == 0


ONE = "2026-11-23,gpt-test,a,{input},{cached},{output},{amount}"


@pytest.mark.parametrize(
    ("columns", "counts", "wanted"),
    [
        # 10 more out: 10 x 10,000 nano-USD.
        ({}, (1000, 0, 110, "0.003100"), {Cause.TOKENS: "0.0001"}),
        # 200 of the input from the cache by their count: 200 x (500 − 2,000).
        ({}, (1000, 200, 100, "0.002700"), {Cause.TOKENS: "-0.0003"}),
        # A tenth dearer, with the same tokens.
        ({}, (1000, 0, 100, "0.003300"), {Cause.PRICES: "0.0003"}),
        # Both: 0.0001 by our prices, the rest of 0.0011 is theirs.
        ({}, (1000, 0, 110, "0.004100"), {Cause.TOKENS: "0.0001", Cause.PRICES: "0.001"}),
        # Our token counts were a guess; what we held bounds how far off a guess may be.
        ({"usage_source": "estimated"}, (1000, 0, 200, "0.004000"), {Cause.ESTIMATED: "0.001"}),
        ({"usage_source": "estimated"}, (500, 0, 100, "0.002000"), {Cause.ESTIMATED: "-0.001"}),
        # Held 0.005 at 1.25 is 0.004 at list price: 0.001 beyond the 0.003 charged may be the guess, 0.0005 may not.
        (
            {"usage_source": "estimated", "held": 5_000_000},
            (1000, 0, 250, "0.004500"),
            {Cause.TOKENS: "0.0005", Cause.ESTIMATED: "0.001"},
        ),
        ({"outcome": "aborted", "usage_source": "estimated"}, (1000, 0, 200, "0.004000"), {Cause.UNFINISHED: "0.001"}),
        # We charged nothing for a failed call that they bill.
        (
            {
                "outcome": "upstream_error",
                "usage_source": None,
                "cost": 0,
                **dict.fromkeys((*PRICES, *THREE), 0),
            },
            (1000, 0, 100, "0.003000"),
            {Cause.UNFINISHED: "0.003"},
        ),
        # 1 cached token makes 0.0030005, which they round up to six decimals.
        (
            {"input_tokens": 1_001, "cached_input_tokens": 1, "cost": 3_750_625},
            (1001, 1, 100, "0.003001"),
            {Cause.ROUNDING: "0.0000005"},
        ),
    ],
)
def test_a_call_that_both_have_differs_for_a_cause(
    world: World, key: ApiKey, columns: dict[str, Any], counts: tuple[int, int, int, str], wanted: dict[Cause, str]
) -> None:
    """The amounts are worked out by hand from 2,000, 500 and 10,000 nano-USD a token."""
    append(world.workspace.store, [call(key, "a", **columns)])
    text = ONE.format(**dict(zip(("input", "cached", "output", "amount"), counts, strict=True)))
    assert causes(compare(world, lines(text))) == wanted


def test_calls_that_only_one_side_has(world: World, key: ApiKey) -> None:
    """Both are named; a call that failed and cost nothing is missed by nobody."""
    free = call(key, "c", outcome="upstream_error", usage_source=None, cost=0, **dict.fromkeys((*PRICES, *THREE), 0))
    append(world.workspace.store, [call(key, "a"), free])
    found = compare(world, lines("2026-11-23,gpt-test,x,10,0,10,0.005"))
    assert causes(found) == {Cause.MISSING_FROM_US: "0.005", Cause.MISSING_FROM_THEM: "-0.003"}
    assert found.evidence == {
        Cause.MISSING_FROM_US: ["line 2: x, 0.005 USD"],
        Cause.MISSING_FROM_THEM: ["a, -0.003 USD"],
    }


def test_an_abandoned_call_that_they_bill_is_told_by_model_day_and_hold(world: World, key: ApiKey) -> None:
    """It has no id of theirs; one billed call is taken to be it, another is missing from us."""
    nothing: dict[str, Any] = dict.fromkeys((*PRICES, *THREE), 0)
    abandoned = call(key, None, outcome="abandoned", usage_source=None, cost=0, held=5_000_000, **nothing)
    append(world.workspace.store, [abandoned])
    found = compare(
        world,
        lines(
            "2026-11-23,gpt-test,dear,1,0,1,0.0041",  # the hold was 0.004 at list price
            "2026-11-22,gpt-test,early,1,0,1,0.001",
            "2026-11-23,other-test,elsewhere,1,0,1,0.001",
            "2026-11-23,gpt-test,fits,1,0,1,0.004",
            "2026-11-23,gpt-test,second,1,0,1,0.002",
        ),
    )
    assert causes(found) == {Cause.MISSING_FROM_US: "0.0081", Cause.UNFINISHED: "0.004"}
    assert found.evidence[Cause.UNFINISHED] == [f"line 5: fits, taken to be {abandoned['request_id']}, 0.004 USD"]


def test_a_call_that_is_billed_twice(world: World, key: ApiKey) -> None:
    """The same line again is no second call; lines that differ are parts of one."""
    append(world.workspace.store, [call(key, "a"), call(key, "b")])
    found = compare(
        world,
        lines(
            "2026-11-23,gpt-test,a,1000,0,100,0.003",
            "2026-11-23,gpt-test,a,1000,0,100,0.003",
            "2026-11-23,gpt-test,b,1000,0,0,0.002",
            "2026-11-23,gpt-test,b,0,0,100,0.001",
        ),
    )
    assert causes(found) == {Cause.BILLED_TWICE: "0.003"}
    assert found.evidence == {Cause.BILLED_TWICE: ["line 3: a, as in line 2, 0.003 USD"]}


def test_a_line_of_no_call_is_unexplained(world: World, key: ApiKey) -> None:
    """A fee, a refund: nothing of ours says what it is."""
    append(world.workspace.store, [call(key, "a")])
    found = compare(
        world, lines("2026-11-23,gpt-test,a,1000,0,100,0.003", "2026-11-30,storage,,,,,1.50", "2026-11-30,tax,,,,,-0.2")
    )
    assert causes(found) == {Cause.UNEXPLAINED: "1.3"}
    assert [gap.model for gap in found.models] == ["storage", "tax", "gpt-test"]


def test_our_own_rounding_has_its_part(world: World, key: ApiKey) -> None:
    """A token at 500.5 nano-USD is charged 500, half to even; they bill what it is."""
    columns = {"input_tokens": 1, "output_tokens": 0, "input_price": 500_500_000, "multiplier": 1_000_000, "cost": 500}
    append(world.workspace.store, [call(key, "a", **columns)])
    found = compare(world, lines("2026-11-23,gpt-test,a,1,0,0,0.0000005005"))
    assert causes(found) == {Cause.ROUNDING: "0.0000000005"}


# -- model by model ---------------------------------------------------------------------------------------------------

SUMS = "model,input_tokens,cached_tokens,output_tokens,cost"


@pytest.mark.any_store
def test_lines_without_ids_are_compared_by_model(world: World, key: ApiKey) -> None:
    """Over the month, whatever lines it is spread over; each model has its own causes."""
    append(world.workspace.store, [call(key), call(key), call(key, model="embed-test"), call(key, model="other-test")])
    found = compare(
        world,
        lines(
            "gpt-test,1000,0,100,0.003",
            "gpt-test,1000,0,120,0.0032",
            "embed-test,1000,0,100,0.0033",
            "unheard-of,5,0,5,0.007",
            heading=SUMS,
        ),
    )
    assert {gap.model: gap.causes for gap in found.models} == {
        "unheard-of": {Cause.MISSING_FROM_US: Decimal("0.007")},
        "other-test": {Cause.MISSING_FROM_THEM: Decimal("-0.003")},
        "embed-test": {Cause.PRICES: Decimal("0.0003")},
        "gpt-test": {Cause.TOKENS: Decimal("0.0002")},
    }
    assert found.total.gap == Decimal("0.0045")


def test_a_comparison_is_two_tables_with_totals(world: World, key: ApiKey) -> None:
    """By model and by cause, in nano-USD; nothing that was not found has a line, and nothing compared is no line."""
    append(world.workspace.store, [call(key, "a")])
    found = compare(world, lines("2026-11-23,gpt-test,a,1000,0,110,0.003300", "2026-11-23,other,b,1,0,0,0.0001"))
    assert invoice_gaps.by_model(found).to_numpy().tolist() == [
        ["gpt-test", 1, 1, 3_000_000, 3_300_000, 300_000],
        ["other", 0, 1, 0, 100_000, 100_000],
        ["Total", 1, 2, 3_000_000, 3_400_000, 400_000],
    ]
    assert invoice_gaps.by_cause(found).to_numpy().tolist() == [
        ["calls missing from us", "other", 100_000],
        ["token counts", "gpt-test", 100_000],
        ["prices", "gpt-test", 200_000],
        ["Total", "", 400_000],
    ]
    assert (len(invoice_gaps.by_model(None)), len(invoice_gaps.by_cause(None))) == (0, 0)


def test_guesses_explain_no_more_than_they_can(world: World, key: ApiKey) -> None:
    """Among summed calls, aborted and estimated ones stand for token counts as far as their holds reach."""
    append(
        world.workspace.store,
        [
            call(key),
            call(key, usage_source="estimated", held=5_000_000),  # 0.001 beyond the charge, at list price
            call(key, usage_source="estimated", outcome="aborted", held=4_375_000),  # 0.0005 beyond
        ],
    )
    # 500 more out than the 300 counted: 0.005.
    found = compare(world, lines("gpt-test,3000,0,800,0.014", heading=SUMS))
    assert causes(found) == {Cause.UNFINISHED: "0.0005", Cause.ESTIMATED: "0.001", Cause.TOKENS: "0.0035"}


def test_a_change_of_price_within_the_month_is_no_gap(world: World, key: ApiKey) -> None:
    """Each call counts at the price of its admission; a difference in tokens at their mean."""
    dearer = call(key, output_price=usd(20), cost=5_000_000)
    append(world.workspace.store, [call(key), dearer])
    assert causes(compare(world, lines("gpt-test,2000,0,200,0.007", heading=SUMS))) == {}
    # 2 more out, at the mean of 10,000 and 20,000 nano-USD.
    assert causes(compare(world, lines("gpt-test,2000,0,202,0.00703", heading=SUMS))) == {Cause.TOKENS: "0.00003"}


def test_lines_that_count_no_tokens_leave_the_gap_unexplained(world: World, key: ApiKey) -> None:
    """A sum alone tells neither tokens nor prices."""
    append(world.workspace.store, [call(key)])
    assert causes(compare(world, lines("gpt-test,0.00400", heading="model,cost"))) == {Cause.UNEXPLAINED: "0.001"}


@pytest.mark.any_store
def test_models_are_known_by_the_upstreams_name_ours_a_date_or_as_told(world: World, key: ApiKey) -> None:
    """Two of our names for one model of theirs are one."""
    with world.workspace.write() as tx:
        update_model(tx, "other-test", upstream_model="their-model")
        update_model(tx, "embed-test", upstream_model="their-model")
    names = ("gpt-test-2026-08-06", "models/gpt-test", "their-model", "other-test", "odd name")
    append(
        world.workspace.store,
        [call(key, model=model) for model in ("gpt-test", "gpt-test", "other-test", "embed-test", "other-test")],
    )
    text = lines(*(f"{name},1000,0,100,0.003" for name in names), heading=SUMS)
    found = compare(world, text, models={"odd name": "embed-test"})
    assert {gap.model: (gap.our_calls, gap.their_lines, gap.causes) for gap in found.models} == {
        "gpt-test": (2, 2, {}),
        "their-model": (3, 3, {}),
    }


def test_input_that_excludes_cached_tokens(world: World, key: ApiKey) -> None:
    """As the dialect counts, unless the heading or the caller says otherwise."""
    columns: dict[str, Any] = {"input_tokens": 1_100, "cached_input_tokens": 100}  # 0.00305
    elsewhere = call(key, model="claude-test", upstream="test-anthropic", **columns)
    append(world.workspace.store, [call(key, **columns), elsewhere])
    apart = lines("gpt-test,1000,100,100,0.00305", heading=SUMS)
    assert causes(compare(world, apart)) == {Cause.TOKENS: "-0.0002", Cause.PRICES: "0.0002"}
    assert causes(compare(world, apart, input_has_cached=False)) == {}
    assert causes(compare(world, apart.replace("input_tokens", "Uncached input tokens", 1))) == {}
    assert causes(compare(world, apart.replace("gpt-test", "claude-test"), upstream="test-anthropic")) == {}
    with pytest.raises(InvalidInput, match=r"Line 2 counts fewer input tokens than cached .*--input-without-cached"):
        compare(world, lines("gpt-test,50,100,100,0.1", heading=SUMS))


def test_other_months_upstreams_and_refusals_do_not_count(world: World, key: ApiKey) -> None:
    """Ours is what the provider was asked in that month."""
    october = NOON.replace(month=10)
    refused = call(key, outcome="refused", cost=0, usage_source=None)
    rows = [call(key), call(key, upstream="test-gemini"), row(key, october, upstream="test-openai"), refused]
    append(world.workspace.store, rows)
    assert compare(world, lines("gpt-test,1000,0,100,0.003", heading=SUMS)).total.our_calls == 1


def test_only_days_of_the_month_are_opened(world: World, key: ApiKey) -> None:
    """Segments of other months are not touched: here the file is not even there."""
    append(world.workspace.store, [call(key, at=NOON - timedelta(days=60))])
    ledger = world.workspace.ledger
    ledger.sync()
    ledger.root.remove(kept(ledger))
    append(world.workspace.store, [call(key, "resp_1")])
    found = compare(world, lines("2026-11-23,gpt-test,resp_1,1000,0,100,0.003"))
    assert found.total.gap == 0


def test_who_sees_one_organisation_compares_nothing(world: World, key: ApiKey) -> None:
    """The invoice is for all of them."""
    workspace = world.workspace.acting_as(Actor("x@example.com", Role.ANALYST, world.org_id))
    with pytest.raises(Forbidden, match="who sees them all"):
        invoice_comparison.compare(workspace.ledger, read("model,cost\na,1"), "test-openai", "2026-11")
    assert "who sees them all" in invoice_comparison.obstacle(workspace.ledger, "test-openai")
    assert "Name the upstream" in invoice_comparison.obstacle(world.workspace.ledger, None)
    assert invoice_comparison.obstacle(world.workspace.ledger, "test-openai") == ""
    everyone = world.workspace.acting_as(Actor("x@example.com", Role.ANALYST))
    assert (
        invoice_comparison.compare(everyone.ledger, read("model,cost\na,1"), "test-openai", "2026-11").total.theirs == 1
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c", ""]),
            st.integers(0, 5_000),
            st.integers(0, 50),
            st.integers(0, 500),
            st.decimals(-1, 1, places=7),
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
@examples(50)
def test_the_causes_always_sum_to_the_gap(rows: list[tuple[str, int, int, int, Decimal]], by_call: bool) -> None:
    """Whatever is billed, for whichever calls of ours, to the last digit."""
    text = lines(*(f"2026-11-01,m,{id_},{i + c},{c},{o},{amount}" for id_, i, c, o, amount in rows))
    ours = [
        OurCalls(
            name=name,
            model="m",
            response_id=name if name != "z" else None,
            day=None,
            calls=1,
            cost=3_000_000_000_000,
            exact=3_000_000_300_000,
            tokens=[1_000, 7, 0, 0, 100],
            values=[2_000_000_000_000, 300_000, 0, 0, 1_000_000_000_000],
            prices=[2_000_000_000, 3, 0, 0, 10_000_000_000],
            priced=1,
            unfinished=(-3_000_000_000_000, 10**15) if name == "z" else (0, 0),
            estimated=(-3_000_000_000_000, 10**12) if name == "b" else (0, 0),
        )
        for name in ("a", "b", "z")
    ]
    comparing = invoice_comparison._Comparing(read(text), {"m": "m"}, {}, has_cached=True)
    (comparing.by_call if by_call else comparing.by_model)(ours)
    found = comparing.result("u", "2026-11")  # a `Gap` asserts that its causes sum to it
    assert found.total.theirs == sum(amount for *_, amount in rows)
    assert found.total.ours == Decimal("0.009")
    assert sum(found.total.causes.values()) == found.total.theirs - found.total.ours


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heading", "row"),
    [
        ("Day;Model ID;Prompt Tokens;Cached Tokens;Completion tokens;Cost (USD)", "2026-11-02;m;1200;3;4;$1234.50"),
        (
            "\ufeffstart_time\tmodel\tn_context_tokens_total\tinput_cached_tokens\tn_generated_tokens_total\tamount\r",
            "1793577600\tm\t1200\t3\t4\t1234.5\r\n\r",
        ),
        (
            "id2,usage_date,model,input_tokens,cached_tokens,output_tokens,cost,currency",
            'x,2026-11-02T01:00:00+01:00,m,"1,200",3,4.0,1.2345E3,usd',
        ),
    ],
)
def test_usual_headings_are_known(heading: str, row: str) -> None:
    """Case, spaces and punctuation do not count; semicolons and tabs separate as well as commas."""
    (line,) = read(f"{heading}\n{row}\n").lines
    assert (str(line.day), line.model) == ("2026-11-02", "m")
    assert (line.tokens, line.amount) == ((1_200, 3, None, None, 4), 1_234_500_000_000_000_000)


@pytest.mark.parametrize(
    ("text", "dollars"),
    [
        ("1.50", "1.50"),
        (".5", "0.5"),
        ("+2", "2"),
        ("-$1.50", "-1.50"),
        ("$-1.50", "-1.50"),
        ("USD 1.50", "1.50"),
        ("1.50 USD", "1.50"),
        ("$1,234,567.89", "1234567.89"),
        ("1e-3", "0.001"),
    ],
)
def test_amounts_are_written_in_many_ways(text: str, dollars: str) -> None:
    """With a sign, a currency, thousands in groups, or as a computer writes what is small."""
    assert read(f'model,cost\nm,"{text}"\n').lines[0].amount == Decimal(dollars) * 10**15


@pytest.mark.parametrize("text", ["0,125", "1,234", "12,50", "1.234,50", "1,234.50", "-0,003", "$1,5"])
@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_a_comma_that_could_mean_two_things_is_refused(text: str, separator: str) -> None:
    """Where cells are separated by something else it may begin the decimals; a thousandfold error would be silent."""
    table = f'model{separator}cost\nm{separator}"{text}"\n'
    if separator == "," and text.startswith("1,234"):
        assert read(table).lines[0].amount == Decimal(text.replace(",", "")) * 10**15
    else:
        with pytest.raises(InvalidInput, match=r"column 'cost': .* could mean two things.*: write it as 1234\.50"):
            read(table)


def test_a_column_can_be_named() -> None:
    """One that is not known by its heading, or of which there are two."""
    text = "what,net,gross cost,cost\nm,1,2,3\n"
    assert read(text, columns={"model": "what", "amount": "net"}).lines[0].amount == 10**15
    assert read(text, columns={"model": "what"}).columns == {"model": "what", "amount": "cost"}


def test_amounts_are_exact_and_binary_noise_is_cut() -> None:
    """Fifteen decimals are kept; the last place is that of the longest amount."""
    found = read("model,cost\nm,0.1\nm,0.123456789012345\n")
    assert ([line.amount for line in found.lines], found.last_place) == ([10**14, 123_456_789_012_345], 1)
    assert read("model,cost\nm,0.30000000000000004\n").lines[0].amount == 3 * 10**14
    assert read("model,cost\nm,0.1\nm,5\n").last_place == 10**14


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column that is known as model"),
        ("model,cost\n", "no lines below its heading"),
        ("model,price paid\nm,1", r"known as amount: say which with --column amount=HEADING .*'model', 'price paid'"),
        ("model,cost,amount\nm,1,1", r"'cost' and 'amount' could both be amount: say which with --column amount="),
        ("model,cost\nm,1\nm,1,5", r"Line 3 has 3 cells, the heading 2"),
        (
            "model,cost\nm,twelve",
            r"Line 2, column 'cost': 'twelve' is not an amount. Write it in USD, with a point: 12.50",
        ),
        ("model,cost\nm,", r"Line 2, column 'cost': '' is not an amount"),
        ("model,cost\nm,NaN", r"Line 2, column 'cost': 'NaN' is not an amount"),
        ("model,cost\nm,1USD2", r"'1USD2' is not an amount"),
        ("model,cost\nm,$-$1", r"'\$-\$1' is not an amount"),
        ("model,cost\nm,-$-1", r"'-\$-1' is not an amount"),
        ("model,cost\nm,1_0", r"'1_0' is not an amount"),
        ("model,cost\nm,\N{ARABIC-INDIC DIGIT ONE}", r"is not an amount"),
        ("model,cost\nm,1e9999999", r"'1e9999999' is not an amount"),
        ("model,cost\nm,1e-9999999", r"'1e-9999999' is not an amount"),
        ("model,cost\nm,1e999", r"'1e999' is out of range"),
        ("model,output_tokens,cost\nm,1_0,1", r"'1_0' is not a number of tokens"),
        ("model,output_tokens,cost\nm,1e9999999,1", r"'1e9999999' is not a number of tokens"),
        ("model;output_tokens;cost\nm;1,200;1", r"column 'output_tokens': '1,200' could mean two things"),
        ("day,model,cost\n9999-12-31T23:59:59-05:00,m,1", r"'9999-12-31T23:59:59-05:00' is not a day"),
        ("day,model,cost\n0001-01-01T00:00:00+05:00,m,1", r"'0001-01-01T00:00:00\+05:00' is not a day"),
        ("day,model,cost\n" + "\N{ARABIC-INDIC DIGIT ONE}" * 10 + ",m,1", r"is not a day"),
        ("model,cost\nm,1e30", r"Line 2, column 'cost': '1e30' is out of range"),
        ("model,Output Tokens,cost\nm,many,1", r"Line 2, column 'Output Tokens': 'many' is not a number of tokens"),
        (
            "model,output_tokens,cost\nm,-1,1",
            r"column 'output_tokens': '-1' is not a number of tokens: it must be whole",
        ),
        ("model,output_tokens,cost\nm,1.5,1", r"'1.5' is not a number of tokens: it must be whole"),
        (
            "day,model,cost\n11/05/2026,m,1",
            r"Line 2, column 'day': '11/05/2026' is not a day. Write it like 2026-10-05",
        ),
        ("day,model,cost\n,m,1", r"Line 2, column 'day': '' is not a day"),
        ("model,cost\nm,1\nTotal,1", r"Line 3, column 'model': 'Total' names no model. Take lines that are sums out"),
        ("model,cost\n ,1", r"Line 2, column 'model': '' names no model"),
        ("model,cost,currency\nm,1,EUR", r"Line 2, column 'currency': 'EUR' is not USD"),
        ('model,cost\n"m,1', r"is not CSV"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    """Line, column, what is there, and what to do."""
    with pytest.raises(InvalidInput, match=message):
        read(text)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": "cost"}, "no field 'price' of an invoice. There are date, model"),
        ({"amount": "gross"}, "no column 'gross'"),
        ({"amount": "tax"}, "several columns 'tax', and amount can be one only"),
    ],
)
def test_columns_that_are_not_there_are_named(columns: dict[str, str], message: str) -> None:
    """A field that no invoice has, a heading that this one has not, or has twice."""
    with pytest.raises(InvalidInput, match=message):
        read("model,cost,tax,tax\nm,1,2,3", columns=columns)


def test_a_line_of_another_month_and_an_unknown_upstream(world: World) -> None:
    """What belongs elsewhere is not compared."""
    with pytest.raises(InvalidInput, match=r"Line 3 is of 2026-12-01, which is not in 2026-11"):
        compare(world, "day,model,cost\n2026-11-30,m,1\n2026-12-01,m,1")
    with pytest.raises(NotFound, match=r"no upstream 'nobody'\. There are: .*test-openai"):
        compare(world, "model,cost\nm,1", upstream="nobody")
    for month in ("November", "2026-1", "26-11", " 2026-11"):
        with pytest.raises(InvalidInput, match="is not a month"):
            compare(world, "model,cost\nm,1", month=month)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but an invoice or an error that is meant for people."""
    for whole in (text, f"model,day,input_tokens,cost\n{text}"):
        with contextlib.suppress(InvalidInput):
            assert read(whole).lines
