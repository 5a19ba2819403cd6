"""How a caller may show a key, what is said of one that cannot be right, and the one answer to all that are dead."""

import asyncio
import json
import time
from contextlib import closing
from datetime import datetime, timedelta

import pytest

from tests.conftest import World, wait_until
from tests.gateway.conftest import Gate, request_of
from toolkit.admin import keys, secret_lookup
from toolkit.billing.batcher import Batcher
from toolkit.billing.stores import BillingStore, open_billing_store
from toolkit.core.errors import Unavailable
from toolkit.core.secrets import new_secret
from toolkit.gateway.key_cache import KeyCache
from toolkit.store.tables import ApiKey, LiveSecret
from toolkit.store.tally import Tallies
from toolkit.store.transaction import Transaction, utc_now

PART = {"parts": [{"text": "hello"}]}


def test_missing_credential(gate: Gate) -> None:
    """No credential: the answer says how to send one."""
    reply = gate.send("/v1/chat/completions", {}, secret=None)
    assert (reply.status, reply.type) == (401, "unauthorized")
    assert "is missing: send it as Authorization: Bearer" in reply.message


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {key}"},
        {"authorization": "bearer {key}"},
        {"AUTHORIZATION": "BEARER {key}"},
        {"x-api-key": "{key}"},
        {"Authorization": "Bearer {key}", "x-api-key": "{key}"},
    ],
)
def test_credential_forms(gate: Gate, headers: dict[str, str]) -> None:
    """The scheme and header names have no case; the same key sent twice is one key."""
    path, body = request_of("messages", "hello")
    sent = {name: value.format(key=gate.secret) for name, value in headers.items()}
    assert gate.send(path, body, sent, secret=None).status == 200


@pytest.mark.parametrize("form", ["bearer", "x-goog-api-key", "query"])
def test_credential_forms_of_gemini(gate: Gate, form: str) -> None:
    """Gemini's key may come in a header of its own or in the URL."""
    headers = {"bearer": {"Authorization": f"Bearer {gate.secret}"}, "x-goog-api-key": {"x-goog-api-key": gate.secret}}
    query = f"?key={gate.secret}" if form == "query" else ""
    path = "/v1beta/models/gemini-test:generateContent" + query
    assert gate.send(path, {"contents": [PART]}, headers.get(form), secret=None).status == 200


@pytest.mark.parametrize(
    ("headers", "query", "words"),
    [
        ({"Authorization": "Bearer {key}", "x-api-key": "{other}"}, "", "Two different credentials"),
        ({"Authorization": "Bearer {key}"}, "?key={other}", "Two different credentials"),
        ({"Authorization": "Basic {key}"}, "", "must be the word Bearer"),
        ({"Authorization": "{key}"}, "", "must be the word Bearer"),
        ({"Authorization": "Bearer"}, "", "is empty"),
        ({"Authorization": "Bearer  {key}"}, "", "white space"),
        ({"Authorization": "Bearer {key}x"}, "", "is not one of ours"),
        ({"Authorization": "Bearer sk-proj-abc"}, "", "is not one of ours"),
        ({"Authorization": "Bearer {typo}"}, "", "is mistyped"),
        ({"x-goog-api-key": "{key}"}, "", "not read here"),
        ({}, "?key={key}", "not read here"),
    ],
)
def test_credential_that_cannot_be_right(gate: Gate, headers: dict[str, str], query: str, words: str) -> None:
    """What is wrong with a credential is said where that needs no look at the store; the credential is not repeated."""
    secret = gate.secret
    typo = secret[:10] + ("a" if secret[10] != "a" else "b") + secret[11:]
    texts = {"key": secret, "other": new_secret(), "typo": typo}
    sent = {name: value.format(**texts) for name, value in headers.items()}
    reply = gate.send("/v1/chat/completions" + query.format(**texts), {}, sent, secret=None)
    assert (reply.status, reply.type) == (401, "unauthorized")
    assert words in reply.message
    assert all(text.encode() not in reply.body for text in texts.values())
    assert gate.rows() == []


def test_repeated_authorization_header(gate: Gate) -> None:
    """Two Authorization headers that differ are refused; two that agree are one."""
    path, body = request_of("chat", "hello")
    data = json.dumps(body).encode()

    def status(*secrets: str) -> int:
        with gate.connection() as connection:
            connection.putrequest("POST", path)
            for secret in secrets:
                connection.putheader("Authorization", f"Bearer {secret}")
            connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            return connection.getresponse().status

    assert status(gate.secret, gate.secret) == 200
    assert status(gate.secret, new_secret()) == 401
    assert status(new_secret(), gate.secret) == 401


def test_huge_header(gate: Gate) -> None:
    """A megabyte in a header is answered, not a crash."""
    reply = gate.send("/v1/models", None, {"X-Large": "a" * (1 << 20)}, method="GET")
    assert reply.status in {200, 400, 431}
    assert gate.ask("chat", "hello").status == 200


def test_many_query_fields(gate: Gate) -> None:
    """A query of a thousand fields is no way to slip a second credential past the check."""
    query = "&".join(f"a{number}=1" for number in range(1000))
    path, body = request_of("chat", "hello")
    assert gate.send(f"{path}?{query}", body).status == 200


