"""An upstream that answers with recordings: the request's model names the one to send.

    python -m tests.gateway.recorded.upstream PORT

It reads requests as far as that takes, and writes answers byte by byte as their files have them. It insists upon what a
recording's preset says of how its provider is asked: who shows the credential or names the bound otherwise gets 422.
"""

import asyncio
import json
import re
import sys
from functools import cache
from pathlib import Path

from tests.gateway.recorded.recording import FOLDER, ORDERS, Recording, Sent
from toolkit.core.upstream_traits import USUAL, CredentialHeader, OutputBound
from toolkit.providers.presets import PRESETS

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_MODEL_IN_PATH = re.compile(r"/models/([^:]+):(\w+)")
_EVENT = re.compile(rb".*?\n\n|.+", re.DOTALL)
_ORDERS = re.compile(re.escape(ORDERS).replace(r"\{length\}", r"(\d+)").replace(r"\{piece\}", r"(\d+)").encode())


@cache
def _recording(model: str) -> Recording:
    return Recording.read(FOLDER / Path(model.replace(".", "/", 1)).with_suffix(".toml"))


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            path = head.split(b" ", 2)[1].decode()
            if not body:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                continue
            asked = json.loads(body)
            if found := _MODEL_IN_PATH.search(path):
                model, way = found[1], "stream" if found[2].startswith("stream") else "whole"
            else:
                model, way = asked["model"], "stream" if asked.get("stream") else "whole"
            recording = _recording(model)
            if wrong := _asked_wrongly(recording, head, asked):
                body = json.dumps({"error": {"message": wrong}}).encode()
                writer.write(b"HTTP/1.1 422 Asked wrongly\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                continue
            sent = recording.sent(way)
            if orders := _ORDERS.search(body):
                await _send_part(sent, int(orders[1]), int(orders[2]), writer)
                return
            if not await _answer(sent, way, reader, writer):
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _asked_wrongly(recording: Recording, head: bytes, asked: dict[str, object]) -> str | None:
    """Return what a recording's preset says that the provider would not take; None if nothing is wrong."""
    traits = PRESETS[recording.preset].traits if recording.preset else USUAL
    if traits.credential_header is not CredentialHeader.USUAL:
        name = next(iter(traits.credential_header.shown("")))
        if f"\r\n{name}: ".encode() not in head.lower():
            return f"The credential is expected in {name}."
    if not traits.add_stream_options and "stream_options" in asked:
        return "Extra inputs are not permitted: stream_options."
    if recording.ask == "chat" and traits.output_bound is not OutputBound.EITHER:
        found = {word for word in ("max_tokens", "max_completion_tokens") if word in asked}
        if found - {traits.output_bound}:
            return f"The bound is expected in {traits.output_bound}, not in {found}."
    return None


async def _send_part(sent: Sent, length: int, piece: int, writer: asyncio.StreamWriter) -> None:
    """Send so many bytes of a stream in pieces of a length, and break it off."""
    writer.write(f"HTTP/1.1 200 Recorded\r\ncontent-type: {sent.type}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    body = sent.until[:length]
    for start in range(0, len(body), piece):
        part = body[start : start + piece]
        writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()


async def _answer(sent: Sent, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Send an answer; return whether the connection can be used again."""
    whole = way == "whole" and not sent.breaks_after
    lines = [f"HTTP/1.1 {sent.status} Recorded", *(f"{name}: {value}" for name, value in sent.headers.items())]
    lines += [f"content-type: {sent.type}"] if sent.type else []
    lines += [f"content-length: {len(sent.body)}" if whole else "transfer-encoding: chunked"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    if whole:
        writer.write(sent.body)
        return True
    for piece in _EVENT.findall(sent.until):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    if sent.waits_after:
        await reader.read()
    if sent.breaks_after or sent.waits_after:
        return False
    writer.write(b"0\r\n\r\n")
    return True


async def _run(port: int) -> None:
    async with await asyncio.start_server(_serve, "127.0.0.1", port, limit=2**20) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1])))
