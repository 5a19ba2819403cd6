"""Tags: what callers say a call is for, so that spend can be split by it. Pure.

A caller tags a call by the header `X-Keydesk-Tags: team=search, feature=rerank`, or by what its provider's API has for
it: OpenAI's `metadata` and `user`, which is called `safety_identifier` now, Anthropic's `metadata.user_id`. All but the
first become the tag `user`. Claude Code puts its session beside device and account there, and in a header, as Codex and
opencode do: the session is a tag of its own, so that `user` means a person or a device. Tags are kept with the request
log as one JSON object, names in order.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput, Refusal, RefusalType

HEADER = b"x-keydesk-tags"
SESSION_HEADER = b"x-claude-code-session-id"
SESSION_HEADERS = frozenset({SESSION_HEADER, b"session-id", b"session_id", b"x-session-id"})
"""Claude Code's (Claude Code, "LLM gateway"), Codex's, which had an underscore before, and opencode's."""

MOST = 16
"""Tags of one call; as many as OpenAI's `metadata` may hold (OpenAI, "Create chat completion")."""

LONGEST_NAME = 64
LONGEST_VALUE = 256
"""Characters; of OpenAI's 512 a value that names something needs no more."""

_HEADERS = frozenset({HEADER, *SESSION_HEADERS})
_OF_BODY = frozenset({"metadata", "user", "safety_identifier"})

_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{LONGEST_NAME}}}")
_OLD_USER_ID = re.compile(r"user_(?P<device>[0-9a-f]+)_account_(?P<account>[0-9a-f-]*)_session_(?P<session>[0-9a-f-]+)")
_LONGEST_USER_ID = 2_048
_EXAMPLE = "Write it as X-Keydesk-Tags: team=search, feature=rerank"


def read(dialect: Dialect, body: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return a call's tags as a JSON object, or None if it has none.

    The header's tags come first, and a name of theirs hides the same name in the body. What the body has beyond the
    bounds is no tag: whether it is right is the provider's to say.

    Args:
        dialect: whose fields the body has.
        body: the parsed request.
        headers: names in lower case, as the server gives them.

    Raises:
        Refusal: invalid_request; the header cannot be read, or has too many or too long tags.
    """
    tags: dict[str, str] = {}
    session = ""
    if not _HEADERS.isdisjoint(dict(headers)):
        for name, value in headers:
            if name == HEADER:
                tags |= _of_header(value)
            elif name in SESSION_HEADERS:
                session = value.decode("latin-1")
    if session.isprintable() and 0 < len(session) <= LONGEST_VALUE and len(tags) < MOST:
        tags.setdefault("session", session)
    if not _OF_BODY.isdisjoint(body):
        for tag, text in _of_body(dialect, body).items():
            if len(tags) < MOST:
                tags.setdefault(tag, text)
    return written(tags) if tags else None


def written(tags: Mapping[str, str]) -> str:
    """Return tags as the JSON object that is kept: the same tags are the same text."""
    return json.dumps(tags, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def wanted(pairs: Iterable[str]) -> dict[str, str]:
    """Return the tags that calls are searched by.

    Args:
        pairs: each as people write it, NAME=VALUE; what follows the first = is the value.

    Raises:
        InvalidInput: one is no tag, or a name is given twice: no call has two values of it.
    """
    tags: dict[str, str] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not value or _NAME.fullmatch(name) is None:
            raise InvalidInput(f"{pair!r} is not a tag. Write it like team=search.")
        if name in tags:
            raise InvalidInput(f"The tag {name!r} is given twice; a call has one value of it. Ask for each by itself.")
        tags[name] = value
    return tags


def carried(parameter: str) -> str:
    """Return the condition that a call of the view `usage` carries certain tags, as DuckDB's SQL.

    Args:
        parameter: what stands for them in the query, such as `?`; its value is what `written` returns.
    """
    return f"json_contains(tags, {parameter})"


def _of_header(value: bytes) -> dict[str, str]:
    try:
        pairs = [pair.strip() for pair in value.decode().split(",")]
    except UnicodeDecodeError:
        raise _invalid(f"The header X-Keydesk-Tags is not UTF-8. {_EXAMPLE}.") from None
    tags: dict[str, str] = {}
    for pair in filter(None, pairs):
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not text or not text.isprintable():
            raise _invalid(f"Each tag in X-Keydesk-Tags is a name, = and a value. {_EXAMPLE}.")
        if _NAME.fullmatch(name) is None:
            raise _invalid(
                f"A tag's name in X-Keydesk-Tags has 1 to {LONGEST_NAME} letters, digits, '_', '.' or '-'. {_EXAMPLE}."
            )
        if len(text) > LONGEST_VALUE:
            raise _invalid(f"The tag '{name}' in X-Keydesk-Tags is longer than {LONGEST_VALUE} characters. Shorten it.")
        if name in tags:
            raise _invalid(f"The tag '{name}' is given twice in X-Keydesk-Tags. Give it once.")
        tags[name] = text
    if len(tags) > MOST:
        raise _invalid(f"X-Keydesk-Tags has {len(tags)} tags; a call may have {MOST}. Leave some out.")
    return tags


def _of_body(dialect: Dialect, body: dict[str, Any]) -> dict[str, str]:
    found: dict[str, Any] = {}
    metadata = body.get("metadata")
    if dialect is Dialect.OPENAI:
        user = body.get("user") or body.get("safety_identifier")
        found = {"user": user} | (metadata if isinstance(metadata, dict) else {})
    elif dialect is Dialect.ANTHROPIC and isinstance(metadata, dict):
        found = _of_user_id(metadata.get("user_id"))
    return {
        name: text
        for name, text in found.items()
        if isinstance(text, str) and 0 < len(text) <= LONGEST_VALUE and _NAME.fullmatch(name)
    }


def _of_user_id(user_id: object) -> dict[str, Any]:
    """Return the tags of Anthropic's `metadata.user_id`: what Claude Code writes there is taken apart.

    It is JSON with device, account and session, or in older versions one word of these parts.
    """
    if not isinstance(user_id, str) or len(user_id) > _LONGEST_USER_ID:
        return {}
    if old := _OLD_USER_ID.fullmatch(user_id):
        return {"user": old["account"] or old["device"], "session": old["session"]}
    if not user_id.startswith("{"):
        return {"user": user_id}
    try:
        parts = json.loads(user_id)
    except (ValueError, RecursionError):
        return {"user": user_id}
    if not isinstance(parts, dict) or "session_id" not in parts:
        return {"user": user_id}
    return {"user": parts.get("account_uuid") or parts.get("device_id"), "session": parts.get("session_id")}


def _invalid(message: str) -> Refusal:
    return Refusal(RefusalType.INVALID_REQUEST, message)
