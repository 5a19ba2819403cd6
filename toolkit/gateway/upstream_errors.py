"""An upstream's error, as its caller may know it.

What the caller's own request is to blame for keeps the provider's status, code, type and wording: tools act on them (a
coding agent shortens its context when it reads that the context is too long). What is between us and the provider (our
account, its limits, its failures) is said in our words: the caller can do nothing about it, and the provider's words
name our account.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from toolkit.core.errors import Refusal, RefusalType
from toolkit.core.scrub import Scrubber
from toolkit.dialects.reading import objects_of
from toolkit.dialects.sse import data_of, element_of, name_of

LARGEST_ERROR = 256 * 1024
"""Bytes of an error's body that are read; a longer one is not JSON any more, so it is told in our words."""

CALLERS_FAULT = frozenset({400, 408, 413, 422})
"""Statuses by which a provider blames the request; and 404, when it is about a model."""

OVERLOADED = frozenset({503, 529})
"""Statuses by which a provider says that it has too much to do; 529 is Anthropic's ("Errors")."""

_NO_RETRY = {"x-should-retry": "false"}

# OpenAI, "Error codes"; Anthropic, "Errors"; Google, "google.rpc.Code" and "Troubleshooting guide" of the Gemini API.
_ACCOUNT = {
    *("401", "402", "403", "authentication_error", "permission_error", "permission_denied", "billing_error"),
    *("unauthenticated", "invalid_api_key", "api_key_invalid", "insufficient_quota", "billing_hard_limit_reached"),
    *("billing_not_active", "account_deactivated", "unsupported_country_region_territory", "invalid_organization"),
}
_BUSY = {
    *("429", "503", "529", "rate_limit_error", "rate_limit_exceeded", "resource_exhausted", "overloaded_error"),
    "unavailable",
}
_FAILED = {
    *("500", "502", "504", "api_error", "server_error", "internal", "internal_error", "internal_server_error"),
    *("timeout_error", "deadline_exceeded", "unknown"),
}
_DIGITS = 3
_STATUSES = {
    **dict.fromkeys(("invalid_request_error", "invalid_argument", "invalid_prompt", "context_length_exceeded"), 400),
    **dict.fromkeys(("failed_precondition", "out_of_range", "string_above_max_length"), 400),
    **dict.fromkeys(("authentication_error", "unauthenticated", "invalid_api_key"), 401),
    **dict.fromkeys(("billing_error", "insufficient_quota"), 402),
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "not_found", "model_not_found"), 404),
    "request_too_large": 413,
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "resource_exhausted"), 429),
    "unavailable": 503,
    "overloaded_error": 529,
}
"""Statuses of errors that are told in a stream, where nothing has one; from the same documentation."""

_ACCOUNT_WORDS = re.compile(
    r"credit balance is too low|exceeded your current quota|api key (?:not valid|expired)|location is not supported|"
    r"billing (?:details|hard limit)|account is not active",
    re.IGNORECASE,
)
_DELAY = re.compile(r"(\d{1,6})(\.\d{1,9})?s")
_NONE_AT_ALL = re.compile(r"limit: 0\b")
_WAIT = re.compile(r"try again in (\d{1,6}(?:\.\d{1,6})?)\s?(ms|s)\b")


@dataclass(frozen=True, slots=True)
class CallersError:
    """What the caller gets.

    Args:
        refusal: our account of it, with the status.
        body: the provider's own, scrubbed, which is sent in its place; None if ours is.
    """

    refusal: Refusal
    body: bytes | None = None


