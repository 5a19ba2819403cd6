"""The models that answer with recordings, and a key that may call them."""

from collections.abc import Iterator

import pytest

from tests.conftest import Running, free_port, process
from tests.gateway.conftest import Gate, make_gate
from tests.gateway.recorded.recording import KINDS, PRICES, recordings
from toolkit.admin import plans
from toolkit.admin.models import add_model
from toolkit.admin.upstreams import add_upstream
from toolkit.core.dialect import Dialect
from toolkit.core.pricing import MILLION, PriceSheet

SHEET = PriceSheet.flat(
    input=PRICES["input"] * MILLION,
    cached_input=PRICES["cached"] * MILLION,
    cache_write_5m=PRICES["written_5m"] * MILLION,
    cache_write_1h=PRICES["written_1h"] * MILLION,
    output=PRICES["output"] * MILLION,
)
MODEL = {"context_window": 100_000, "default_output": 4_096, "max_output": 8_192}


@pytest.fixture(scope="session")
def recorded_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The upstream that answers with recordings, in a process of its own; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("recorded") / "upstream.log"
    with process(["-m", "tests.gateway.recorded.upstream", str(port)], url, {}, log):
        yield url


@pytest.fixture(scope="session")
def recorded(gateways: object, recorded_upstream: str) -> Gate:
    """A key that may call the models of all recordings, at the gateway that tests share."""
    assert callable(gateways)
    running: Running = gateways("sqlite", workers=1)
    played = recordings()
    upstreams: dict[str, str] = {}
    with running.world.workspace.write() as tx:
        for one in played:
            dialect = KINDS[one.ask]
            options = one.upstream | ({"preset": one.preset} if one.preset else {})
            key = f"recorded-{dialect}-{'-'.join(f'{name}-{value}' for name, value in sorted(options.items()))}"
            if key not in upstreams:
                name = upstreams[key] = f"recorded-{len(upstreams)}"
                base = f"{recorded_upstream}/v1" if dialect == "openai" else recorded_upstream
                add_upstream(tx, name, Dialect(dialect), base, "TEST_UPSTREAM_API_KEY", **options)
            add_model(tx, one.model_id, upstreams[key], sheet=SHEET, **(MODEL | one.model))
        plan = plans.add(tx, "recorded", MILLION, [one.model_id for one in played])
    return make_gate(running, plan=plan.id)
