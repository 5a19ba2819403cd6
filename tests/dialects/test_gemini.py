"""Gemini's wire format: what is read, what is refused, what is forwarded, and how a stream is watched."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dialects.test_media import mp4, text
from tests.usages import used
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.usage import Usage
from toolkit.dialects import gemini
from toolkit.dialects.body import parse_object
from toolkit.dialects.media import Kind, Medium
from toolkit.dialects.shape import Shape

GENERATE, STREAM, COUNT = "generateContent", "streamGenerateContent", "countTokens"
EMBED, BATCH = "embedContent", "batchEmbedContents"
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
PNG = {"mimeType": "image/png", "data": "A" * 5000}


def inspect(endpoint: str = GENERATE, **fields: Any) -> Shape:
    body = json.dumps({"contents": HELLO, **fields}).encode()
    return gemini.inspect(endpoint, parse_object(body), len(body), "models/m")


def config(**fields: Any) -> Shape:
    return inspect(generationConfig=fields)


def parts(*given_parts: Any) -> Shape:
    return inspect(contents=[{"parts": list(given_parts)}])


@pytest.mark.parametrize("snake", [False, True])
def test_request_is_read_in_either_spelling(snake: bool) -> None:
    """Every fact that a price can depend on is taken from the body, in camel and in snake case."""
    system, declared, conf, count, bound = (
        ("system_instruction", "function_declarations", "generation_config", "candidate_count", "max_output_tokens")
        if snake
        else ("systemInstruction", "functionDeclarations", "generationConfig", "candidateCount", "maxOutputTokens")
    )
    body = {
        "contents": [*HELLO, {"role": "model", "parts": {"text": "hi"}}],
        system: {"parts": [{"text": "be brief"}]},
        "tools": [{declared: [{"name": "f"}, {"name": "g"}]}, {declared: [{"name": "h"}]}],
        conf: {count: 2, bound: 50},
    }
    raw = json.dumps(body).encode()
    assert gemini.inspect(STREAM, body, len(raw), "gemini-x") == Shape(
        endpoint=STREAM,
        model="gemini-x",
        stream=True,
        free=False,
        text_bytes=len(raw),
        messages=3,
        tools=3,
        media={},
        whole_context=False,
        choices=2,
        output_bound=50,
        output=True,
        usage_asked=True,
    )


def test_counting_tokens_is_free() -> None:
    """Token counting has no output; a whole request inside it is read too."""
    inner = {"model": "models/m", "contents": HELLO, "generationConfig": {"maxOutputTokens": 5}}
    shape = inspect(COUNT, generateContentRequest=inner)
    assert (shape.free, shape.output, shape.output_bound, shape.messages) == (True, False, None, 2)
    with pytest.raises(Refusal) as caught:
        inspect(COUNT, generateContentRequest={**inner, "cachedContent": "cachedContents/1"})
    assert caught.value.param == "generateContentRequest.cachedContent"


def test_embeddings_have_no_output() -> None:
    """One content or many: embeddings are charged for input alone."""
    assert not inspect(EMBED, contents=None, content=HELLO[0]).output
    requests = [{"model": "models/m", "content": HELLO[0]}] * 3
    shape = inspect(BATCH, contents=None, requests=requests)
    assert (shape.output, shape.messages, shape.model) == (False, 3, "m")


@pytest.mark.parametrize("field", ["inlineData", "inline_data"])
def test_inline_pictures_are_counted_wherever_they_stand(field: str) -> None:
    """Pictures in contents and in the results of functions are counted by piece, not by length."""
    image = {field: PNG}
    shape = parts(image, {"functionResponse": {"name": "f", "response": {}, "parts": [image]}})
    assert (shape.media, shape.whole_context) == ({Medium(Kind.PICTURE): 2}, False)
    assert shape.text_bytes < 400


VIDEO = text(mp4(3, late=30_000))


@pytest.mark.parametrize("kind", ["video/mp4", "application/pdf", "text/plain", "", None, 5])
def test_parts_of_unknown_size_take_the_whole_context(kind: object) -> None:
    """What only the provider can count is held as the whole context window."""
    data = VIDEO if kind == "video/mp4" else "AAAA"
    assert parts({"inlineData": {"mimeType": kind, "data": data}}).whole_context


@pytest.mark.parametrize("kind", ["video/mp4", "application/pdf", "text/plain", "application/zip"])
def test_the_bytes_of_media_are_no_text(kind: str) -> None:
    """In contents and in the results of functions."""
    blob = {"inlineData": {"mimeType": kind, "data": VIDEO if kind == "video/mp4" else "A" * 100_000}}
    shape = parts(blob, {"functionResponse": {"name": "f", "response": {}, "parts": [blob]}})
    assert (sum(shape.media.values()), shape.text_bytes < 400) == (2, True)


def test_a_picture_makes_no_input_of_an_embedding_longer() -> None:
    """An input is too long by its text alone."""
    blob = {"inlineData": {"mimeType": "image/png", "data": "A" * 100_000}}
    requests = [{"content": {"parts": [part]}} for part in (blob, {"text": "words"}, blob)]
    shape = inspect(BATCH, contents=None, requests=requests)
    assert (shape.inputs, shape.longest_input < 50, shape.text_bytes < 500) == (3, True, True)


@pytest.mark.parametrize("snake", [False, True])
def test_media_resolution_is_read_of_the_request_and_of_its_parts(snake: bool) -> None:
    """A part's own counts; a number of tokens that it asks for holds the whole context window."""
    name, count, conf = (
        ("media_resolution", "num_tokens", "generation_config")
        if snake
        else ("mediaResolution", "numTokens", "generationConfig")
    )
    own = {"inlineData": PNG, name: {"level": "MEDIA_RESOLUTION_ULTRA_HIGH"}}
    content = [{"parts": [own, {"inlineData": PNG}]}]
    fields: dict[str, Any] = {conf: {name: "media_resolution_low"}}
    shape = inspect(contents=content, **fields)
    assert shape.media == {Medium(Kind.PICTURE, detail=level): 1 for level in ("ultra_high", "low")}
    assert not shape.whole_context
    assert parts({"inlineData": PNG, name: {count: 9_999}}).whole_context
    assert parts({"inlineData": PNG, name: 5}).media == {Medium(Kind.PICTURE, detail="?"): 1}


