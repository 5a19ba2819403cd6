"""Upstreams, models and the price book."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from genai_prices import data as public_data

from tests.conftest import OPENAI_SHEET, World, usd
from toolkit.admin import catalog, plans, prices
from toolkit.admin.models import add_model, list_models, update_model
from toolkit.admin.prices import list_prices, price_at, refresh_prices, set_price
from toolkit.admin.public_prices import PublicPrice, public_price
from toolkit.admin.upstreams import add_upstream, update_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from toolkit.core.money import parse_usd
from toolkit.core.policy import Role
from toolkit.core.pricing import MILLION, PriceSheet, Tier
from toolkit.store import audit
from toolkit.store.actor import Actor
from toolkit.store.tables import Price
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

pytestmark = pytest.mark.any_store

AT = datetime(2026, 11, 1, tzinfo=UTC)


def cents(*prices: str) -> list[int]:
    """Return prices in USD per million tokens as nano-USD."""
    return [parse_usd(price) for price in prices]


# -- the copy from genai-prices -----------------------------------------------------------------------------------


def test_a_price_without_tiers_is_copied_exactly() -> None:
    """GPT-5: 1.25 in, 0.125 cached, 10 out; a cache write costs what fresh input does."""
    copied = public_price("openai/gpt-5", AT)
    assert copied.sheet == PriceSheet.flat(*cents("1.25", "10", "0.125"))
    assert copied.context_window == 400_000
    assert copied.source.startswith("genai-prices ")
    assert copied.source.endswith(": openai/gpt-5")


def test_a_price_with_tiers_and_cache_writes_is_copied_exactly() -> None:
    """Claude Sonnet 4.5: two tiers, each with its reads, 5-minute writes and 1-hour writes."""
    assert public_price("anthropic/claude-sonnet-4-5", AT).sheet.tiers == (
        Tier(0, *cents("3", "0.30", "3.75", "6", "15")),
        Tier(200_000, *cents("6", "0.60", "7.50", "12", "22.50")),
    )


def test_the_second_tier_starts_above_its_mark() -> None:
    """200,000 tokens to Gemini 2.5 Pro still cost the first tier's price, one more the second's."""
    sheet = public_price("google/gemini-2.5-pro", AT).sheet
    assert (sheet.tier(200_000).input, sheet.tier(200_001).input) == tuple(cents("1.25", "2.50"))


def test_an_embedding_model_has_no_output_price() -> None:
    """Output of an embedding costs nothing."""
    assert public_price("openai/text-embedding-3-small", AT).sheet == PriceSheet.flat(*cents("0.02", "0"))


def test_a_dated_name_finds_its_family() -> None:
    """The package knows aliases; the entry's source names what was matched."""
    assert public_price("openai/gpt-4o-2024-08-06", AT).source.endswith(": openai/gpt-4o")


def test_the_price_of_the_moment_is_copied() -> None:
    """o3 became cheaper on 10 June 2025."""
    before, after = (public_price("openai/o3", datetime(2025, 6, day, tzinfo=UTC)).sheet.tier(0) for day in (9, 11))
    assert (before.input, after.input) == tuple(cents("10", "2"))


@pytest.mark.parametrize("reference", ["openai/no-such-model", "nobody/gpt-5", "gpt-5", "", "/"])
def test_an_unknown_public_model_is_not_found(reference: str) -> None:
    """The message says how to give prices oneself."""
    with pytest.raises(NotFound, match="--input-price"):
        public_price(reference, AT)


def test_every_price_of_the_package_is_copied_or_not_found() -> None:
    """No model of the package, with whatever noise in its prices, ends in another error; all prices are integers."""
    copied = 0
    for provider in public_data.providers:
        for model in provider.models:
            try:
                sheet = public_price(f"{provider.id}/{model.id}", AT).sheet
            except NotFound:
                continue
            assert type(sheet.tiers[-1].input) is int
            copied += 1
    assert copied > 1000


