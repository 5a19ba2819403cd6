"""An upstream's error, as its caller may know it.

What the caller's own request is to blame for keeps the provider's status, code, type and wording: tools act on them (a
coding agent shortens its context when it reads that the context is too long). What is between us and the provider (our
account, its limits, its failures) is said in our words: the caller can do nothing about it, and the provider's words
name our account. `upstream_rules` is the table of what becomes of which failure.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.core.account_fault import AccountFault
from toolkit.core.errors import Refusal
from toolkit.core.scrub import Scrubber
from toolkit.core.upstream_traits import UpstreamTraits
from toolkit.core.wording import listed
from toolkit.dialects.reading import object_of, objects_of, text_of
from toolkit.dialects.sse import data_of, element_of, name_of
from toolkit.gateway.account_faults import details_of, fault_of, names_of, words_of
from toolkit.gateway.upstream_rules import ADDED, Rule, rule_of

LARGEST_ERROR = 256 * 1024
"""Bytes of an error's body that are read; a longer one is not JSON any more, so it is told in our words."""

# OpenAI, "Error codes"; Anthropic, "Errors"; Google, "google.rpc.Code"; Moonshot, "Error reference"; Alibaba Model
# Studio, "Error codes".
_BUSY = {
    *("429", "498", "503", "529", "rate_limit_error", "rate_limit_exceeded", "resource_exhausted", "overloaded_error"),
    *("unavailable", "engine_overloaded_error", "rate_limit_reached_error", "slow_down", "throttlingexception"),
    *("throttling", "throttling.ratequota", "throttling.allocationquota", "serviceunavailable"),
}
_FAILED = {
    *("500", "502", "504", "api_error", "server_error", "internal", "internal_error", "internal_server_error"),
    *("timeout_error", "deadline_exceeded", "unknown"),
}
_DIGITS = 3
_STATUSES = {
    **dict.fromkeys(("invalid_request_error", "invalid_argument", "invalid_prompt", "context_length_exceeded"), 400),
    **dict.fromkeys(("failed_precondition", "out_of_range", "string_above_max_length", "content_filter"), 400),
    **dict.fromkeys(("authentication_error", "unauthenticated", "invalid_api_key"), 401),
    **dict.fromkeys(("billing_error", "insufficient_quota"), 402),
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "not_found", "model_not_found"), 404),
    "request_too_large": 413,
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "resource_exhausted", "slow_down"), 429),
    **dict.fromkeys(("rate_limit_reached_error", "engine_overloaded_error", "throttlingexception"), 429),
    **dict.fromkeys(("throttling", "throttling.ratequota", "throttling.allocationquota"), 429),
    **dict.fromkeys(("unavailable", "serviceunavailable"), 503),
    "overloaded_error": 529,
    **dict.fromkeys(("timeout_error", "deadline_exceeded"), 504),
}
"""Statuses of errors that are told in a stream, where nothing has one; from the same documentation, and Microsoft's,
"Content filtering"."""

_OF_CODES = {
    1001: "timeout_error",
    **dict.fromkeys((1002, 1039, 1041, 2045), "rate_limit_error"),
    **dict.fromkeys((1004, 2049), "authentication_error"),
    1008: "insufficient_balance",
    2056: "insufficient_quota",
    2061: "permission_error",
    **dict.fromkeys((1026, 1027, 1042, 2013), "invalid_request_error"),
}
"""Types of MiniMax's codes ("Error codes"), as OpenAI and Anthropic call them; of the others it is our `api_error`."""

_DELAY = re.compile(r"(\d{1,6})(\.\d{1,9})?s")
_WAIT = re.compile(r"try again in (\d{1,6}(?:\.\d{1,6})?)\s?(ms|s)\b")


@dataclass(frozen=True, slots=True)
class CallersError:
    """What the caller gets.

    Args:
        refusal: our account of it, with the status.
        rule: by which it is that.
        body: the provider's own, scrubbed, which is sent in its place; None if ours is.
        fault: what is wrong with our account, for the operator.
    """

    refusal: Refusal
    rule: Rule
    body: bytes | None = None
    fault: AccountFault | None = None

    @property
    def other_way(self) -> bool:
        """Whether another upstream of the model may be tried: one may well have a model that this one has not."""
        return self.rule.other_way or self.fault is not None


