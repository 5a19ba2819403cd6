"""What shows a caller that a silent stream goes on, in a form that the dialect's SDKs bear."""

from toolkit.core.dialect import Dialect

_SIGNS = {
    # A comment without an empty line behind it: some SDKs take that for the end of an event that says nothing.
    (Dialect.OPENAI, True): b": still at work\n",
    # Anthropic, "Streaming", ping events.
    (Dialect.ANTHROPIC, True): b'event: ping\ndata: {"type": "ping"}\n\n',
    # Between the elements of an array. In Gemini's events there is none: its Python SDK fails on comments.
    (Dialect.GEMINI, False): b"\n",
}


def sign_of_life(dialect: Dialect, *, sse: bool) -> bytes:
    """Return what may stand between two events, or elements of an array unless `sse`; b"" where nothing may."""
    return _SIGNS.get((dialect, sse), b"")