@pytest.mark.parametrize(
    ("rate", "frames"),
    [(None, 1_000), (5, 5_000), (0.5, 500), (1e308, 24_000), (-1, 24_000), ("2", 24_000), (True, 24_000)],
)
def test_frames_of_a_video_are_read(rate: object, frames: int) -> None:
    """More frames a second cost more; what is no rate counts as the highest."""
    video = {"inlineData": {"mimeType": "video/mp4", "data": text(mp4(3))}, "videoMetadata": {"fps": rate}}
    assert [medium.frames for medium in parts(video).media] == [frames]


@pytest.mark.parametrize("written", [7, 7.0, "7"])
def test_a_number_may_be_written_as_protocol_buffers_write_it(written: object) -> None:
    """The bound, and how many answers, move the hold however they are written."""
    shape = config(maxOutputTokens=written, candidate_count=written)
    assert (shape.output_bound, shape.choices) == (7, 7)


def test_a_computer_that_the_caller_controls_declares_its_functions() -> None:
    """Beside those of the caller's own; their declarations are input that the body does not have."""
    own = {"functionDeclarations": [{"name": "f"}]}
    for name in ("computerUse", "computer_use"):
        assert inspect(tools=[own, {name: {"environment": "ENVIRONMENT_BROWSER"}}]).tools == 17
    assert inspect(tools=[{**own, "computerUse": None}]).tools == 1