def of_answer(status: int, answer: bytes, retry: dict[str, str], model: str, scrubber: Scrubber) -> CallersError:
    """Return what the caller gets for an upstream's error answer.

    Args:
        status: the upstream's.
        answer: its body, `LARGEST_ERROR` bytes at most.
        retry: its `Retry-After` and `retry-after-ms`.
        model: as the caller named it.
        scrubber: for the upstream.
    """
    value = parsed(answer)
    error = _error_in(value)
    fault = fault_of(status, error)
    rule = rule_of(status, fault, names_of(error), error, of_a_model=_is_of_a_model(value, answer))
    refusal = _refusal(rule, status, model, retry or _retry_in(error))
    if not rule.is_callers:
        return CallersError(refusal, rule, fault=fault)
    if status == 404:
        fault = AccountFault.MODEL  # or of a name that is wrong here: the operator is to know in either case
    if value is None:
        refusal.headers = {"x-should-retry": "false"}
        return CallersError(refusal, rule, fault=fault)
    told = scrubber.value(value)
    refusal.message = words_of(_error_in(told)) or refusal.message
    return CallersError(refusal, rule, _dumped(told), fault)


def billed(status: int, answer: bytes, traits: UpstreamTraits) -> dict[str, Any] | None:
    """Return an error answer, as far as it is an object, if the upstream bills it; None if it does not.

    Args:
        status, answer: as `of_answer` takes them.
        traits: of the upstream.
    """
    if not traits.billed_errors:
        return None
    value = parsed(answer)
    if not traits.bills(status, names_of(_error_in(value))):
        return None
    return value if isinstance(value, dict) else {}


def is_billed(event: dict[str, Any], traits: UpstreamTraits) -> bool:
    """Whether the upstream bills an error that an event tells, or a whole answer of status 200."""
    if not traits.billed_errors:
        return False
    told = [error for _, error in _errors_in(_standard(event))] or [event]
    return any(traits.bills(_status_in(error), names_of(error)) for error in told)


def words_in(answer: bytes) -> str:
    """Return an error answer's sentence; empty if it has none."""
    return words_of(_error_in(parsed(answer)))


def of_added(fields: Iterable[str], model: str) -> CallersError:
    """Return what the caller gets where the upstream refuses fields that we have to add.

    Args:
        fields: their names.
        model: as the caller named it.
    """
    words = _WORDS["added"].format(model=model, said=listed(sorted(fields)))
    return CallersError(Refusal(ADDED.type, words, status=ADDED.status, headers={"x-should-retry": "false"}), ADDED)


def _is_of_a_model(value: Any, answer: bytes) -> bool:
    return value is not None and b"model" in answer.lower()


def of_piece(piece: bytes, retry: dict[str, str], model: str, scrubber: Scrubber, *, sse: bool) -> CallersError:
    """Return what the caller gets for an error that is the first event of a stream; as `of_answer`.

    Its status is the one that it names, or that its type has in its provider's documentation; else 500.
    """
    return of_event(event_in(piece, sse=sse) or {}, retry, model, scrubber)


def of_event(event: dict[str, Any], retry: dict[str, str], model: str, scrubber: Scrubber) -> CallersError:
    """Return what the caller gets for an event, or a whole answer of status 200, that tells an error; as `of_piece`."""
    event = _standard(event)
    told = next((error for _, error in _errors_in(event)), None)
    error = told or {name: value for name, value in event.items() if name not in ("sequence_number", "request_id")}
    whole = {"error": error} | ({"type": "error"} if told and event.get("type") == "error" else {})
    return of_answer(_status_in(error), _dumped(whole), retry, model, scrubber)