def test_every_dead_key_gets_the_same_answer(gate: Gate) -> None:
    """Unknown, rotated, disabled, expired, deleted: one message, so that nobody learns which keys exist."""
    dead: dict[str, str] = {"unknown": new_secret()}
    with gate.workspace.write() as tx:
        for name in ("rotated", "disabled", "deleted", "expired"):
            made = keys.create(
                tx,
                gate.workspace.keyring,
                org=gate.org_id,
                name=name,
                plan=gate.plan_id,
                expires_at=utc_now() + timedelta(hours=1) if name == "expired" else None,
            )
            dead[name] = made.secret
            if name == "rotated":
                keys.rotate(tx, gate.workspace.keyring, made.key.id, confirm=name)
            elif name == "disabled":
                keys.disable(tx, made.key.id, confirm=name)
            elif name == "deleted":
                keys.delete(tx, made.key.id, confirm=name)
            else:
                tx.session.get_one(ApiKey, made.key.id).expires_at = utc_now() - timedelta(seconds=1)
    answers = {}
    for name, secret in dead.items():
        reply = gate.ask("chat", "hello", secret=secret)
        error = reply.json["error"]
        del error["request_id"]
        answers[name] = (reply.status, tuple(sorted(reply.headers)), json.dumps(error))
    assert len(set(answers.values())) == 1, answers
    assert answers["unknown"][0] == 401


def test_no_body_is_read_without_a_key(gate: Gate) -> None:
    """A caller without a key is refused at once, whatever they still want to send."""
    with gate.connection() as connection:
        connection.putrequest("POST", "/v1/chat/completions")
        connection.putheader("Authorization", f"Bearer {new_secret()}")
        connection.putheader("Content-Length", "1000000")
        connection.endheaders()
        assert connection.getresponse().status == 401


def seen_in_url(gate: Gate) -> tuple[datetime | None, datetime | None]:
    """Return when the key's secret was first and last noted in a URL."""
    with gate.workspace.read() as tx:
        live = tx.session.query(LiveSecret).where(LiveSecret.key_id == gate.key_id).one()
        return live.first_in_url_at, live.last_in_url_at


def test_a_secret_in_a_url_is_noted_once_an_hour(gate: Gate) -> None:
    """It is noted beside the call, once; a call with the key in a header is not."""
    path, body = "/v1beta/models/gemini-test:generateContent", {"contents": [PART]}
    assert gate.send(path, body, {"x-goog-api-key": gate.secret}, secret=None).status == 200
    before = utc_now()
    assert gate.send(f"{path}?key={gate.secret}", body, secret=None).status == 200
    wait_until(lambda: seen_in_url(gate) != (None, None), "the note")
    first, last = noted = seen_in_url(gate)
    assert first == last
    assert first is not None
    assert before <= first <= utc_now()
    other = gate.another("other")
    assert gate.send(f"{path}?key={gate.secret}", body, secret=None).status == 200
    assert gate.send(f"{path}?key={other.secret}", body, secret=None).status == 200
    wait_until(
        lambda: seen_in_url(other) != (None, None), "the other key's note"
    )  # made after the first key's could be
    assert seen_in_url(gate) == noted


def test_a_note_is_made_anew_after_an_hour_or_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before an hour has passed; but the next call notes what the key store could not take."""
    new = world.key()
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    store = world.workspace.store
    notes: list[float] = []

    def noting(tx: Transaction, digests: list[str]) -> None:
        notes.append(clock[0])
        if len(notes) == 1:
            raise Unavailable("gone")

    monkeypatch.setattr(secret_lookup, "note_in_url", noting)

    async def run(billing_store: BillingStore) -> None:
        key_cache = KeyCache(store, world.workspace.keyring, Batcher(billing_store), Tallies(store))
        digests = key_cache.digests(new.secret)
        await key_cache.note_in_url(digests)  # the gateway has not met the key yet
        await key_cache.key(digests)
        for now in (2000.0, 2001.0, 5600.9, 5601.0, 5602.0):
            clock[0] = now
            await key_cache.note_in_url(digests)

    with closing(open_billing_store(store)) as billing_store:
        asyncio.run(run(billing_store))
    assert notes == [2000.0, 2001.0, 5601.0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/no/such/path"])
def test_a_secret_in_a_url_is_noted_where_it_is_not_read(gate: Gate, path: str) -> None:
    """A proxy logs it whatever the gateway answers; for keys that the gateway has met."""
    assert gate.ask("chat", "hello").status == 200
    assert gate.send(f"{path}?key={gate.secret}", {}, secret=None).status in {401, 404}
    wait_until(lambda: seen_in_url(gate) != (None, None), "the note")


def test_only_live_secrets_are_noted(gate: Gate) -> None:
    """Secrets of nobody, and of keys that were rotated away, leave no note, and no call of theirs fails for it."""
    path, body = "/v1beta/models/gemini-test:generateContent", {"contents": [PART]}
    assert gate.ask("chat", "hello").status == 200
    with gate.workspace.write() as tx:
        keys.rotate(tx, gate.workspace.keyring, gate.key_id, confirm=gate.key.key.name)
    for secret in (new_secret(), gate.secret, "sk-nonsense"):
        assert gate.send(f"{path}?key={secret}", body, secret=None).status == 401
    other = gate.another("other")
    assert gate.send(f"{path}?key={other.secret}", body, secret=None).status == 200
    wait_until(lambda: seen_in_url(other) != (None, None), "the other key's note")
    assert seen_in_url(gate) == (None, None)
