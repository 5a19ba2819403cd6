"""The table of presets: each row makes an upstream, and says nothing that the rest of Keydesk does not know."""

from collections.abc import Iterator
from dataclasses import asdict

import pytest
from genai_prices import data as public_data

from tests.conftest import World
from toolkit.admin import catalog, prices
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream, update_upstream, what_holds, where_holds
from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput, NotFound
from toolkit.core.pricing import PriceSheet
from toolkit.core.unknown_fields import UnknownFields
from toolkit.core.upstream_traits import OnLeave, OutputBound, UpstreamTraits
from toolkit.dialects import MODULES
from toolkit.gateway.account_faults import fault_of
from toolkit.gateway.upstream_request import headers_of, url_of
from toolkit.providers.preset import Preset
from toolkit.providers.presets import FORMS, PRESETS, find
from toolkit.store import audit
from toolkit.store.transaction import Transaction
from toolkit.workspace import Workspace

WANTED = {
    *(
        "openai",
        "azure-openai",
        "anthropic",
        "google",
        "vertex",
        "bedrock",
        "openrouter",
        "deepseek",
        "mistral",
        "groq",
    ),
    *("xai", "moonshot", "qwen", "together", "fireworks", "cerebras", "perplexity", "vllm", "sglang", "llama.cpp"),
    *("ollama", "lm-studio", "litellm"),
}
each_form = pytest.mark.parametrize("preset", FORMS.values(), ids=map("-".join, FORMS))


def address_of(preset: Preset) -> str | None:
    """Return a base URL to give where the preset has none for everybody."""
    return None if preset.has_address else preset.base_url.replace("{", "my-").replace("}", "")


@pytest.fixture
def tx(workspace: Workspace) -> Iterator[Transaction]:
    """A transaction of a platform admin."""
    with workspace.write() as tx:
        yield tx


def test_every_provider_that_is_wanted_is_there() -> None:
    """Under its name."""
    assert set(PRESETS) == WANTED
    assert all(name == preset.name for name, preset in PRESETS.items())


@each_form
def test_each_makes_an_upstream(tx: Transaction, preset: Preset) -> None:
    """With what it says, and nothing given but a second dialect, and an address where all have their own."""
    dialect = None if preset is PRESETS[preset.name] else preset.dialect
    upstream = add_upstream(tx, "mine", dialect, base_url=address_of(preset), preset=preset.name)
    assert upstream.base_url == (address_of(preset) or preset.base_url)
    assert (upstream.dialect, upstream.credential_env) == (preset.dialect, preset.credential_env)
    assert (upstream.preset, upstream.unknown_fields) == (preset.name, preset.unknown_fields)
    assert catalog.traits_of(upstream) == preset.traits
    assert {holds.why for holds in what_holds(upstream)} == {f"from preset {preset.name}"}
    where, credential = where_holds(upstream)
    assert (where.is_given, credential.is_given) == (not preset.has_address, False)


@each_form
def test_what_it_names_is_known(preset: Preset) -> None:
    """Its endpoints are the dialect's, its price list is there, and its errors are read as ones of our account."""
    assert set(preset.endpoints) <= set(MODULES[preset.dialect].ENDPOINTS)
    assert preset.price_list is None or any(one.id == preset.price_list for one in public_data.providers)
    for name in preset.account_errors:
        found = fault_of(int(name), {}) if name.isdecimal() else fault_of(400, {"code": name, "message": "No."})
        assert found is not None, name
    assert preset.source
    assert preset.credential_env.endswith("_API_KEY")


def test_an_upstream_of_the_other_dialect_takes_its_preset_again(tx: Transaction) -> None:
    """In its own dialect, with what holds there; its prices are the provider's."""
    upstream = add_upstream(tx, "mine", Dialect.ANTHROPIC, preset="deepseek")
    update_upstream(tx, "mine", on_leave=OnLeave.READ_ON)
    update_upstream(tx, "mine", preset="deepseek")
    assert catalog.traits_of(upstream) == FORMS["deepseek", Dialect.ANTHROPIC].traits
    assert add_model(tx, "m", "mine", upstream_model="deepseek-chat").upstream == "mine"
    with pytest.raises(InvalidInput, match="deepseek is of the openai and anthropic dialect, not gemini"):
        add_upstream(tx, "other", Dialect.GEMINI, preset="deepseek")


