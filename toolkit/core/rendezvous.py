"""Rendezvous hashing: who goes where, so that it stays so for all who need not move when a place is added or removed.

Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); with weights by the logarithmic method
of Schindelhauer and Schomaker, "Weighted distributed hash tables" (2005). Pure, and the same in every process.
"""

from hashlib import blake2b
from math import log

_BITS = 52
"""Bits of the hash that are used: with half a unit more, a float holds each of them exactly, and none is 0 or 1."""


def score(who: str, place: str, weight: int = 1) -> float:
    """Return how much a place is for somebody: each goes to the place that has the most.

    Of many, each place gets a share in proportion to its weight.

    Args:
        who: a key, a conversation.
        place: its name.
        weight: at least 1.
    """
    drawn = int.from_bytes(blake2b(f"{who}\0{place}".encode(), digest_size=8).digest()) >> (64 - _BITS)
    return -weight / log((drawn + 0.5) / 2**_BITS)