def _standard(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event or an answer with its error under `error`, where MiniMax tells it in `base_resp`."""
    told = object_of(event, "base_resp")
    code = told.get("status_code")
    if not code or event.get("error"):
        return event
    kind = _OF_CODES.get(code, "api_error") if isinstance(code, int) else "api_error"
    error = {"type": kind, "code": code, "message": text_of(told, "status_msg") or ""}
    return {name: value for name, value in event.items() if name != "base_resp"} | {"error": error}


def _errors_in(event: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """Return the errors that stand in an event or an answer, each with the object whose `error` it is."""
    response = event.get("response")
    holders = [event, response if isinstance(response, dict) else {}, *objects_of(event, "choices")]
    return [(holder, holder["error"]) for holder in holders if holder.get("error")]


def _status_in(error: Any) -> int:
    if isinstance(error, dict):
        for name in ("code", "status", "type"):
            said = str(error.get(name)).lower()[:60]
            if said in _STATUSES:
                return _STATUSES[said]
            if len(said) == _DIGITS and said.isdecimal() and said[0] in "45":
                return int(said)
    return 500


def in_answer(answer: dict[str, Any], model: str, scrubber: Scrubber) -> bytes:
    """Return a whole answer that has an error in it, whose words are fit for the caller."""
    answer = _standard(answer)
    for holder, error in _errors_in(answer):
        holder["error"] = _reworded(error, model, scrubber)
    return _dumped(answer)


def in_piece(piece: bytes, model: str, scrubber: Scrubber, *, sse: bool) -> bytes | None:
    """Return a piece of a stream that may be its error event, whose words are fit for the caller.

    Returns:
        The piece as it is if it tells no error; None if it tells one that is not JSON: then ours has to be sent.
    """
    name = name_of(piece) if sse else None
    if name != b"error" and b"error" not in piece and b"base_resp" not in piece:
        return piece
    event = event_in(piece, sse=sse)
    if event is None:
        return None if name == b"error" else piece
    event = _standard(event)
    found = _errors_in(event)
    for holder, error in found:
        holder["error"] = _reworded(error, model, scrubber)
    if not found and (name == b"error" or "error" in (event.get("type"), event.get("object"))):
        kind = {name: event[name] for name in ("type", "object") if name in event}
        event = _reworded(event, model, scrubber) | kind
    elif not found:
        return piece
    if "request_id" in event:
        del event["request_id"]  # the provider's
    whole = _dumped(event)
    if not sse:
        return piece[: len(piece) - len(piece.lstrip(b" \t\r\n[,"))] + whole
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + whole + b"\n\n"


def event_in(piece: bytes, *, sse: bool) -> dict[str, Any] | None:
    """Return the JSON object of a piece of a stream; None if it has none."""
    data = data_of(piece) if sse else element_of(piece)
    try:
        event = json.loads(data or b"", parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    if isinstance(event, list) and len(event) == 1:
        event = event[0]
    return event if isinstance(event, dict) else None


def _reworded(error: Any, model: str, scrubber: Scrubber) -> Any:
    """Return an error without what the caller must not read; what programs act on, type and code, is kept."""
    blamed = _blames(error)
    if blamed is None:
        return scrubber.value(error)
    words = _WORDS[blamed].format(model=model, said="")
    if blamed == "busy" and (wait := _WAIT.search(words_of(error)[:2_000])):
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
    if fault_of(None, error) is not None:
        return "account"
    named = names_of(error)
    return "busy" if named & _BUSY else "failed" if named & _FAILED else None


def _retry_in(error: Any) -> dict[str, str]:
    """Return when to try again as a header, where it is said in the answer alone; "google.rpc.RetryInfo"."""
    for detail in details_of(error):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and (seconds := _DELAY.fullmatch(delay)):
            return {"retry-after": str(int(seconds[1]) + bool(seconds[2]))}
    return {}


def _error_in(value: Any) -> Any:
    """Return where an answer tells its error: under `error`, as most do, or at the top."""
    if isinstance(value, list):
        value = value[0]
    return (value.get("error") or _standard(value).get("error") or value) if isinstance(value, dict) else None


_WORDS = {
    "account": "The provider of '{model}' does not serve this gateway's account. Trying again does not help: give the "
    "operator the request id.",
    "limited": "The provider of '{model}' limits how much this gateway may ask for in a time; try again later.",
    "busy": "The provider of '{model}' is overloaded or limits this gateway; try again later.",
    "failed": "The provider of '{model}' could not answer this call{said}. Try again; if it lasts, give the operator "
    "the request id.",
    "absent": "The provider of '{model}' does not have the endpoint of this call{said}. Trying again does not help: "
    "call one that it has, or give the operator the request id, who can look at the upstream's base URL.",
    "added": "The provider of '{model}' refuses {said}, which this gateway adds to bound what a call can cost. Trying "
    "again does not help: give the operator the request id, whom `keydesk findings` tells what to do.",
    "callers": "The provider of '{model}' refused this request{said}, in words that are no answer of its API. Nothing "
    "was charged. See that the request is right and not too large.",
}


def _refusal(rule: Rule, status: int, model: str, retry: dict[str, str]) -> Refusal:
    headers = dict(retry) if rule.tells_when else {}
    if rule.should_not_retry:
        headers["x-should-retry"] = "false"
    words = _WORDS[rule.words].format(model=model, said=f" (its status: {status})")
    return Refusal(rule.type, words, status=rule.status or status, headers=headers)


def parsed(answer: bytes) -> Any:
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