def test_gemini_of_vertex_is_called_below_its_publisher(tx: Transaction) -> None:
    """Whose address has a version already; AI Studio's has not."""
    known = FORMS["vertex", Dialect.GEMINI]
    add_upstream(tx, "mine", Dialect.GEMINI, address_of(known), preset="vertex")
    add_model(tx, "m", "mine", upstream_model="gemini-2.5-flash")
    facts = catalog.load(tx).models["m"]
    assert url_of(facts, "generateContent", stream=False, alt_sse=True) == (
        "https://my-location-aiplatform.googleapis.com/v1/projects/my-project/locations/my-location/publishers/google"
        "/models/gemini-2.5-flash:generateContent"
    )
    assert headers_of(facts, "k")["authorization"] == "Bearer k"


def test_what_is_given_goes_before_the_preset(tx: Transaction) -> None:
    """Address, credential, unknown fields and traits; and it is said what is from where."""
    upstream = add_upstream(
        tx,
        "mine",
        base_url="https://proxy.example.com/groq",
        credential_env="MY_API_KEY",
        preset="groq",
        unknown_fields=UnknownFields.REFUSE,
        on_leave=OnLeave.CANCEL,
        pin_tier=True,
        output_bound=OutputBound.EITHER,
    )
    assert (upstream.base_url, upstream.credential_env) == ("https://proxy.example.com/groq", "MY_API_KEY")
    assert catalog.traits_of(upstream) == UpstreamTraits(pin_tier=True)
    why = {holds.name: holds.why for holds in what_holds(upstream)}
    assert why["on_leave"] == "given; from preset groq: read_on"
    assert why["pin_tier"] == "given; from preset groq: no"
    assert why["unknown_fields"] == "given; from preset groq: pass"
    assert why["reckon_rate"] == "from preset groq"
    assert set(why) == {"unknown_fields", *asdict(UpstreamTraits())}


def test_without_a_preset_it_is_said_what_is_the_default(tx: Transaction) -> None:
    """By the host, as ever."""
    upstream = add_upstream(
        tx, "mine", Dialect.ANTHROPIC, "https://api.anthropic.com", "MY_API_KEY", refusal_free=False
    )
    why = {holds.name: holds.why for holds in what_holds(upstream)}
    assert (why["refusal_free"], why["pin_tier"]) == ("given; default: yes", "default")
    assert where_holds(upstream) == []


def test_a_preset_that_this_version_does_not_know_changes_nothing(tx: Transaction) -> None:
    """As after a return to an older version: what holds is in the row."""
    upstream = add_upstream(tx, "mine", preset="groq")
    upstream.preset = "of tomorrow"
    assert {holds.name: holds.why for holds in what_holds(upstream)}["on_leave"] == "given; default: cancel"
    assert add_model(tx, "m", "mine", upstream_model="openai/gpt-oss-120b").id == "m"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "grok"}, "There is no preset 'grok'. There are: openai, azure-openai"),
        ({"preset": "groq", "dialect": Dialect.ANTHROPIC}, "groq is of the openai dialect, not anthropic"),
        ({"preset": "azure-openai"}, "--base-url https://{resource}.openai.azure.com/openai/v1"),
        ({}, "--preset"),
        ({"dialect": Dialect.OPENAI, "base_url": "https://example.com"}, "--credential-env"),
        ({"preset": "azure-openai", "base_url": PRESETS["azure-openai"].base_url}, "words in braces"),
        ({"preset": "groq", "refusal_free": True}, "Free refusals are Anthropic's"),
    ],
)
def test_what_does_not_make_an_upstream_is_refused(tx: Transaction, given: dict[str, object], words: str) -> None:
    """With what is missing, or in the way."""
    with pytest.raises(InvalidInput) as refused:
        add_upstream(tx, "mine", **given)  # type: ignore[arg-type]
    assert words in str(refused.value)


