"""Key stores for the short versions: one PostgreSQL server does for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stores import Place, PostgresPlace, PostgresServer, SqlitePlace


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """A server that a test may kill, if it starts it again."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty key store of each kind."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path)
    return PostgresPlace(request.getfixturevalue("server"))
