"""Pictures, documents and videos: what is held for them, and what a caller is charged whose usage nobody reported."""

import json
from base64 import b64encode
from struct import pack
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.dialects.test_media import mp4, pdf, picture, text, webm
from tests.gateway.conftest import Gate, dialect_of, http_answer, raw_upstream, request_of
from tests.gateway.test_streams import EVENTS, chunk, hang_up
from toolkit.store.tables import OutboxRow

JSON = "Content-Type: application/json"
PDF_URL, PICTURE_URL = "https://example.com/a.pdf", "https://example.com/a.jpg"


def document(kind: str, data: bytes) -> dict[str, Any]:
    """Return the fields of a request that carries a PDF, or a video to Gemini, which takes them."""
    inline = text(data)
    if kind == "chat":
        file = {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{inline}"}
        return {"messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}
    if kind == "responses":
        part = {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{inline}"}
        return {"input": [{"role": "user", "content": [part]}]}
    if kind == "messages":
        source = {"type": "base64", "media_type": "application/pdf", "data": inline}
        return {"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]}
    return {"contents": [{"parts": [{"inlineData": {"mimeType": "video/mp4", "data": inline}}]}]}


def unmeasured(kind: str, size: int) -> bytes:
    """Return a document that says nothing of its pages, or a video that does not say how long it is, for Gemini."""
    return mp4(0, late=size // 2 - 500) if kind == "generate" else bytes(size)


def by_url(kind: str, address: str) -> dict[str, Any]:
    """Return the fields of a request that carries a picture, or a PDF, by its address."""
    is_picture = address == PICTURE_URL
    if kind == "chat":
        return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}]}
    if kind == "responses":
        part = (
            {"type": "input_image", "image_url": address} if is_picture else {"type": "input_file", "file_url": address}
        )
        return {"input": [{"role": "user", "content": [part]}]}
    block = {"type": "image" if is_picture else "document", "source": {"type": "url", "url": address}}
    return {"messages": [{"role": "user", "content": [block]}]}


def leave(gate: Gate, kind: str, fields: dict[str, Any]) -> OutboxRow:
    """Ask for a stream, leave before its first byte, and return the row."""
    with raw_upstream([], linger=True) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        path, body = request_of(kind, "", stream=True, **fields)
        if "model" in body:
            body["model"] = behind.model
        with behind.gate.connection() as connection:
            connection.request(
                "POST",
                path.replace("gemini-test", behind.model),
                json.dumps(body),
                {"Authorization": f"Bearer {behind.gate.secret}"},
            )
            wait_until(lambda: upstream.requests, "the request to have been forwarded")
            hang_up(connection)
        wait_until(behind.gate.rows, "the row of a caller who left")
    row = behind.gate.row()
    assert (row.outcome, row.usage_source, row.overrun) == ("aborted", "estimated", 0)
    assert row.cost <= row.held
    return row


@pytest.mark.parametrize("kind", ["chat", "responses", "messages", "generate"])
def test_a_document_that_nobody_could_measure_costs_its_hold_at_most(gate: Gate, kind: str) -> None:
    """Three megabytes are no text: as many tokens as the context window has, not one for four signs of base64."""
    row = leave(gate, kind, document(kind, unmeasured(kind, 3_000_000)))
    # A video of 100 kbit/s would last 240 seconds.
    assert 0 <= row.input_tokens - (240 * 290 if kind == "generate" else 100_000) <= 100


@pytest.mark.parametrize(
    ("kind", "data", "tokens"),
    [
        # A page's text and a picture of it, in patches of 28 px: 52 × 74; or 1,448 × 2,048 ÷ 750.
        ("chat", pdf(3, padding=2_000_000), 3 * (3_000 + 3_848)),
        ("responses", pdf(3, padding=2_000_000), 3 * (3_000 + 3_848)),
        ("messages", pdf(3, padding=2_000_000), 3 * (3_000 + 3_955)),
        ("generate", mp4(60, late=2_000_000), 60 * (280 + 10)),
    ],
)
def test_a_document_is_charged_by_its_pages_and_a_video_by_its_seconds(
    gate: Gate, kind: str, data: bytes, tokens: int
) -> None:
    """What its header says, plus the little text around it."""
    row = leave(gate, kind, document(kind, data))
    assert 0 < row.input_tokens - tokens <= 100


@pytest.mark.parametrize(
    ("kind", "address", "tokens"),
    [
        # The largest that a model of that kind takes; of a PDF, whose pages nobody can tell, the whole context window.
        ("chat", PICTURE_URL, 16_384),
        ("responses", PICTURE_URL, 16_384),
        ("messages", PICTURE_URL, 4_784),
        ("responses", PDF_URL, 100_000),
        ("messages", PDF_URL, 100_000),
    ],
)
def test_what_only_the_provider_has_seen_counts_as_the_most_that_it_can_be(
    gate: Gate, kind: str, address: str, tokens: int
) -> None:
    """Who leaves does not choose a discount of his own."""
    row = leave(gate, kind, by_url(kind, address))
    assert 0 <= row.input_tokens - tokens <= 100


@pytest.mark.parametrize(("pictures", "tokens"), [(5, 5 * 16_384), (30, 100_000)])
def test_who_reads_the_text_and_hangs_up_before_the_usage_pays_for_the_pictures(
    gate: Gate, pictures: int, tokens: int
) -> None:
    """Each as the most that it can be, all together no more than was held; and the words that were read."""
    url = {"type": "image_url", "image_url": {"url": PICTURE_URL}}
    words = chunk("word " * 100)
    with raw_upstream([EVENTS, words], linger=True) as upstream:
        behind = gate.behind(upstream.url)
        messages = [{"role": "user", "content": [url] * pictures}]
        with behind.gate.streaming("chat", "", model=behind.model, messages=messages) as (connection, answer):
            assert answer.read1(65_536) == words
            hang_up(connection, answer)
        wait_until(behind.gate.rows, "the row of a caller who left")
    row = behind.gate.row()
    assert (row.outcome, row.usage_source, row.output_tokens) == ("aborted", "estimated", 125)
    assert 0 <= row.input_tokens - tokens <= 1_000
    assert row.cost <= row.held


@pytest.mark.parametrize("kind", ["chat", "messages", "generate"])
def test_an_answer_without_usage_to_a_document_costs_its_hold_at_most(gate: Gate, kind: str) -> None:
    """A long answer beyond the bound that was sent does not either."""
    answer = json.dumps({"id": "a", "text": "word " * 100_000}).encode()
    with raw_upstream([http_answer(answer, JSON)]) as upstream:
        behind = gate.behind(upstream.url, dialect_of(kind))
        reply = behind.ask(kind, **document(kind, unmeasured(kind, 1_000_000)))
    row = behind.gate.row()
    assert reply.status == 200
    assert row.usage_source == "estimated"
    assert 0 <= row.input_tokens - (80 * 290 if kind == "generate" else 100_000) <= 100
    assert row.output_tokens == (1_000 if kind == "messages" else 4_096)
    assert row.cost <= row.held


@pytest.mark.parametrize(
    ("url", "tokens"),
    [
        (f"data:image/png;base64,{text(picture('PNG', 1_024, 1_024))}", 85 + 4 * 170),
        (f"data:image/png;base64,{text(b'who knows' * 99)}", 85 + 8 * 170),
        (f"data:image/png;base64,{text(pdf(1))}", 100_000),
        (PICTURE_URL, 100_000),
    ],
    ids=["sized", "unknown", "a document", "by address"],
)
def test_a_picture_is_held_by_its_size(gate: Gate, url: str, tokens: int) -> None:
    """Read from its bytes, whatever it is declared as; else the largest; what may be anything holds all."""
    with raw_upstream([http_answer(b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}', JSON)]) as upstream:
        behind = gate.behind(upstream.url, upstream_model="gpt-4o")
        fields: dict[str, Any] = {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
        }
        assert behind.ask("chat", max_tokens=1, **fields).status == 200
    # Held at the dearer prices if so much input can reach them: 1 or 2 USD a million, and 8 or 12 for one of output.
    held = behind.gate.row().held
    if tokens == 100_000:
        assert held == 100_000 * 2_000 + 12_000
    else:
        assert 16 * 1_000 < held - 8_000 - tokens * 1_000 <= 400 * 1_000


@pytest.mark.parametrize(
    ("data", "declared"),
    [
        (mp4(3, sound=True), "video/mp4"),
        (webm(1, 2), "video/webm"),
        (b"RIFF" + pack("<I", 9) + b"WAVEfmt ", "video/mp4"),
        (b"RIFF" + pack("<I", 9) + b"AVI LIST", "video/avi"),
        (b"FLV\x01\x05", "video/x-flv"),
    ],
    ids=["a track", "a track of WebM", "sound under a false name", "AVI", "Flash"],
)
def test_a_video_with_sound_is_refused_where_sound_has_no_price(gate: Gate, data: bytes, declared: str) -> None:
    """It would be billed at another price than text; so is one that may have sound, for all that can be told."""
    inline = {"inlineData": {"mimeType": declared, "data": b64encode(data).decode()}}
    reply = gate.ask("generate", "", contents=[{"parts": [inline]}])
    assert (reply.status, reply.type) == (400, "unsupported_feature")
    assert "sound" in reply.message or "audio" in reply.message


def test_sound_that_a_provider_counts_all_the_same_is_for_a_person_to_look_at(gate: Gate) -> None:
    """It is charged as text, for there is no other price; the row says that it should not be."""
    details = [{"modality": "VIDEO", "tokenCount": 600}, {"modality": "AUDIO", "tokenCount": 64}]
    usage = {"promptTokenCount": 700, "candidatesTokenCount": 5, "promptTokensDetails": details}
    answer = {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}], "usageMetadata": usage}
    with raw_upstream([http_answer(json.dumps(answer).encode(), JSON)]) as upstream:
        behind = gate.behind(upstream.url, dialect_of("generate"))
        assert behind.ask("generate", **document("generate", webm(1))).status == 200
    row = behind.gate.row()
    assert (row.input_tokens, row.output_tokens) == (700, 5)
    assert row.usage_doubt == "tokens of sound, which has no price of its own here"