def test_an_upstream_takes_a_preset_later(tx: Transaction) -> None:
    """All that is known of it is the preset's then, but for what is given with it; its address stays."""
    add_upstream(tx, "mine", Dialect.OPENAI, "https://api.mistral.ai/v1", "MY_API_KEY", reckon_rate=50)
    upstream = update_upstream(tx, "mine", preset="mistral", on_leave=OnLeave.CANCEL)
    assert (upstream.preset, upstream.credential_env) == ("mistral", "MY_API_KEY")
    assert upstream.unknown_fields == UnknownFields.LEAVE_OUT
    assert catalog.traits_of(upstream) == UpstreamTraits(output_bound=OutputBound.MAX_TOKENS, add_stream_options=False)
    (row,) = [row for row in audit.rows(tx) if row.action == "upstream.update"]
    assert '"preset":"mistral"' in (row.after or "").replace(" ", "")
    add_upstream(tx, "theirs", Dialect.ANTHROPIC, "https://relay.example.com", "MY_API_KEY")
    with pytest.raises(InvalidInput, match="groq is of the openai dialect, not anthropic"):
        update_upstream(tx, "theirs", preset="groq")


def test_what_a_preset_says_stays_when_an_upstream_moves(tx: Transaction) -> None:
    """It is the same provider, at another address."""
    add_upstream(tx, "mine", preset="anthropic")
    upstream = update_upstream(tx, "mine", base_url="https://proxy.example.com")
    assert catalog.traits_of(upstream) == find("anthropic").traits


@pytest.mark.parametrize(
    ("preset", "model", "source"),
    [
        ("openai", "gpt-5-mini", ": openai/gpt-5-mini"),
        ("groq", "openai/gpt-oss-120b", ": groq/openai/gpt-oss-120b"),
        ("mistral", "mistral-large-latest", ": mistral/"),
        ("deepseek", "deepseek-chat", ": deepseek/"),
        ("xai", "grok-4-0709", ": x-ai/grok-4"),
    ],
)
def test_a_models_price_is_looked_up_in_its_providers_own_list(
    world: World, preset: str, model: str, source: str
) -> None:
    """And not in that of the dialect's maker."""
    with world.workspace.write() as tx:
        add_upstream(tx, "mine", preset=preset)
        add_model(tx, "m", "mine", upstream_model=model)
        (price,) = prices.list_prices(tx, "m")
        assert source in price.source


def test_without_a_preset_the_host_says_whose_list_it_is(tx: Transaction) -> None:
    """And where nobody's is known, it is that of the dialect's maker."""
    add_upstream(tx, "groq", Dialect.OPENAI, "https://api.groq.com/openai/v1", "MY_API_KEY")
    add_upstream(tx, "any", Dialect.OPENAI, "https://llm.example.com/v1", "MY_API_KEY")
    add_model(tx, "a", "groq", upstream_model="openai/gpt-oss-120b")
    add_model(tx, "b", "any", upstream_model="gpt-5")
    assert ": groq/" in prices.list_prices(tx, "a")[0].source
    assert ": openai/" in prices.list_prices(tx, "b")[0].source


def test_a_provider_without_a_price_list_needs_prices(tx: Transaction) -> None:
    """Its models are nobody else's; a price may be given, or copied by name."""
    add_upstream(tx, "mine", preset="ollama")
    with pytest.raises(NotFound, match=r"no list of Ollama.*--input-price"):
        add_model(tx, "gpt-5", "mine")
    add_model(tx, "gpt-5", "mine", price_as="openai/gpt-5")
    add_model(tx, "llama", "mine", sheet=PriceSheet.flat(0, 0))