# -- upstreams ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://api.example.com",
        "https://",
        "https:///v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/#x",
        "https://user:secret@api.example.com",
        "https://api.example.com:99999/v1",
        "https://api.example.com:x/v1",
        "http://[::1/v1",
        "https://api.example.com/v1\n",
        "https://api.example.com/a b",
    ],
)
def test_a_base_url_that_cannot_be_is_refused(workspace: Workspace, url: str) -> None:
    """Not a web address, or one with a query or a credential in it."""
    with workspace.write() as tx, pytest.raises(InvalidInput, match="base URL"):
        add_upstream(tx, "mine", Dialect.OPENAI, url, "SOME_API_KEY")


@pytest.mark.parametrize(
    ("dialect", "url", "base"),
    [
        (Dialect.OPENAI, "https://api.openai.com/v1/chat/completions", "https://api.openai.com/v1"),
        (Dialect.OPENAI, "http://127.0.0.1:8000/v1/embeddings/", "http://127.0.0.1:8000/v1"),
        (Dialect.ANTHROPIC, "https://api.anthropic.com/v1/messages", "https://api.anthropic.com"),
        (Dialect.GEMINI, "https://g.example/v1beta/models/gemini-2.5-pro:generateContent", "https://g.example"),
    ],
)
def test_the_url_of_an_endpoint_is_no_base_url(workspace: Workspace, dialect: Dialect, url: str, base: str) -> None:
    """The right base URL is suggested, whether an upstream is added or changed."""
    with workspace.write() as tx:
        with pytest.raises(InvalidInput) as refused:
            add_upstream(tx, "mine", dialect, url, "SOME_API_KEY")
        assert str(refused.value).endswith(f": {base}")
        add_upstream(tx, "mine", dialect, base, "SOME_API_KEY")
        with pytest.raises(InvalidInput, match="one endpoint"):
            update_upstream(tx, "mine", base_url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090/openai/v1/", "https://api.example.com", "http://[::1]:80/v1"])
def test_a_base_url_is_kept_without_its_last_slash(workspace: Workspace, url: str) -> None:
    """So that paths can be put behind it."""
    with workspace.write() as tx:
        assert add_upstream(tx, "mine", Dialect.OPENAI, url, "SOME_API_KEY").base_url == url.rstrip("/")


@pytest.mark.parametrize("variable", ["", "sk-proj-abc", "A B", "1X", "X" * 129, "Ключ"])
def test_a_credential_is_named_not_given(workspace: Workspace, variable: str) -> None:
    """A value in place of a variable's name is refused before it reaches the store."""
    with workspace.write() as tx, pytest.raises(InvalidInput, match="Give the name, not the value"):
        add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", variable)


def test_an_upstreams_name_is_taken_once(world: World) -> None:
    """The message names it."""
    with world.workspace.write() as tx, pytest.raises(Conflict, match="test-openai"):
        add_upstream(tx, "test-openai", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")


# -- models and prices --------------------------------------------------------------------------------------------


def test_a_model_without_prices_takes_the_public_ones(world: World) -> None:
    """By the dialect's provider and the upstream's name, or by another one that is named."""
    with world.workspace.write() as tx:
        add_model(tx, "fast", "test-openai", upstream_model="gpt-5-mini")
        add_model(tx, "local", "test-openai", price_as="anthropic/claude-sonnet-4-5", context_window=32_000)
        (fast,) = list_prices(tx, "fast")
        (local,) = list_prices(tx, "local")
        models = {model.id: model for model in list_models(tx)}
    assert fast.source.endswith("openai/gpt-5-mini")
    assert PriceSheet.from_json(local.sheet) == public_price("anthropic/claude-sonnet-4-5", AT).sheet
    assert (models["fast"].upstream_model, models["fast"].context_window) == ("gpt-5-mini", 400_000)
    assert (models["local"].upstream_model, models["local"].context_window) == ("local", 32_000)


def test_a_model_nobody_has_a_price_for_is_not_added(world: World) -> None:
    """No model without a price; the catalog stays as it was."""
    with world.workspace.read() as tx:
        before = catalog.load(tx)
    with world.workspace.write() as tx, pytest.raises(NotFound):
        add_model(tx, "my-own-llama", "test-openai")
    with world.workspace.read() as tx:
        assert catalog.load(tx) == before


@pytest.mark.parametrize(
    "options",
    [
        {"context_window": 0},
        {"context_window": -1},
        {"context_window": 100_000_001},
        {"max_output": 0},
        {"default_output": 0},
        {"default_output": 20_000, "max_output": 10_000},
        {"price_as": "openai/gpt-5"},
        {"valid_from": datetime(2027, 1, 1)},  # noqa: DTZ001 - the very mistake
    ],
)
def test_a_model_that_makes_no_sense_is_refused(world: World, options: dict[str, Any]) -> None:
    """A zero is not taken for "not given"; prices are given or copied, not both."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        add_model(tx, "new", "test-openai", sheet=OPENAI_SHEET, **options)


def test_a_model_is_pointed_to_another_upstream(world: World) -> None:
    """Gateways see the new place; what was not given stays, price included; the audit row has before and after."""
    with world.workspace.write() as tx:
        add_upstream(tx, "real", Dialect.OPENAI, "https://api.example.com/v1", "SOME_API_KEY")
        before = catalog.load(tx)
        update_model(tx, "gpt-test", upstream="real", upstream_model="gpt-5", max_output=9_000)
        after = catalog.load(tx)
        (act,) = [row for row in audit.rows(tx, subject="gpt-test") if row.action == "model.update"]
    old, new = before.models["gpt-test"], after.models["gpt-test"]
    assert after.version > before.version
    assert (new.base_url, new.upstream_model, new.max_output) == ("https://api.example.com/v1", "gpt-5", 9_000)
    assert (new.context_window, new.default_output, new.prices) == (old.context_window, old.default_output, old.prices)
    assert '"upstream": "test-openai"' in (act.before or "")
    assert '"upstream": "real"' in (act.after or "")


@pytest.mark.parametrize(
    "options",
    [
        {"upstream": "test-anthropic"},
        {"context_window": 0},
        {"default_output": 8_193},
        {"max_output": 4_095},
        {"max_output": 100_000_001},
    ],
)
def test_a_model_is_not_changed_into_what_makes_no_sense(world: World, options: dict[str, Any]) -> None:
    """Another dialect, impossible limits: refused, and nothing changes."""
    with world.workspace.read() as tx:
        before = catalog.load(tx)
    with world.workspace.write() as tx, pytest.raises(InvalidInput):
        update_model(tx, "gpt-test", **options)
    with world.workspace.read() as tx:
        assert catalog.load(tx) == before


def test_only_what_exists_is_changed_and_only_by_the_platform(world: World) -> None:
    """An unknown model or upstream is not found; an org admin may not."""
    with world.workspace.write() as tx:
        with pytest.raises(NotFound, match="no model 'gpt-9'"):
            update_model(tx, "gpt-9", max_output=5)
        with pytest.raises(NotFound, match="no upstream named 'nowhere'"):
            update_model(tx, "gpt-test", upstream="nowhere")
    admin = world.workspace.acting_as(Actor("a@acme.example", Role.ORG_ADMIN, world.org_id))
    with admin.write() as tx, pytest.raises(Forbidden):
        update_model(tx, "gpt-test", max_output=9_000)


@pytest.mark.parametrize("model_id", ["", "-x", "a b", "a\nb", "x" * 129, "модель", "a?b"])
def test_a_model_id_that_no_path_could_hold_is_refused(world: World, model_id: str) -> None:
    """Letters, digits and a few signs."""
    with world.workspace.write() as tx, pytest.raises(InvalidInput, match="model id"):
        add_model(tx, model_id, "test-openai", sheet=OPENAI_SHEET)


def test_limits_have_sensible_defaults(world: World) -> None:
    """What is not known is 131,072 tokens of window and 16,384 of output; a default never exceeds the maximum."""
    with world.workspace.write() as tx:
        plain = add_model(tx, "plain", "test-openai", sheet=OPENAI_SHEET)
        small = add_model(tx, "small", "test-openai", sheet=OPENAI_SHEET, max_output=1_000)
        large = add_model(tx, "large", "test-openai", sheet=OPENAI_SHEET, max_output=128_000)
    assert (plain.context_window, plain.default_output, plain.max_output) == (131_072, 16_384, 16_384)
    assert (small.default_output, large.default_output) == (1_000, 16_384)


def test_the_latest_price_that_has_begun_holds(world: World) -> None:
    """A price for the future waits for its moment; what was charged before keeps its own entry."""
    future = datetime(2100, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    with world.workspace.write() as tx:
        later = set_price(tx, "gpt-test", PriceSheet.flat(input=9, output=9), valid_from=future)
        now = set_price(tx, "gpt-test", PriceSheet.flat(input=5, output=5))
        entries = list_prices(tx, "gpt-test")
        facts = catalog.load(tx).models["gpt-test"]
        moments = [tx.now - timedelta(days=1), tx.now, future - timedelta(microseconds=1), future]
    assert len(entries) == 3
    assert later.valid_from == datetime(2099, 12, 31, 23, tzinfo=UTC)
    wanted = [None, now.id, now.id, later.id]
    assert [price and price.id for price in (price_at(entries, moment) for moment in moments)] == wanted
    assert [price and price.id for price in (facts.price(moment) for moment in moments)] == wanted


def test_no_price_starts_in_the_past(world: World) -> None:
    """Calls of that time have been charged."""
    with world.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="past"):
            set_price(tx, "gpt-test", OPENAI_SHEET, valid_from=tx.now - timedelta(microseconds=1))
        with pytest.raises(InvalidInput, match="time zone"):
            set_price(tx, "gpt-test", OPENAI_SHEET, valid_from=datetime(2100, 1, 1))  # noqa: DTZ001
        with pytest.raises(NotFound, match="no model 'none'"):
            set_price(tx, "none", OPENAI_SHEET)


def test_a_refresh_enters_what_has_changed_and_only_that(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied prices follow the package; given ones are left alone; a second refresh finds nothing new."""
    cheaper = PriceSheet.flat(input=1, output=1)
    with world.workspace.write() as tx:
        add_model(tx, "gpt-5", "test-openai")
        add_model(tx, "gpt-5-mini", "test-openai")
        assert refresh_prices(tx) == []
    real = public_price

    def repriced(reference: str, at: datetime) -> PublicPrice:
        public = real(reference, at)
        if reference != "openai/gpt-5":
            return public
        return PublicPrice(cheaper, public.context_window, public.source)

    monkeypatch.setattr(prices, "public_price", repriced)
    with world.workspace.write() as tx:
        (entry,) = refresh_prices(tx)
        assert (entry.model_id, PriceSheet.from_json(entry.sheet), entry.valid_from) == ("gpt-5", cheaper, tx.now)
    with world.workspace.write() as tx:
        assert refresh_prices(tx) == []


def test_every_change_raises_the_catalog_version(world: World) -> None:
    """Gateways notice a new upstream, model, price and plan by it; a failed change leaves it."""

    def version(tx: Transaction) -> int:
        return catalog.load(tx).version

    with world.workspace.write() as tx:
        seen = [version(tx)]
        add_upstream(tx, "more", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")
        seen.append(version(tx))
        add_model(tx, "more", "more", sheet=OPENAI_SHEET)
        seen.append(version(tx))
        set_price(tx, "more", OPENAI_SHEET)
        seen.append(version(tx))
        plans.add(tx, "more", MILLION, ["more"])
        seen.append(version(tx))
    assert seen == sorted(set(seen))
    with world.workspace.write() as tx, pytest.raises(NotFound):
        set_price(tx, "none", OPENAI_SHEET)
    with world.workspace.read() as tx:
        assert version(tx) == seen[-1]


def test_the_catalog_holds_what_a_gateway_needs(world: World) -> None:
    """Model, upstream, limits, prices and plans, in one snapshot."""
    with world.workspace.read() as tx:
        loaded = catalog.load(tx)
    model = loaded.models["gemini-test"]
    assert (model.dialect, model.upstream, model.base_url) == (
        Dialect.GEMINI,
        "test-gemini",
        "http://127.0.0.1:9/gemini",
    )
    assert (model.context_window, model.default_output, model.max_output) == (100_000, 4_096, 8_192)
    assert len(model.prices) == 1
    assert loaded.plans[world.plan_id].models == loaded.models.keys() - {"other-test"}
    assert loaded.plans[world.plan_id].multiplier == MILLION * 5 // 4


@pytest.mark.parametrize("role", [Role.ORG_ADMIN, Role.ANALYST])
def test_only_the_platform_changes_the_catalog(world: World, role: Role) -> None:
    """Upstreams, models, prices and plans are the platform's alone."""
    with world.workspace.acting_as(Actor("x@example.com", role, world.org_id)).write() as tx:
        for act in (
            lambda: add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY"),
            lambda: add_model(tx, "mine", "test-openai", sheet=OPENAI_SHEET),
            lambda: set_price(tx, "gpt-test", OPENAI_SHEET),
            lambda: refresh_prices(tx),
            lambda: plans.add(tx, "mine", 0, ["gpt-test"]),
        ):
            with pytest.raises(Forbidden):
                act()


def test_a_price_entry_is_audited_and_holds_its_sheet(world: World) -> None:
    """The first price of a model has its own act, and reads back as it was given."""
    with world.workspace.read() as tx:
        (price,) = list_prices(tx, "gpt-test")
        acts = [row.action for row in audit.rows(tx, subject=price.id)]
    assert acts == ["price.set"]
    assert isinstance(price, Price)
    assert PriceSheet.from_json(price.sheet).tier(0).output == usd(10)


@pytest.mark.parametrize("name", ["PATH", "KEYDESK_PEPPER", "KEYDESK_PEPPER_API_KEY", "SECRET"])
def test_a_credential_that_would_send_something_else_is_refused(workspace: Workspace, name: str) -> None:
    """When an upstream is added and when it is changed; the message says what would be right."""
    with workspace.write() as tx:
        with pytest.raises(InvalidInput, match=name):
            add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", name)
        add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")
        with pytest.raises(InvalidInput, match=name):
            update_upstream(tx, "mine", credential_env=name)


def test_an_upstream_is_moved_to_no_metadata_service(workspace: Workspace) -> None:
    """Nor added there."""
    with workspace.write() as tx:
        add_upstream(tx, "mine", Dialect.OPENAI, "https://api.example.com", "SOME_API_KEY")
        with pytest.raises(InvalidInput, match="never called"):
            update_upstream(tx, "mine", base_url="http://169.254.169.254/latest")


@pytest.mark.parametrize("name", ["x" * 257, "a\u202eb", "a\nb"])
def test_a_name_at_the_upstream_has_a_length_and_is_what_it_looks_like(world: World, name: str) -> None:
    """When a model is added and when it is changed."""
    sheet = PriceSheet.flat(input=1, output=1)
    with world.workspace.write() as tx:
        with pytest.raises(InvalidInput, match="name of the model at the upstream"):
            add_model(tx, "fresh", "test-openai", upstream_model=name, sheet=sheet)
        with pytest.raises(InvalidInput, match="name of the model at the upstream"):
            update_model(tx, "gpt-test", upstream_model=name)
