"""What Claude Code says that it wrote to the cache, by how long that lives."""

import json

import pytest

from tests.gateway.clients.conftest import TASK, Desk

pytestmark = pytest.mark.world


@pytest.mark.parametrize("variable", ["ENABLE_PROMPT_CACHING_1H", "FORCE_PROMPT_CACHING_5M"])
def test_what_is_written_to_the_cache_is_told_apart_by_its_life(desk: Desk, variable: str) -> None:
    """An hour costs more than five minutes, so the rows have each by itself, and the tool the same."""
    ended = desk.follow("Claude Code", TASK, before=f"export {variable}=1")
    rows = desk.gate.rows()
    assert ended.status == 0, ended.output + ended.errors
    said = json.loads(ended.output)["usage"]["cache_creation"]
    written = (sum(row.cache_write_5m_tokens for row in rows), sum(row.cache_write_1h_tokens for row in rows))
    assert (said["ephemeral_5m_input_tokens"], said["ephemeral_1h_input_tokens"]) == written
    assert written[variable == "ENABLE_PROMPT_CACHING_1H"]
    assert not written[variable != "ENABLE_PROMPT_CACHING_1H"]
