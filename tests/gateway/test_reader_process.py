"""What a process that reads bodies answers, question by question, over its socket; `test_reader_pool` has real ones."""

import io
import json
import pickle
import socket
from typing import Any

import pytest

from toolkit.core.dialect import Dialect
from toolkit.gateway import reader_process
from toolkit.gateway.reader_process import LENGTH, Ask, Told

BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "Tides"}], "max_tokens": 5}
CHAT: dict[str, Any] = {"dialect": Dialect.OPENAI, "endpoint": "chat/completions", "model": None, "headers": []}
CHANGES: dict[str, Any] = {"upstream_model": "gpt-real", "output_bound": None, "include_usage": False}


def framed(what: str, raw: bytes = b"", **arguments: Any) -> bytes:
    """Return a question as it stands on the wire."""
    ask = pickle.dumps(Ask(what, arguments, len(raw)))
    return LENGTH.pack(len(ask)) + ask + raw


def answers(*questions: bytes) -> list[tuple[Told, bytes]]:
    """Put questions to the process's loop, one after the other, and return its answers with their bytes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader_process._serve(io.BytesIO(b"".join(questions)), theirs)
        theirs.shutdown(socket.SHUT_WR)
        said = ours.makefile("rb").read()
    found = []
    while said:
        size = LENGTH.unpack(said[: LENGTH.size])[0]
        told: Told = pickle.loads(said[LENGTH.size : LENGTH.size + size])
        said = said[LENGTH.size + size :]
        found.append((told, said[: told.size]))
        said = said[told.size :]
    return found


def test_a_body_is_kept_until_it_was_rewritten() -> None:
    """Its shape comes first; rewriting gives the whole body, with the provider's name of the model."""
    raw = json.dumps(BODY).encode()
    (inspected, _), (rewritten, changed) = answers(framed("inspect", raw, **CHAT), framed("rewrite", **CHANGES))
    shape, tags = inspected.value
    assert (shape.model, tags) == ("gpt-test", None)
    assert rewritten.value is True
    assert json.loads(changed)["model"] == "gpt-real"


def test_what_policy_would_add_is_told_and_the_body_is_still_kept() -> None:
    """`fields_added` asks; `rewrite` after it finds the body."""
    raw = json.dumps(BODY).encode()
    found = answers(framed("inspect", raw, **CHAT), framed("fields_added", **CHANGES), framed("rewrite", **CHANGES))
    assert isinstance(found[1][0].value, set)
    assert found[2][0].value is True


def test_a_body_is_forgotten_when_told_to() -> None:
    """Then the process is as before, and may be replaced."""
    raw = json.dumps(BODY).encode()
    (_, _), (forgotten, nothing) = answers(framed("inspect", raw, **CHAT), framed("forget"))
    assert (forgotten.value, nothing) == (None, b"")


def test_a_refusal_is_told_with_all_that_makes_it() -> None:
    """And the next question is answered."""
    (told, _), (after, _) = answers(framed("inspect", b"[1]", **CHAT), framed("skim", b'{"a": 1}'))
    assert told.refusal is not None
    assert told.refusal["type"]
    assert "JSON object" in told.refusal["message"]
    assert after.refusal is None


def test_an_answer_is_skimmed_and_stood_in_for() -> None:
    """What is long is left out, and its length is told."""
    answer = json.dumps({"id": "a", "text": "x" * 100_000}).encode()
    (skimmed, _), (short, _) = answers(framed("skim", answer), framed("stand_in", b"data: {}\n\n", sse=True))
    assert skimmed.refusal is short.refusal is None
    assert skimmed.value is not None


def test_a_process_that_has_grown_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not while it keeps a body, which another process would not have."""
    monkeypatch.setattr(reader_process, "LARGEST", 0)
    raw = json.dumps(BODY).encode()
    found = answers(framed("inspect", raw, **CHAT), framed("rewrite", **CHANGES))
    assert [told.last for told, _ in found] == [False, True]