INVALID: list[tuple[str, Callable[[], Shape]]] = [
    ("generationConfig.candidateCount", lambda: config(candidateCount=9)),
    ("generationConfig.candidateCount", lambda: config(candidateCount="two")),
    ("generationConfig.candidateCount", lambda: config(candidateCount="9")),
    ("generationConfig.candidateCount", lambda: config(candidateCount=1.5)),
    ("generationConfig.maxOutputTokens", lambda: config(maxOutputTokens="9" * 5_000)),
    ("generationConfig.candidate_count", lambda: config(candidate_count=0)),
    ("generationConfig.maxOutputTokens", lambda: config(maxOutputTokens=0)),
    ("generationConfig.maxOutputTokens", lambda: config(maxOutputTokens=5, max_output_tokens=6)),
    ("generationConfig.MaxOutputTokens", lambda: config(MaxOutputTokens=5)),
    ("generationConfig", lambda: inspect(generationConfig={}, generation_config={})),
    ("generationConfig", lambda: inspect(generationConfig=5)),
    ("contents[0]", lambda: inspect(contents=["x", 5])),
    ("contents[0].parts[0]", lambda: parts("x")),
    ("contents[0].parts[0].inlineData", lambda: parts({"inlineData": PNG, "inline_data": PNG})),
    ("tools", lambda: inspect(tools="f")),
    ("model", lambda: inspect(model="models/dearer")),
    ("requests", lambda: inspect(BATCH)),
    ("requests[1].model", lambda: inspect(BATCH, requests=[{"model": "models/m"}, {"model": "models/dearer"}])),
    ("CachedContent", lambda: inspect(CachedContent="x")),
    ("model", lambda: gemini.inspect(GENERATE, {"contents": HELLO}, 5, "")),
]


@pytest.mark.parametrize(("param", "call"), INVALID, ids=[f"{i}-{p}" for i, (p, _) in enumerate(INVALID)])
def test_wrong_values_are_refused_by_name(param: str, call: Callable[[], Shape]) -> None:
    """A malformed field is `invalid_request`, and the refusal names it."""
    with pytest.raises(Refusal) as caught:
        call()
    assert (caught.value.type, caught.value.param) == (RefusalType.INVALID_REQUEST, param)


UNSUPPORTED: list[tuple[str, Callable[[], Shape]]] = [
    ("cachedContent", lambda: inspect(cachedContent="cachedContents/1")),
    ("cached_content", lambda: inspect(cached_content="cachedContents/1")),
    ("serviceTier", lambda: inspect(serviceTier="PRIORITY")),
    ("service_tier", lambda: inspect(service_tier="flex")),
    ("store", lambda: inspect(store=True)),
    ("contents[0].parts[0].fileData", lambda: parts({"fileData": {"fileUri": "files/1"}})),
    ("contents[0].parts[0].file_data", lambda: parts({"text": "x", "file_data": {"file_uri": "files/1"}})),
    (
        "contents[0].parts[0].functionResponse.parts[0].fileData",
        lambda: parts({"functionResponse": {"parts": [{"fileData": {"fileUri": "files/1"}}]}}),
    ),
    ("systemInstruction.parts[0].fileData", lambda: inspect(systemInstruction={"parts": [{"fileData": {"a": 1}}]})),
    ("contents[0].parts[0].inlineData", lambda: parts({"inlineData": {"mimeType": "AUDIO/wav", "data": "A"}})),
    ("contents[0].parts[0].executableCode", lambda: parts({"executableCode": {"code": "1"}})),
    ("contents[0].parts[0].toolCall", lambda: parts({"toolCall": {"id": "1"}})),
    ("generationConfig.responseModalities", lambda: config(responseModalities=["TEXT", "IMAGE"])),
    ("generationConfig.response_modalities", lambda: config(response_modalities=["audio"])),
    ("generationConfig.speechConfig", lambda: config(speechConfig={"languageCode": "en"})),
    ("generationConfig.imageConfig", lambda: config(imageConfig={"aspectRatio": "1:1"})),
    ("generationConfig.routing_config", lambda: config(routing_config={"autoMode": {"a": 1}})),
    ("generationConfig.continuationToken", lambda: config(continuationToken="AA==")),
    ("generationConfig.audioTranscriptionConfig", lambda: config(audioTranscriptionConfig={"a": 1})),
    ("generationConfig.responseFormat[0].image", lambda: config(responseFormat=[{"image": {"a": 1}}])),
    *[
        (f"tools[0].{name}", lambda name=name: inspect(tools=[{name: {}}]))
        for name in (
            "googleSearch",
            "google_search",
            "googleSearchRetrieval",
            "codeExecution",
            "urlContext",
            "fileSearch",
            "googleMaps",
            "mcpServers",
            "toolOfTomorrow",
        )
    ],
]