def of_answer(status: int, answer: bytes, retry: dict[str, str], model: str, scrubber: Scrubber) -> CallersError:
    """Return what the caller gets for an upstream's error answer.

    Args:
        status: the upstream's.
        answer: its body, `LARGEST_ERROR` bytes at most.
        retry: its `Retry-After` and `retry-after-ms`.
        model: as the caller named it.
        scrubber: for the upstream.
    """
    value = _parsed(answer)
    error = _error_in(value)
    retry = retry or _retry_in(error)
    if status in {401, 402, 403} or _blames(error) == "account":
        return CallersError(_account(model))
    if status == 429:
        return CallersError(_limited(model, retry))
    if status in OVERLOADED:
        return CallersError(replace_status(_overloaded(model, retry), status))
    if status in CALLERS_FAULT or (status == 404 and value is not None and b"model" in answer.lower()):
        if value is not None:
            return CallersError(Refusal(RefusalType.UPSTREAM_ERROR, "", status=status), _dumped(scrubber.value(value)))
        words = (
            f"The provider of '{model}' refused this request (its status: {status}), in words that are no answer of "
            "its API. Nothing was charged. See that the request is right and not too large."
        )
        return CallersError(Refusal(RefusalType.UPSTREAM_ERROR, words, status=status, headers=_NO_RETRY))
    return CallersError(_failed(model, status))


def of_piece(piece: bytes, retry: dict[str, str], model: str, scrubber: Scrubber, *, sse: bool) -> CallersError:
    """Return what the caller gets for an error that is the first event of a stream; as `of_answer`.

    Its status is the one that it names, or that its type has in its provider's documentation; else 500.
    """
    event = _event_in(piece, sse=sse) or {}
    response = event.get("response")
    told = event.get("error") or (response.get("error") if isinstance(response, dict) else None)
    error = told or {name: value for name, value in event.items() if name not in ("sequence_number", "request_id")}
    whole = {"error": error} | ({"type": "error"} if told and event.get("type") == "error" else {})
    return of_answer(_status_in(error), _dumped(whole), retry, model, scrubber)


def _status_in(error: Any) -> int:
    if isinstance(error, dict):
        for name in ("code", "status", "type"):
            said = str(error.get(name)).lower()[:60]
            if said in _STATUSES:
                return _STATUSES[said]
            if len(said) == _DIGITS and said.isdecimal() and said[0] in "45":
                return int(said)
    return 500


def replace_status(refusal: Refusal, status: int) -> Refusal:
    """Return a refusal that is answered with another status than its type's."""
    return Refusal(refusal.type, refusal.message, headers=refusal.headers, status=status)


def in_answer(answer: dict[str, Any], model: str, scrubber: Scrubber) -> bytes:
    """Return a whole answer that has an error in it, whose words are fit for the caller."""
    return _dumped(answer | {"error": _reworded(answer["error"], model, scrubber)})


def in_piece(piece: bytes, model: str, scrubber: Scrubber, *, sse: bool) -> bytes | None:
    """Return a piece of a stream that may be its error event, whose words are fit for the caller.

    Returns:
        The piece as it is if it tells no error; None if it tells one that is not JSON: then ours has to be sent.
    """
    name = name_of(piece) if sse else None
    if name != b"error" and b"error" not in piece:
        return piece
    event = _event_in(piece, sse=sse)
    if event is None:
        return None if name == b"error" else piece
    response = event.get("response")
    if event.get("error"):
        event["error"] = _reworded(event["error"], model, scrubber)
    elif isinstance(response, dict) and response.get("error"):
        response["error"] = _reworded(response["error"], model, scrubber)
    elif event.get("type") == "error" or name == b"error":
        kind = {"type": event["type"]} if "type" in event else {}
        event = _reworded(event, model, scrubber) | kind
    else:
        return piece
    if "request_id" in event:
        del event["request_id"]  # the provider's
    whole = _dumped(event)
    if not sse:
        return piece[: len(piece) - len(piece.lstrip(b" \t\r\n[,"))] + whole
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + whole + b"\n\n"


