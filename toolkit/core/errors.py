"""What can go wrong, one class for each reaction a caller may have.

KeydeskError                 base, never raised itself
├── InvalidInput             a value is wrong: fix it and try again
├── NotFound                 no such thing (or not in your organisation)
├── Conflict                 the thing exists already, or its state forbids the action
├── NotConfirmed             the action needs an explicit confirmation
├── Forbidden                the actor's role does not allow this
├── SignInFailed             wrong e-mail or password, or too many tries
├── Unavailable              the key store cannot be reached, or is of another version
└── Refusal                  the gateway says no to a call; carries a `RefusalType`
"""

from enum import StrEnum


class KeydeskError(Exception):
    """Base of every error whose message is meant for the person who meets it."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the sentence, without the places in the code that it passed."""
        return [f"{type(self).__name__}: {self}"]


class InvalidInput(KeydeskError):
    """A value is wrong; the message names it and says what would be right."""


class NotFound(KeydeskError):
    """No such thing, or it belongs to another organisation: the error is the same for both."""


class Conflict(KeydeskError):
    """The thing exists already, or its present state does not allow the action."""


class NotConfirmed(KeydeskError):
    """The action is dangerous and was not confirmed."""


class Forbidden(KeydeskError):
    """The actor's role does not allow this."""


class SignInFailed(KeydeskError):
    """Wrong e-mail or password, or too many tries; never says which."""


class Unavailable(KeydeskError):
    """The key store cannot be reached or does not fit this version."""


class RefusalType(StrEnum):
    """Why a call was refused: the closed list that callers, logs and charts use."""

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"
    UPGRADE_REQUIRED = "upgrade_required"
    UNAUTHORIZED = "unauthorized"
    ORGANISATION_SUSPENDED = "organisation_suspended"
    REQUEST_TOO_LARGE = "request_too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    MODEL_NOT_FOUND = "model_not_found"
    WRONG_DIALECT = "wrong_dialect"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    API_KEY_QUOTA_EXCEEDED = "api_key_quota_exceeded"
    BILLING_SHORTFALL = "billing_shortfall"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_OVERLOADED = "upstream_overloaded"
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    UNAVAILABLE = "unavailable"
    INTERNAL_ERROR = "internal_error"


STATUS = {
    RefusalType.NOT_FOUND: 404,
    RefusalType.METHOD_NOT_ALLOWED: 405,
    RefusalType.URI_TOO_LONG: 414,
    RefusalType.HEADERS_TOO_LARGE: 431,
    RefusalType.UPGRADE_REQUIRED: 426,
    RefusalType.UNAUTHORIZED: 401,
    RefusalType.ORGANISATION_SUSPENDED: 403,
    RefusalType.REQUEST_TOO_LARGE: 413,
    RefusalType.UNSUPPORTED_ENCODING: 415,
    RefusalType.INVALID_REQUEST: 400,
    RefusalType.UNSUPPORTED_FEATURE: 400,
    RefusalType.MODEL_NOT_FOUND: 404,
    RefusalType.WRONG_DIALECT: 400,
    RefusalType.MODEL_NOT_ALLOWED: 403,
    RefusalType.API_KEY_QUOTA_EXCEEDED: 402,
    RefusalType.BILLING_SHORTFALL: 402,
    RefusalType.UPSTREAM_ERROR: 502,
    RefusalType.UPSTREAM_TIMEOUT: 504,
    RefusalType.UPSTREAM_OVERLOADED: 503,
    RefusalType.UPSTREAM_RATE_LIMITED: 429,
    RefusalType.UNAVAILABLE: 503,
    RefusalType.INTERNAL_ERROR: 500,
}
"""HTTP status of each refusal (design: check order and refusals)."""


class Refusal(KeydeskError):
    """The gateway's no.

    Args:
        type: the reason, from the closed list.
        message: a sentence for the caller that names the thing and the fix.
        param: the request field at fault, as the caller spelled it, if there is one.
        details: facts for programs, e.g. limit, spent and held as decimal USD strings.
        headers: response headers that belong to this refusal.
        status: the HTTP status, if it is not that of its type: a provider's, which is kept.
    """

    def __init__(
        self,
        type: RefusalType,  # noqa: A002 - the word that callers see in the body
        message: str,
        *,
        param: str | None = None,
        details: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.message = message
        self.param = param
        self.details = details or {}
        self.headers = headers or {}
        self._status = status

    @property
    def status(self) -> int:
        """The HTTP status this refusal is answered with."""
        return self._status or STATUS[self.type]