@pytest.mark.parametrize(("param", "call"), UNSUPPORTED, ids=[f"{i}-{p}" for i, (p, _) in enumerate(UNSUPPORTED)])
def test_what_cannot_be_metered_is_refused_by_name(param: str, call: Callable[[], Shape]) -> None:
    """Provider-side state and anything without a price is `unsupported_feature`, with the field and a reason."""
    with pytest.raises(Refusal) as caught:
        call()
    assert (caught.value.type, caught.value.param) == (RefusalType.UNSUPPORTED_FEATURE, param)
    assert f"'{param}' is not supported here: " in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"serviceTier": "STANDARD", "cachedContent": None, "store": False, "labels": {"a": "b"}},
        {"generationConfig": {"responseModalities": ["TEXT"], "thinkingConfig": {"thinkingBudget": 5}}},
        {"generation_config": {"response_modalities": "text", "candidate_count": None}},
        {"tools": [{"functionDeclarations": [{"name": "f"}], "googleSearch": None}]},
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {}}}, {"text": "x", "thought": True}]}]},
    ],
)
def test_harmless_features_pass(fields: dict[str, Any]) -> None:
    """What changes no price and refers to no state is forwarded."""
    assert inspect(**fields).output


NAMES = [
    *("contents", "content", "parts", "text", "inlineData", "inline_data", "mimeType", "mime_type", "data", "model"),
    *("systemInstruction", "system_instruction", "tools", "functionDeclarations", "generationConfig", "Contents"),
    *("candidateCount", "candidate_count", "maxOutputTokens", "responseModalities", "responseFormat", "requests"),
    *("functionResponse", "response", "generateContentRequest", "cachedContent", "serviceTier", "generation_config"),
]
HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["image/png", "TEXT", "m"])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)


@given(st.sampled_from(gemini.ENDPOINTS), st.dictionaries(st.sampled_from(NAMES), HOSTILE))
def test_any_object_ends_in_a_shape_or_a_refusal(endpoint: str, body: dict[str, Any]) -> None:
    """No body makes the reader fail otherwise, and what passes can be rewritten."""
    try:
        outcome: object = gemini.inspect(endpoint, body, 10_000, "m")
        gemini.rewrite(endpoint, body, upstream_model="u", output_bound=5, include_usage=True)
    except Refusal as refusal:
        outcome = refusal.type
    assert isinstance(outcome, Shape) or outcome in (RefusalType.INVALID_REQUEST, RefusalType.UNSUPPORTED_FEATURE)


def rewrite(endpoint: str, body: dict[str, Any], bound: int | None = None) -> dict[str, Any] | None:
    before = json.dumps(body)
    changed = gemini.rewrite(endpoint, body, upstream_model="up", output_bound=bound, include_usage=False)
    assert json.dumps(body) == before, "the input was changed"
    return changed


@pytest.mark.parametrize("key", ["generationConfig", "generation_config"])
def test_default_bound_goes_into_the_config_that_is_there(key: str) -> None:
    """The bound joins the caller's other settings, unless the caller gave one."""
    assert rewrite(GENERATE, {key: {"seed": 1}}, 9) == {key: {"seed": 1, "maxOutputTokens": 9}}
    assert rewrite(GENERATE, {key: {"max_output_tokens": 5}}, 9) is None
    assert rewrite(GENERATE, {key: {"max_output_tokens": None}}, 9) == {key: {"maxOutputTokens": 9}}
    assert rewrite(STREAM, {}, 9) == {"generationConfig": {"maxOutputTokens": 9}}
    assert rewrite(EMBED, {}, 9) is None


def test_model_in_the_body_is_renamed_with_the_path() -> None:
    """Where a body repeats the model, it must name the upstream's."""
    assert rewrite(GENERATE, {"contents": HELLO}) is None
    assert rewrite(EMBED, {"model": "models/m", "content": {}}) == {"model": "models/up", "content": {}}
    assert rewrite(BATCH, {"requests": [{"model": "models/m", "a": 1}, {}]}) == {
        "requests": [{"model": "models/up", "a": 1}, {}]
    }
    assert rewrite(COUNT, {"generateContentRequest": {"model": "m", "contents": []}}) == {
        "generateContentRequest": {"model": "models/up", "contents": []}
    }