def _event_in(piece: bytes, *, sse: bool) -> dict[str, Any] | None:
    """Return the JSON object of a piece of a stream; None if it has none."""
    data = data_of(piece) if sse else element_of(piece)
    try:
        event = json.loads(data or b"", parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _reworded(error: Any, model: str, scrubber: Scrubber) -> Any:
    """Return an error without what the caller must not read; what programs act on, type and code, is kept."""
    blamed = _blames(error)
    if blamed is None:
        return scrubber.value(error)
    refusal = {"account": _account(model), "busy": _overloaded(model, {}), "failed": _failed(model, None)}[blamed]
    words = refusal.message
    if blamed == "busy" and (wait := _WAIT.search(_words_of(error)[:2_000])):
        words += f" Please try again in {wait[1]}{wait[2]}."  # programs read this
    if not isinstance(error, dict):
        return words
    kept = {name: error[name] for name in ("type", "code", "status", "param") if name in error}
    if blamed == "account":
        neutral = {"type": "api_error", "code": 502 if isinstance(error.get("code"), int) else "upstream_error"}
        kept = {name: neutral.get(name, "INTERNAL") for name in kept if name != "param"}
    return scrubber.value(kept) | {"message": words}


def _blames(error: Any) -> str | None:
    """Return who is to blame: our account, a busy provider, a failed one; None if it is the request."""
    named: set[str] = set()
    if isinstance(error, dict):
        named = {str(error.get(name)).lower()[:60] for name in ("type", "code", "status")}
        named |= {str(detail.get("reason")).lower()[:60] for detail in _details(error)}
    words = _words_of(error)[:2_000]
    if "resource_exhausted" in named:
        # Gemini says "quota" of limits per minute, too; an account without any has a limit of 0. "Rate limits".
        return "account" if _NONE_AT_ALL.search(words) or "0" in _quotas(error) else "busy"
    if named & _ACCOUNT or _ACCOUNT_WORDS.search(words):
        return "account"
    if named & _BUSY:
        return "busy"
    return "failed" if named & _FAILED else None


def _details(error: Any) -> list[dict[str, Any]]:
    """Return the first details of an error of Google's; "google.rpc.Status"."""
    details = error.get("details") if isinstance(error, dict) else None
    return [detail for detail in details[:10] if isinstance(detail, dict)] if isinstance(details, list) else []


def _quotas(error: Any) -> set[str]:
    """Return the limits that were reached; "google.rpc.QuotaFailure"."""
    found = (violation for detail in _details(error) for violation in objects_of(detail, "violations"))
    return {str(violation.get("quotaValue")) for violation in found}


def _retry_in(error: Any) -> dict[str, str]:
    """Return when to try again as a header, where it is said in the answer alone; "google.rpc.RetryInfo"."""
    for detail in _details(error):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (seconds := _DELAY.fullmatch(delay)):
            return {"retry-after": str(int(seconds[1]) + bool(seconds[2]))}
    return {}


def _words_of(error: Any) -> str:
    words = error.get("message") if isinstance(error, dict) else error
    return words if isinstance(words, str) else ""


def _error_in(value: Any) -> Any:
    """Return where an answer tells its error: under `error`, as most do, or at the top."""
    if isinstance(value, list):
        value = value[0]
    return value.get("error") or value if isinstance(value, dict) else None


def _account(model: str) -> Refusal:
    return Refusal(
        RefusalType.UPSTREAM_ERROR,
        f"The provider of '{model}' does not serve this gateway's account. Trying again does not help: give the "
        "operator the request id.",
        headers=_NO_RETRY,
    )


def _limited(model: str, retry: dict[str, str]) -> Refusal:
    return Refusal(
        RefusalType.UPSTREAM_RATE_LIMITED,
        f"The provider of '{model}' limits how much this gateway may ask for in a time. Nothing was charged; try again "
        "later.",
        headers=retry,
    )


def _overloaded(model: str, retry: dict[str, str]) -> Refusal:
    return Refusal(
        RefusalType.UPSTREAM_OVERLOADED,
        f"The provider of '{model}' is overloaded or limits this gateway; try again later.",
        headers=retry,
    )


def _failed(model: str, status: int | None) -> Refusal:
    said = f" (its status: {status})" if status else ""
    return Refusal(
        RefusalType.UPSTREAM_ERROR,
        f"The provider of '{model}' could not answer this call{said}. Try again; if it lasts, give the operator the "
        "request id.",
        headers=_NO_RETRY,
    )


def _parsed(answer: bytes) -> Any:
    """Return an error's JSON; None unless it is an object, or the list of one that Gemini streams."""
    try:
        value = json.loads(answer.decode(errors="replace").removeprefix("\ufeff"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    alone = value[0] if isinstance(value, list) and len(value) == 1 else value
    return value if isinstance(alone, dict) else None


def _no_number(_constant: str) -> None:
    """Stand for NaN and the infinities, which Python reads and JSON has not."""


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
