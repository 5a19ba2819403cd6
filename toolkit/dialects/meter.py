"""Read one streamed answer as it passes: what it used, whether it has ended, and which bytes must wait.

The event that ends a stream is kept back until the charge is committed, so a caller who has seen the end of
an answer can rely on its having been paid for. Everything else passes at once and unchanged.
"""

import json
from enum import Enum, auto
from typing import Any

from toolkit.core.service_tier import NOT_SAID
from toolkit.core.usage import Report, text_tokens
from toolkit.dialects.skim import ALWAYS_LIGHT, is_light
from toolkit.dialects.sse import ArraySplitter, EventSplitter, data_of, element_of

FOLD_AT, FOLD_PIECES = 256 * 1024, 1_000
"""Bytes and number of deltas kept unparsed; most answers are shorter and are then never parsed at all."""

MOST_LOOKS_FOR_ID = 4
"""Chunks parsed in search of the answer's id; the first has it, or one that follows an empty preamble."""


class Fate(Enum):
    """What becomes of a piece."""

    PASS = auto()
    HOLD = auto()
    DROP = auto()
    NEXT = auto()
    """Let go what was held and hold this one instead: it may be the last, but only the next one tells."""


class StreamMeter:
    """The part of a dialect's `Meter` that is the same in all of them.

    A dialect says in `_judge` what becomes of a piece, and in `_text_bytes` how much text a delta carries.

    Args:
        endpoint: the request's endpoint, as in `Shape`.
        sse: whether the body is server-sent events; else it is a JSON array.
        drop_usage: keep the event that carries nothing but usage from the caller, who did not ask for it.
        choices: answers asked for at once.

    Attributes:
        sse: as above.
        complete: the answer's regular end was seen, so the stream may be ended cleanly.
        ended: the provider has said that nothing follows.
        failed: the upstream ended the answer with its own error event.
        failure: the piece that told it.
        started: a piece was passed on, so the caller has seen part of the answer.
        response_id: the provider's id of the answer.
        served: the tier and region that served it, as far as it is said.
        oddities: what is odd about how the stream ended, in words, once `finish` has been called.
    """

    oddities: tuple[str, ...] = ()
    _announces_end = True
    missing_end = b""
    """The end that SDKs wait for, where the provider forgot it behind a complete answer."""

    def __init__(self, endpoint: str, *, sse: bool, drop_usage: bool = False, choices: int = 1) -> None:
        self.endpoint = endpoint
        self.complete = False
        self.ended = False
        self.failed = False
        self.failure = b""
        self.started = False
        self.response_id: str | None = None
        self.served = NOT_SAID
        self.sse = sse
        self._drop_usage = drop_usage
        self._choices = choices
        self._splitter = EventSplitter() if sse else ArraySplitter()
        self._held: list[bytes] = []
        self._deltas: list[bytes] = []
        self._delta_bytes = 0
        self._folded_bytes = 0
        self._report: Report | None = None
        self._later: list[bytes] = []
        self._shows_reasoning = False
        self._late_errors = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take bytes from the upstream; return the pieces to send on now, in order.

        Raises:
            ValueError: one event is larger than a stream may have.
        """
        pieces = self._splitter.feed(chunk)
        if len(pieces) != 1 or self._held or len(pieces[0]) > ALWAYS_LIGHT:
            return self._take(pieces)
        fate = self._judge(pieces[0])
        if fate is not Fate.PASS:
            return self._take(pieces, fate)
        self.started = True  # as with nearly every chunk
        return pieces

    @property
    def heavy(self) -> bytes | None:
        """A piece that takes too long to be read here: give `resume` its replacement before the next chunk."""
        return self._later[0] if self._later else None

    def resume(self, short: bytes, left_out: int) -> list[bytes]:
        """Judge the heavy piece by a short one that says the same, and go on; return the pieces to send on now.

        Args:
            short: the piece without what is long in it.
            left_out: bytes of text that it lacks.
        """
        pieces, self._later = self._later, []
        counted = self._delta_bytes, self._folded_bytes
        fate = self._judge(short)
        if (self._delta_bytes, self._folded_bytes) != counted:  # it is one of those whose text counts
            self._folded_bytes += left_out
        return self._take([short if self.failed else pieces[0], *pieces[1:]], fate)

    def end(self) -> None:
        """Note that the body ended cleanly; then `resume` with a heavy piece, if there is one, and `finish`."""
        rest = self._splitter.rest()
        if not is_light(rest):
            self._splitter = EventSplitter()
            self._later = [rest]

    def _take(self, pieces: list[bytes], first: Fate | None = None) -> list[bytes]:
        """Judge pieces, the first of which may have been judged already."""
        passed: list[bytes] = []
        for place, piece in enumerate(pieces):
            if first is not None:
                fate, first = first, None
            elif len(piece) > ALWAYS_LIGHT and not is_light(piece):
                self._later = pieces[place:]
                break
            else:
                fate = self._judge(piece)
            if fate is Fate.NEXT:
                passed += self._held
                self._held = [piece]
            elif fate is Fate.HOLD or (self._held and fate is Fate.PASS):
                self._held.append(piece)
            elif fate is Fate.PASS:
                passed.append(piece)
        self.started = self.started or bool(passed)
        return passed

    def finish(self) -> list[bytes]:
        """Return the pieces kept back. Call it when the body ended cleanly; send them after the settlement.

        An event without its empty line, which some servers forget at the end, is read here: look at
        `complete` and `usage` afterwards.
        """
        rest = self._splitter.rest()
        if rest and self._judge(rest) is not Fate.DROP:
            self._held.append(rest)
        pieces, self._held = self._held, []
        self.oddities = self._oddities_of(pieces)
        return pieces

    def _oddities_of(self, held: list[bytes]) -> tuple[str, ...]:
        """Return what is odd about how a stream ended, in words."""
        # One piece is the end alone, as it should be, and may be long.
        ends = [place for place, piece in enumerate(held) if self._is_end(piece)] if len(held) > 1 else []
        late = [piece for piece in held[ends[0] + 1 :] if self._has_news(piece)] if ends else []
        found = []
        if len(ends) > 1:
            found.append(f"its end came {len(ends)} times")
        if number := len(late) + self._late_errors:
            found.append(f"{number} {'event' if number == 1 else 'events'} came after its end")
        if self.complete and not self.ended and self._announces_end:
            found.append("its end was not announced")
        return tuple(found)

    @property
    def held_size(self) -> int:
        """Bytes that are kept back."""
        return sum(map(len, self._held))

    def _is_end(self, piece: bytes) -> bool:
        """Whether a piece says that nothing follows."""
        raise NotImplementedError

    def _has_news(self, piece: bytes) -> bool:
        data = self._data(piece)
        return bool(data) and not data.startswith(b"[DONE]") and not self._is_end(piece)

    def _fails(self, piece: bytes) -> Fate:
        """Judge an error of the provider's; what comes after the end changes nothing."""
        if self.ended:
            self._late_errors += 1
            return Fate.DROP
        self.failed, self.failure = True, self.failure or piece
        return Fate.HOLD

    @property
    def report(self) -> Report | None:
        """What the upstream has reported so far."""
        return self._report

    def _note_report(self, report: Report | None) -> None:
        if report is not None:
            self._report = self._report.followed_by(report) if self._report is not None else report

    @property
    def output_seen(self) -> int:
        """Output tokens estimated from the text, tool arguments and reasoning streamed so far, rounded up."""
        self._fold()
        return text_tokens(self._folded_bytes)

    @property
    def shows_reasoning(self) -> bool:
        """Whether what has been streamed so far has reasoning in full, and not a summary of it."""
        self._fold()
        return self._shows_reasoning

    def _judge(self, piece: bytes) -> Fate:
        raise NotImplementedError

    def _text_bytes(self, event: dict[str, Any]) -> int:
        raise NotImplementedError

    def _keep(self, piece: bytes) -> None:
        self._deltas.append(piece)
        self._delta_bytes += len(piece)
        if self._delta_bytes > FOLD_AT or len(self._deltas) > FOLD_PIECES:
            self._fold()

    def _fold(self) -> None:
        for piece in self._deltas:
            event = self._parse(piece)
            if event is not None:
                self._folded_bytes += self._text_bytes(event)
            elif (data := self._data(piece)).startswith(b"{"):  # the caller got it: it counts, though we cannot read it
                self._folded_bytes += len(data)
        self._deltas.clear()
        self._delta_bytes = 0

    def _parse(self, piece: bytes) -> dict[str, Any] | None:
        """Return a piece's JSON object; None if it has none, since a provider's comment is no error of ours."""
        data = self._data(piece)
        if not data:
            return None
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if isinstance(value, list) and len(value) == 1:  # as Google lists an error
            value = value[0]
        return value if isinstance(value, dict) else None

    def _data(self, piece: bytes) -> bytes:
        return (data_of(piece) or b"") if self.sse else element_of(piece)


def length_of(value: object) -> int:
    """Return the UTF-8 length of a string, 0 for anything else."""
    return len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 0
