"""The step that adds what is known of upstreams gives those that are there what new ones would have."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.conftest import ADMIN
from toolkit.admin.catalog import traits_of
from toolkit.core.dialect import Dialect
from toolkit.core.settings import Settings
from toolkit.providers.usual import usual
from toolkit.store import steps
from toolkit.store.database import Store
from toolkit.store.tables import Upstream

pytestmark = pytest.mark.both_stores

URLS = [
    "https://api.openai.com/v1",
    "https://API.openai.com",
    "https://eu.api.openai.com/v1",
    "https://api.anthropic.com",
    "https://api.anthropic.com/v1",
    "https://api.openai.com.example/v1",
    "https://example.com/api.anthropic.com",
    "https://generativelanguage.googleapis.com",
    "http://127.0.0.1:8090/openai/v1",
]


@pytest.fixture
def store(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store as the first release made it, with an upstream of each dialect at each place."""
    settings.data_dir.mkdir(parents=True)
    store = Store(settings.store_url)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "STEPS", steps.STEPS[:1])
        store.migrate()
    with store.write(ADMIN) as tx:
        for dialect in Dialect:
            for url in URLS:
                values = {"name": f"{dialect} {url}", "dialect": dialect.value, "url": url}
                row = "INSERT INTO upstream VALUES (:name, :dialect, :url, 'SOME_API_KEY', 'pass', 0, 'somebody')"
                tx.session.execute(text(row), values)
    yield store
    store.close()


def test_upstreams_that_are_there_get_what_is_usual_at_their_place(store: Store) -> None:
    """By dialect and host, as one that is added today."""
    store.migrate()
    with store.read(ADMIN) as tx:
        found = {row.name: traits_of(row) for row in tx.session.query(Upstream)}
    assert found == {f"{dialect} {url}": usual(dialect, url) for dialect in Dialect for url in URLS}
