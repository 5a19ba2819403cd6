"""Requests of HTTP/1.0 and their answers."""

from typing import Any

from toolkit.gateway.response_cycle import ResponseCycle


class UnframedCycle(ResponseCycle):
    """A request of HTTP/1.0 and its answer, which knows no chunks: what has no length ends with the connection.

    RFC 9112, 6.1: no Transfer-Encoding is sent to a client of HTTP/1.0.
    """

    _unframed = False

    async def send(self, message: Any) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            self._unframed = b"content-length" not in names
            if self._unframed:
                self.chunked_encoding = False
        elif self._unframed:
            while self.flow.write_paused and not self.disconnected:  # before it is said how much this part has
                await self.flow.drain()
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)