def test_usage_is_read() -> None:
    """Tool results are input, thoughts are output, cached tokens are part of the prompt."""
    usage = {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 600,
        "toolUsePromptTokenCount": 50,
        "candidatesTokenCount": 40,
        "thoughtsTokenCount": 60,
    }
    assert used(gemini.usage_of(GENERATE, {"usageMetadata": usage})) == Usage(
        input_tokens=1050,
        cached_input_tokens=600,
        output_tokens=100,
        reasoning_tokens=60,
    )
    assert gemini.usage_of(COUNT, {"totalTokens": 5, "usageMetadata": usage}) is None
    assert used(gemini.usage_of(EMBED, {"embedding": {}, "usageMetadata": {"promptTokenCount": 7}})) == Usage(7)


@given(HOSTILE)
def test_garbage_instead_of_usage_never_fails(value: object) -> None:
    """Reading usage never raises, whatever came."""
    gemini.usage_of(GENERATE, {"usageMetadata": value})
    answer = {"usageMetadata": {"promptTokenCount": 1, "promptTokensDetails": value}}
    assert used(gemini.usage_of(GENERATE, answer)) == Usage(1)


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": index}
    if text is not None:
        candidate["content"] = {"role": "model", "parts": [{"text": text}]}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r1", **more}


def framed(chunks: list[dict[str, Any]], sse: bool) -> list[bytes]:
    """The pieces that a body of these chunks consists of."""
    if sse:
        return [f"data: {json.dumps(item)}\r\n\r\n".encode() for item in chunks]
    return [(",\r\n" if at else "[").encode() + json.dumps(item, indent=1).encode() for at, item in enumerate(chunks)]


USAGE: dict[str, Any] = {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 4}}
LATER: dict[str, Any] = {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 2}}


@pytest.mark.parametrize("sse", [True, False])
def test_stream_passes_all_but_its_last_chunk(sse: bool) -> None:
    """Every chunk passes unchanged at once; the one with the finish reason waits, and so does the bracket."""
    first, second, last = framed([chunk("hello", **USAGE), chunk("!!!", **USAGE), chunk("", "STOP", **LATER)], sse)
    tail = b"" if sse else b"]"
    meter = gemini.Meter(STREAM, sse=sse)
    assert meter.feed(first + second) == [first, second]
    assert not meter.complete
    assert meter.feed(last + tail) == []
    assert b"".join(meter.finish()) == last + tail
    assert (meter.complete, meter.failed, meter.response_id) == (True, False, "r1")
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=7, reasoning_tokens=2)
    assert meter.output_seen == 2


@pytest.mark.parametrize("sse", [True, False])
def test_chunk_after_the_finish_reason_is_the_one_that_waits(sse: bool) -> None:
    """A last chunk that only brings usage follows at times; then the one before it passes."""
    finish, report = framed([chunk("x", "STOP"), {"responseId": "r1", **LATER}], sse)
    meter = gemini.Meter(STREAM, sse=sse)
    assert meter.feed(finish) == []
    assert meter.feed(report) == [finish]
    assert meter.finish() == [report]
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=7, reasoning_tokens=2)


@pytest.mark.parametrize("gap", [{"totalTokenCount": 0}, {"promptTokenCount": 9, "candidatesTokenCount": "x"}, {}])
def test_a_last_report_with_gaps_is_completed_by_those_before_it(gap: dict[str, Any]) -> None:
    """The last usage counts; where it is of zeros, or lacks a side, the one before it says more."""
    meter = gemini.Meter(STREAM, sse=True)
    for piece in framed([chunk("a", **USAGE), chunk("b", **LATER), chunk("", "STOP", usageMetadata=gap)], sse=True):
        meter.feed(piece)
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=7, reasoning_tokens=2)


