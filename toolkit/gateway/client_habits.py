"""Clients that do not obey the status of a refusal, and what they are told so that they do not ask again. Pure.

Asking again changes nothing about a wallet that is empty, a key that is unknown, a model that is out of a plan. By the
status most clients know. Four coding tools do not; measured, as docs/clients.md has it, with the versions that
tests/gateway/clients/package.json names:

- *Codex* asks again after any status but 400, 404 and some of 429: six times in all for 401, 402 or 403, thirty times
  for a 5xx. It gives up after a stream that ends in `response.failed`, unless the code is `server_error`, and shows the
  message.
- *Claude Code* asks ten times more after 401, in three minutes, unless it is told `x-should-retry: false`, which is
  therefore said with each refusal that is for good.
- *Gemini CLI* asks each of its models nine times more after a 5xx, though a provider may have billed every time. It
  gives up after 400.
- *opencode* asks six times in all after a 5xx, and gives up after 400. It obeys other statuses, unless the body has the
  digits of one that is worth another try, as an amount or a request id may, or the words "try again later": then it
  asks six times.
"""

import json
import re
from http import HTTPStatus
from typing import Any

from toolkit.core.dialect import Dialect
from toolkit.core.errors import Refusal
from toolkit.dialects import MODULES, openai
from toolkit.gateway.credentials import Headers

_JSON = b"application/json"
_EVENTS = b"text/event-stream"

_WORTH_ANOTHER_TRY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_OBEYED_BY_CODEX = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
_STATUS_TO_OPENCODE = re.compile(r"[0-9.,]*(?:429|500|502|503|504|524)[0-9.,]*")


def told(refusal: Refusal, request_id: str, dialect: Dialect, asked: Headers) -> tuple[int, bytes, bytes]:
    """Return status, content type and body by which a client is told of a refusal.

    Args:
        refusal, request_id: what it is told.
        dialect: in whose words.
        asked: headers of its request; they name the client.
    """
    body = MODULES[dialect].error_body(refusal, request_id)
    if is_final(refusal):
        named = dict(asked)
        agent = named.get(b"user-agent", b"")
        if dialect is Dialect.OPENAI and _is_codex(named) and refusal.status not in _OBEYED_BY_CODEX:
            return 200, _EVENTS, openai.failed_response(refusal, request_id, "invalid_prompt")
        if refusal.status >= 500 and agent.startswith((b"GeminiCLI", b"opencode/")):
            refusal = Refusal(refusal.type, refusal.message, status=HTTPStatus.BAD_REQUEST)
            body = MODULES[dialect].error_body(refusal, request_id)
        if agent.startswith(b"opencode/"):
            return refusal.status, _JSON, _without_reasons(body)
    return refusal.status, _JSON, _written(body).encode()


def is_final(refusal: Refusal) -> bool:
    """Whether asking again cannot help, or would pay twice."""
    if refusal.headers.get("x-should-retry") == "false":
        return True
    return 400 <= refusal.status < 500 and refusal.status not in _WORTH_ANOTHER_TRY


def _is_codex(named: dict[bytes, bytes]) -> bool:
    return named.get(b"originator", b"").startswith(b"codex") and named.get(b"accept") == _EVENTS


def _without_reasons(body: dict[str, Any]) -> bytes:
    """Return a body without what opencode takes for a reason to ask again."""
    text = _written(body)
    if _STATUS_TO_OPENCODE.search(text):
        body["error"].pop("request_id", None)  # a header has it whole
        text = _STATUS_TO_OPENCODE.sub("…", _written(body))
    return text.replace("try again later", "try it again later").encode()


def _written(body: dict[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
