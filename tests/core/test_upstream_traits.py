"""What can be said of an upstream, and what cannot."""

import pytest

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput
from toolkit.core.upstream_traits import (
    MOST_BILLED_ERRORS,
    CredentialHeader,
    OnLeave,
    OutputBound,
    UpstreamTraits,
    check,
)


@pytest.mark.parametrize(
    ("dialect", "traits", "words"),
    [
        (Dialect.OPENAI, UpstreamTraits(refusal_free=True), "Anthropic's"),
        (Dialect.GEMINI, UpstreamTraits(refusal_free=True), "Anthropic's"),
        (Dialect.GEMINI, UpstreamTraits(pin_tier=True), "openai and anthropic"),
        (Dialect.OPENAI, UpstreamTraits(reckon_rate=-1), "0 to 100,000"),
        (Dialect.OPENAI, UpstreamTraits(reckon_rate=100_001), "0 to 100,000"),
        (Dialect.ANTHROPIC, UpstreamTraits(output_bound=OutputBound.MAX_TOKENS), "--output-bound is for"),
        (Dialect.ANTHROPIC, UpstreamTraits(add_store=False), "--add-store is for"),
        (Dialect.GEMINI, UpstreamTraits(add_stream_options=False), "--add-stream-options is for"),
        (Dialect.GEMINI, UpstreamTraits(api_version="2024-10-21"), "--api-version is for"),
        (Dialect.OPENAI, UpstreamTraits(api_version="2024-10-21&x=1"), "look like 2024-10-21"),
        (Dialect.OPENAI, UpstreamTraits(api_version="x" * 41), "look like 2024-10-21"),
        (Dialect.OPENAI, UpstreamTraits(billed_errors="Content Filter"), "in small letters"),
        (Dialect.OPENAI, UpstreamTraits(billed_errors="408,"), "in small letters"),
        (Dialect.OPENAI, UpstreamTraits(billed_errors=",".join(["408"] * (MOST_BILLED_ERRORS + 1))), "up to 20"),
    ],
)
def test_what_cannot_be_true_is_refused(dialect: Dialect, traits: UpstreamTraits, words: str) -> None:
    """In words that say where it could be."""
    with pytest.raises(InvalidInput, match=words):
        check(dialect, traits)


def test_what_can_be_true_is_taken() -> None:
    """Anthropic's dialect has free refusals, OpenAI's the names of fields."""
    check(Dialect.ANTHROPIC, UpstreamTraits(OnLeave.READ_ON, refusal_free=True, pin_tier=True, reckon_rate=0))
    check(
        Dialect.OPENAI,
        UpstreamTraits(
            credential_header=CredentialHeader.API_KEY,
            api_version="2024-10-21",
            output_bound=OutputBound.MAX_TOKENS,
            add_stream_options=False,
            add_store=False,
            billed_errors="content_filter,408",
        ),
    )


@pytest.mark.parametrize(
    ("status", "named", "is_billed"),
    [(400, {"content_filter"}, True), (408, set(), True), (400, {"invalid_request_error"}, False), (429, {""}, False)],
)
def test_an_error_is_billed_by_its_status_or_its_names(status: int, named: set[str], is_billed: bool) -> None:
    """And none is of an upstream of which nothing is known."""
    assert UpstreamTraits(billed_errors="content_filter,408").bills(status, named) is is_billed
    assert not UpstreamTraits().bills(status, named - {""})