@given(st.lists(st.text(), min_size=1), st.booleans(), st.integers(min_value=1, max_value=60))
def test_stream_is_the_same_at_any_chunking(texts: list[str], sse: bool, size: int) -> None:
    """What passes and what is kept back is the whole stream, and the estimate is that of its text."""
    pieces = framed([*(chunk(text) for text in texts), chunk(finish="MAX_TOKENS")], sse)
    data = b"".join(pieces) + (b"" if sse else b"\n]")
    meter = gemini.Meter(STREAM, sse=sse)
    passed = [piece for at in range(0, len(data), size) for piece in meter.feed(data[at : at + size])]
    assert passed == pieces[:-1]
    assert b"".join(passed + meter.finish()) == data
    assert meter.output_seen == -(-len("".join(texts).encode()) // 4)


def test_blocked_prompt_is_a_complete_answer() -> None:
    """A prompt that the provider blocks has no candidates and no finish reason."""
    (blocked,) = framed(
        [{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}], sse=True
    )
    meter = gemini.Meter(STREAM, sse=True)
    assert meter.feed(blocked) == []
    assert meter.complete
    assert used(meter.report) == Usage(3)


def test_every_candidate_must_finish() -> None:
    """With two candidates the first one's finish reason is not the end."""
    meter = gemini.Meter(STREAM, sse=True, choices=2)
    first, second = framed([chunk("a", "STOP"), chunk("b", "STOP", index=1)], sse=True)
    meter.feed(first)
    seen = [meter.complete]
    meter.feed(second)
    seen.append(meter.complete)
    assert seen == [False, True]


@pytest.mark.parametrize("sse", [True, False])
def test_truncated_stream_is_not_complete(sse: bool) -> None:
    """A body that ends before the answer does is told from one that is whole, bracket or not."""
    meter = gemini.Meter(STREAM, sse=sse)
    (piece,) = framed([chunk("a", **USAGE)], sse)
    meter.feed(piece + (b"" if sse else b"]"))
    meter.finish()
    assert not meter.complete
    assert used(meter.report) == Usage(input_tokens=9, output_tokens=4)


@pytest.mark.parametrize("sse", [True, False])
def test_error_in_a_stream_is_kept_back_as_a_failure(sse: bool) -> None:
    """The provider's own error is the end of the stream, and no regular one."""
    first, error = framed([chunk("a"), {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}], sse)
    meter = gemini.Meter(STREAM, sse=sse)
    assert meter.feed(first + error) == [first]
    assert (meter.failed, meter.complete) == (True, False)
    assert meter.finish() == [error]


def test_function_calls_count_as_output() -> None:
    """The estimate covers the arguments of calls."""
    call = {"functionCall": {"name": "f", "args": {"city": "Zürich"}}}
    (piece,) = framed([{"candidates": [{"content": {"parts": [call]}}]}], sse=True)
    meter = gemini.Meter(STREAM, sse=True)
    meter.feed(piece)
    assert meter.output_seen == -(-len('{"city":"Zürich"}'.encode()) // 4)


BROKE = Refusal(RefusalType.UPSTREAM_ERROR, "The provider's connection broke.")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_broken_array_stays_well_formed(count: int) -> None:
    """The error is the array's last element, however many came before."""
    body = b"".join(framed([chunk("a")] * count, sse=False))
    body += gemini.error_event(BROKE, "req_1", sse=False, endpoint=STREAM, started=count > 0)
    *answers, last = json.loads(body)
    assert len(answers) == count
    assert last["error"]["code"] == 502


def test_upstream_is_addressed_below_its_base() -> None:
    """The model is part of the path and cannot leave it; `alt=sse` is kept for streams."""
    assert gemini.upstream_path(GENERATE, "models/m", stream=False) == "/v1beta/models/m:generateContent"
    assert gemini.upstream_path(STREAM, "a/../b?c", stream=True, alt_sse=True) == (
        "/v1beta/models/a%2F..%2Fb%3Fc:streamGenerateContent?alt=sse"
    )
    assert gemini.auth_headers("secret") == {"x-goog-api-key": "secret"}
    assert gemini.response_id_of({"responseId": "r"}) == "r"
