"""What a provider said is passed on without credentials, accounts, people and machines, and with its meaning."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.core.scrub import LONGEST_TEXT, MOST_TEXT, REMOVED, Scrubber

CREDENTIAL = "sk-proj-aB3/xY+z=9_8"
SCRUBBER = Scrubber(CREDENTIAL, "https://llm.example.internal:8443/v1")

KEPT = [
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 130012 tokens.",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length",
    "The input token count (1500000) exceeds the maximum number of tokens allowed (1048576).",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Invalid value: 'user_location'. Supported values are: 'project_description', 'request_timeout' and 'org-chart'.",
    "messages.0.content.1.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png'",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "The model `gpt-4.1-mini-2025-04-14` does not exist",
    "models/gemini-3.5-pro is not found for API version v1beta",
]
REMOVED_FROM = [
    CREDENTIAL,
    "sk-proj-aB3%2FxY%2Bz%3D9_8",
    "Bearer abcdef0123456789",
    "org-AbCdEf123456",
    "proj_9XyZ12345678",
    "projects/123456789012/locations/us-central1",
    "project 123456789012",
    "account 210987654321",
    "210987654321",
    "arn:aws:bedrock:us-east-1:210987654321:inference-profile/x",
    "admin@company.example",
    "https://console.example.com/settings?org=1",
    "llm.example.internal",
    "LLM.example.internal:8443",
    "api.openai.com",
    "10.1.2.3:8000",
    "127.0.0.1",
    "localhost:11434",
    "req_011CSHoEeqs5C35K2UUqR7Fy",
    "request ID a1b2c3d4e5",
    "2f1e4b7c-0b1a-4c3d-9e8f-001122334455",
    "AIzaSyA1234567890abcdefghijk",
]


@pytest.mark.parametrize("words", KEPT)
def test_what_is_said_of_the_request_is_kept(words: str) -> None:
    """Tools read these sentences, and shorten what they send."""
    assert SCRUBBER.text(words) == words


@pytest.mark.parametrize("secret", REMOVED_FROM)
def test_what_is_nobodys_business_is_removed(secret: str) -> None:
    """Wherever it stands in a sentence; the sentence stays."""
    for words in (f"Refused for {secret}.", f"({secret}) is refused", f'the value "{secret}", as sent', secret):
        scrubbed = SCRUBBER.text(words)
        assert secret not in scrubbed
        assert REMOVED in scrubbed
    assert SCRUBBER.text(f"Refused for {secret} today").startswith("Refused for ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(REMOVED_FROM + KEPT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_a_scrubbed_value_is_json_without_the_credential(value: Any, escaped: bool) -> None:
    """However the provider escapes it; and so is what operators read."""
    body = json.dumps({"error": value, "also": CREDENTIAL}, ensure_ascii=escaped).replace("/", "\\/")
    scrubbed = SCRUBBER.value(json.loads(body))
    assert json.loads(json.dumps(scrubbed)) == scrubbed
    assert CREDENTIAL not in str(scrubbed)
    assert CREDENTIAL not in SCRUBBER.for_operators(body.encode())


def test_members_that_name_the_account_are_left_out() -> None:
    """Whatever stands in them; the types of Google's details are not hosts."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TOO_LONG"}
    value = {"message": "no", "requestId": "x", "org_id": 5, "Project-Number": 7, "details": [info]}
    assert SCRUBBER.value(value) == {"message": "no", "details": [info]}


def test_operators_see_all_but_the_credential() -> None:
    """In an event of a stream, too, with any escape."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in CREDENTIAL)
    words = f'event: error\ndata: {{"error":{{"message":"key {escaped} of org-AbCdEf123456"}}}}\n\n'
    told = SCRUBBER.for_operators(words.encode())
    assert CREDENTIAL not in told
    assert "org-AbCdEf123456" in told
    assert Scrubber("", "https://x.example").for_operators(b"words") == "words"


def test_a_long_text_is_cut_and_a_long_value_ends() -> None:
    """So that an error is never the size of an answer; no part of a secret is left at the cut."""
    assert len(SCRUBBER.text("too long " * 100_000)) <= LONGEST_TEXT + 1
    assert "sk-proj" not in SCRUBBER.text("x" * 19_990 + CREDENTIAL * 10_000)
    wide = SCRUBBER.value({"error": [["y" * 3_000] * 1_000] * 1_000})
    assert len(json.dumps(wide)) < 2 * MOST_TEXT
    deep: Any = "end"
    for _ in range(500):
        deep = {"in": [deep]}
    assert len(json.dumps(SCRUBBER.value(deep))) < 200


@pytest.mark.parametrize(
    "part", ["a", "a.", "a@", "1.", "org-", "a-", "[", "sk-", "projects/", "http://", "request id "]
)
def test_texts_that_are_made_to_be_hard_are_scrubbed(part: str) -> None:
    """No pattern tries a text again and again: this ends at once, or never."""
    assert len(SCRUBBER.text(part * 100_000)) <= LONGEST_TEXT + 1
