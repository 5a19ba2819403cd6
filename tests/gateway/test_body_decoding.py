"""Compressed request bodies are unpacked whatever the pieces they come in, and never beyond the limits."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncGenerator, Callable

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import examples
from tests.gateway.conftest import Gate, http_answer, raw_upstream
from toolkit.core.errors import Refusal, RefusalType
from toolkit.gateway.body_decoding import PIECE, decoded

MOST = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the frame of RFC 1950, as some clients send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip of two members": ("x-gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without a frame": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "zstd of two frames": ("zstd", lambda data: zstd.compress(data[:7]) + zstd.compress(data[7:])),
    "br": ("br", brotli.compress),
}


def unpack(encoding: str, *parts: bytes, most: int = MOST) -> list[bytes]:
    """Return the pieces of a body that comes in parts."""

    async def come() -> AsyncGenerator[bytes, None]:
        for part in parts:
            yield part

    async def collect() -> list[bytes]:
        return [piece async for piece in decoded(come(), encoding, most)]

    return asyncio.run(collect())


def refused(encoding: str, *parts: bytes, most: int = MOST) -> Refusal:
    """Return why a body is not unpacked."""
    with pytest.raises(Refusal) as caught:
        unpack(encoding, *parts, most=most)
    return caught.value


@examples(30)
@given(st.sampled_from(list(PACKERS)), st.binary(max_size=300), st.integers(1, 400), st.integers(1, 50))
def test_a_body_is_what_was_packed(name: str, data: bytes, times: int, step: int) -> None:
    """Whatever the encoding, and wherever the parts are cut."""
    encoding, pack = PACKERS[name]
    whole = data * times
    packed = pack(whole)
    parts = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert b"".join(unpack(encoding, *parts)) == whole


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_comes_out_in_small_pieces(name: str) -> None:
    """So whoever counts them can stop: no piece is much larger than `PIECE`."""
    encoding, pack = PACKERS[name]
    pieces = unpack(encoding, pack(bytes(20 * PIECE)))
    assert sum(map(len, pieces)) == 20 * PIECE
    assert max(map(len, pieces)) <= 2 * PIECE


@pytest.mark.parametrize("name", PACKERS)
def test_a_body_that_is_cut_is_refused(name: str) -> None:
    """Half a body is never taken for a whole one."""
    encoding, pack = PACKERS[name]
    refusal = refused(encoding, pack(b"some text, " * 50)[:-3])
    assert (refusal.type, "in the middle" in refusal.message) == (RefusalType.INVALID_REQUEST, True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "br"])
def test_a_body_that_is_not_packed_as_it_says_is_refused(encoding: str) -> None:
    """Plain JSON, and rubbish behind the end."""
    assert refused(encoding, b'{"model":"gpt-test","messages":[]}').type is RefusalType.INVALID_REQUEST
    packed = next(pack for name, pack in PACKERS.values() if name == encoding)(b"x")
    assert refused(encoding, packed, b"\x00rubbish").type is RefusalType.INVALID_REQUEST


def test_a_packed_body_has_a_limit_of_its_own() -> None:
    """Empty members unpack to nothing for ever, and are counted by what comes."""
    refusal = refused("gzip", *[gzip.compress(b"")] * 100, most=1_000)
    assert (refusal.type, "1,000 bytes" in refusal.message) == (RefusalType.REQUEST_TOO_LARGE, True)


def test_a_window_beyond_the_standard_is_refused() -> None:
    """A zstd frame may ask its reader for gigabytes of memory; HTTP's has 8 MB at most."""
    packed = zstd.compress(b"x" * 1000, options={zstd.CompressionParameter.window_log: 27})
    huge = bytes([*packed[:4], packed[4] & ~0x20 & 0x3F, 0x88, *packed[6:]])
    assert refused("zstd", huge).type is RefusalType.INVALID_REQUEST


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_compressed_call_is_answered(gate: Gate, name: str, large: bool) -> None:
    """It is held, charged and forwarded as if it had come plain."""
    encoding, pack = PACKERS[name]
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    answer = http_answer(json.dumps({"id": "x", "usage": usage}).encode(), "Content-Type: application/json")
    with raw_upstream([answer]) as upstream:
        behind = gate.behind(upstream.url)
        body = {"model": behind.model, "messages": [{"role": "user", "content": "word " * (60_000 if large else 1)}]}
        packed = pack(json.dumps(body).encode())
        reply = behind.gate.send("/v1/chat/completions", packed, {"Content-Encoding": encoding.upper()})
    assert reply.status == 200
    head, _, sent = upstream.requests[0].partition(b"\r\n\r\n")
    assert b"content-encoding" not in head.lower()
    assert json.loads(sent)["messages"] == body["messages"]
    assert behind.gate.row().cost > 0


@pytest.mark.parametrize("encoding", ["compress", "gzip, zstd", "gzip;q=1"])
def test_an_encoding_that_is_not_read_is_415(gate: Gate, encoding: str) -> None:
    """It names those that are, in words and in the header that HTTP has for it."""
    reply = gate.send("/v1/chat/completions", b"x", {"Content-Encoding": encoding})
    assert (reply.status, reply.type) == (415, "unsupported_encoding")
    assert reply.headers["accept-encoding"] == "gzip, deflate, zstd, br"
    assert "zstd" in reply.message


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_is_too_large(gate: Gate, name: str) -> None:
    """A few kilobytes that unpack to more than the body limit are refused like a body of that size."""
    encoding, pack = PACKERS[name]
    bomb = pack(b" " * (33 << 20))
    reply = gate.send("/v1/chat/completions", bomb, {"Content-Encoding": encoding})
    assert (reply.status, reply.type) == (413, "request_too_large")
