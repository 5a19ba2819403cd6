"""Reading the caller's credential from a request. Pure.

The credential leaves this module only as the secret that is digested and compared; it is never forwarded, logged
or put into a message.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.secrets import SECRET_LENGTH, is_well_formed

Headers = Iterable[tuple[bytes, bytes]]

BEARER = "Authorization: Bearer"
CARRIERS = {
    Dialect.OPENAI: (BEARER, "api-key"),
    Dialect.ANTHROPIC: (BEARER, "x-api-key"),
    Dialect.GEMINI: (BEARER, "x-goog-api-key", "?key="),
}
"""Where each dialect's SDKs put the credential; `api-key` is how Azure has it (Azure OpenAI, "REST API reference")."""

_CARRYING = frozenset({b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"})

_PAGES_OF_GEMINI = frozenset({"key", "pageSize", "pageToken"})
_PAGES_OF_ANTHROPIC = frozenset({"limit", "after_id", "before_id"})
"""What the two ask of a listing ("List models"); OpenAI's has no pages."""


def dialect_of_shared_path(headers: Headers, query: bytes) -> Dialect:
    """Return whose listing is wanted on a path that several SDKs share: headers tell, or what is asked of the listing.

    Claude Code shows its key as a Bearer, as OpenAI's SDKs do.
    """
    names = {name for name, _ in headers}
    asked = query_fields(query).keys()
    if b"x-goog-api-key" in names or not _PAGES_OF_GEMINI.isdisjoint(asked):
        return Dialect.GEMINI
    own = b"x-api-key" in names or any(name.startswith(b"anthropic-") for name in names)
    return Dialect.ANTHROPIC if own or not _PAGES_OF_ANTHROPIC.isdisjoint(asked) else Dialect.OPENAI


def find_secret(dialect: Dialect, headers: Headers, query: bytes) -> str:
    """Return the caller's secret, checked as far as that goes without asking the store.

    Raises:
        Refusal: unauthorized; says whether it is missing, sent twice differently, or malformed.
    """
    found: list[tuple[str, str]] = []
    for name, value in headers:
        if name not in _CARRYING:
            continue
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            if scheme.lower() != "bearer":
                # What stands there may be the secret itself: it is not repeated.
                raise _unauthorized("The Authorization header must be the word Bearer, a space, and the API key.")
            found.append((BEARER, token))
        elif name != b"api-key" or dialect is Dialect.OPENAI:
            found.append((name.decode(), value.decode("latin-1")))
    if query:
        found += [("?key=", value) for name, value in _query(query) if name == "key"]

    carrier, secret = found[0] if len(found) == 1 else _agreed(found, dialect)
    if carrier not in CARRIERS[dialect]:
        raise _missing(dialect, f" It was sent as {carrier}, which is not read here.")
    if not is_well_formed(secret):
        raise _unauthorized(f"The API key in {carrier} {_fault(secret)}")
    return secret


def _agreed(found: list[tuple[str, str]], dialect: Dialect) -> tuple[str, str]:
    """Return one credential of several that must be the same: one that stands where it is read, if one does.

    Raises:
        Refusal: unauthorized; they differ, or there is none.
    """
    if len({secret for _, secret in found}) > 1:
        places = " and ".join(dict.fromkeys(carrier for carrier, _ in found))
        raise _unauthorized(f"Two different credentials were sent, in {places}. Send one.")
    if not found:
        raise _missing(dialect)
    return next((one for one in found if one[0] in CARRIERS[dialect]), found[0])


def _missing(dialect: Dialect, elsewhere: str = "") -> Refusal:
    return _unauthorized(f"The API key is missing: send it as {' or '.join(CARRIERS[dialect])}.{elsewhere}")


def secret_in_url(query: bytes) -> str | None:
    """Return the secret that stands in a URL's query, if one does: proxies on its way have logged it."""
    return next((value for name, value in _query(query) if name == "key" and is_well_formed(value)), None)


def _fault(secret: str) -> str:
    if secret != secret.strip():
        return "has white space before or after it. Remove it."
    if not secret:
        return "is empty."
    if not secret.startswith("sk-") or len(secret) != SECRET_LENGTH:
        return f"is not one of ours: those are sk- and {SECRET_LENGTH - 3} letters or digits. Was it cut off?"
    return "is mistyped: its checksum does not hold. Copy it again."


def _unauthorized(message: str) -> Refusal:
    return Refusal(RefusalType.UNAUTHORIZED, message)


def _query(query: bytes) -> list[tuple[str, str]]:
    if not query:
        return []
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return []


def query_fields(query: bytes) -> Mapping[str, str]:
    """Return the fields of a URL's query; of one that stands there twice the last."""
    return dict(_query(query))


def wants_sse(query: bytes) -> bool:
    """Whether a Gemini stream is asked for as server-sent events; without, it is a JSON array."""
    return ("alt", "sse") in _query(query)
