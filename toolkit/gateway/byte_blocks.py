"""Bytes that came in pieces of any size, kept in blocks: nothing that is large is copied in one step."""

BLOCK = 256 * 1024
"""Bytes of a block, and what the loop copies at a time."""


class ByteBlocks:
    """What has come so far."""

    def __init__(self) -> None:
        self.size = 0
        self._whole: list[bytes] = []
        self._last = bytearray()

    def add(self, part: bytes) -> None:
        """Add a part. Small ones cost no more than their bytes."""
        self.size += len(part)
        self._last += part
        if len(self._last) >= BLOCK:
            self._whole.append(bytes(self._last))
            self._last = bytearray()

    def take(self) -> list[bytes]:
        """Return the blocks, and forget them."""
        blocks, self._whole = self._whole, []
        if self._last:
            blocks.append(bytes(self._last))
            self._last = bytearray()
        return blocks
