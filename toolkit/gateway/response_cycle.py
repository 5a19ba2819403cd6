"""A request of HTTP/1.1 and its answer, whose head is looked at once and not header by header.

uvicorn's own looks at each name and value by a regular expression of its own: a fiftieth of a call's CPU.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})

_NO_BODY = frozenset({204, 304})


class ResponseCycle(RequestResponseCycle):
    """One request, and what is sent for it; as uvicorn's, whose attributes it has."""

    async def send(self, message: Any) -> None:
        """Send a part of the answer, when the caller takes more.

        Raises:
            RuntimeError: the application says what it may not.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started and message["type"] == "http.response.start":
            self._write_head(message)
        elif self.response_started and not self.response_complete and message["type"] == "http.response.body":
            self._write_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is sent out of its turn")

    def _write_head(self, message: Any) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        status: int = message["status"]
        lines = [STATUS_LINE[status]]
        closes = False
        for name, value in (*self.default_headers, *message.get("headers", ())):
            lower = name.lower()
            if lower in _FRAMING:
                if lower != b"connection":
                    self._frame(lower, value)
                elif b"close" in [token.strip() for token in value.lower().split(b",")]:
                    closes, self.keep_alive = True, False
            lines.append(b"%b: %b\r\n" % (lower, value))
        if not (self.keep_alive or closes):
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _NO_BODY:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a line break in a header")
        self.transport.write(head + b"\r\n")

    def _frame(self, name: bytes, value: bytes) -> None:
        """Note how the answer's body says where it ends."""
        if name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length = int(value)
            self.chunked_encoding = False
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.expected_content_length = 0
            self.chunked_encoding = True

    def _write_body(self, body: bytes, *, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(chunk if more else chunk + b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the answer is longer than its head says")
            self.transport.write(body)
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("the answer is shorter than its head says")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
