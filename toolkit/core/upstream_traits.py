"""What is known of an upstream: how it is asked, and what it bills of a call that is left or refused. Pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from toolkit.core.dialect import Dialect
from toolkit.core.errors import InvalidInput

RECKON_RATE = 200
"""Tokens a second that a model is taken to make where nobody saw them, unless its upstream says otherwise."""

MOST_RECKON_RATE = 100_000
"""Tokens a second; no model is near it."""

MOST_BILLED_ERRORS = 20

_API_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")
_ERROR_NAME = re.compile(r"[a-z0-9_.-]{1,80}")


class OnLeave(StrEnum):
    """What becomes of a streamed answer whose caller has left."""

    CANCEL = "cancel"
    """The connection is closed: the provider stops, and bills what it made."""
    READ_ON = "read_on"
    """It is read on for a while: the provider bills the whole anyway, or tells its usage only at the end."""


class CredentialHeader(StrEnum):
    """The header of a request that shows our credential."""

    USUAL = "usual"
    """As the SDK of the dialect shows it."""
    BEARER = "bearer"
    API_KEY = "api-key"
    """Azure OpenAI, "REST API reference", authentication."""
    X_API_KEY = "x-api-key"
    X_GOOG_API_KEY = "x-goog-api-key"

    def shown(self, credential: str) -> dict[str, str]:
        """Return the header with a credential; not for `USUAL`, which the dialect knows."""
        if self is CredentialHeader.BEARER:
            return {"authorization": f"Bearer {credential}"}
        return {self.value: credential}


class OutputBound(StrEnum):
    """The name under which a chat's bound on output is taken."""

    EITHER = "either"
    """Both names are, so that a caller's goes on as it is."""
    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class UpstreamTraits:
    """What is known of an upstream.

    Args:
        on_leave: what becomes of a streamed answer whose caller has left.
        refusal_free: it does not bill a refusal before any output.
        pin_tier: a request that names no service tier asks for the one that is priced.
        reckon_rate: tokens a second that a model is taken to make where nobody saw them.
        credential_header: which header shows our credential.
        api_version: of Azure's older API, where a deployment's name stands in the path; empty elsewhere.
        output_bound: the name under which a chat's bound on output is taken; a bound under the other one is renamed.
        add_stream_options: a stream's usage is asked for where its caller did not; else the upstream refuses to be
            asked, and nobody's wish goes on.
        add_store: `store: false` is said of a response where its caller said nothing.
        add_include: a response that is not stored is asked for its reasoning in encrypted form.
        billed_errors: types, codes and statuses of errors that are billed though they answer nothing, with commas.
    """

    on_leave: OnLeave = OnLeave.CANCEL
    refusal_free: bool = False
    pin_tier: bool = False
    reckon_rate: int = RECKON_RATE
    credential_header: CredentialHeader = CredentialHeader.USUAL
    api_version: str = ""
    output_bound: OutputBound = OutputBound.EITHER
    add_stream_options: bool = True
    add_store: bool = True
    add_include: bool = True
    billed_errors: str = ""

    def bills(self, status: int, named: set[str]) -> bool:
        """Whether an error is billed, by its status and the lower-case names that it has."""
        return not (named | {str(status)}).isdisjoint(self.billed_errors.split(","))


class GivenTraits(TypedDict, total=False):
    """What is said of an upstream, as in `UpstreamTraits`; None says nothing."""

    on_leave: OnLeave | None
    refusal_free: bool | None
    pin_tier: bool | None
    reckon_rate: int | None
    credential_header: CredentialHeader | None
    api_version: str | None
    output_bound: OutputBound | None
    add_stream_options: bool | None
    add_store: bool | None
    add_include: bool | None
    billed_errors: str | None


USUAL = UpstreamTraits()
"""What holds of an upstream of which nothing is known."""


def check(dialect: Dialect, traits: UpstreamTraits) -> None:
    """Refuse what cannot be true of an upstream of a dialect.

    Raises:
        InvalidInput: what another dialect alone has, or a value that cannot be.
    """
    if traits.refusal_free and dialect is not Dialect.ANTHROPIC:
        raise InvalidInput(
            f"Free refusals are Anthropic's: an upstream of the {dialect} dialect does not say that it refused before "
            "any output. Leave it off."
        )
    if traits.pin_tier and dialect is Dialect.GEMINI:
        raise InvalidInput(
            "The tier is pinned on upstreams of the openai and anthropic dialects alone: Gemini's API serves the "
            "standard tier unless a request names another one, and that is refused."
        )
    if not 0 <= traits.reckon_rate <= MOST_RECKON_RATE:
        raise InvalidInput(f"The reckoned rate must be 0 to {MOST_RECKON_RATE:,} tokens a second.")
    if dialect is not Dialect.OPENAI:
        for name in ("api_version", "output_bound", "add_stream_options", "add_store", "add_include"):
            if getattr(traits, name) != getattr(USUAL, name):
                option = name.replace("_", "-")
                raise InvalidInput(
                    f"--{option} is for upstreams of the openai dialect, not of {dialect}. Leave it off."
                )
    if traits.api_version and _API_VERSION.fullmatch(traits.api_version) is None:
        raise InvalidInput(f"The API version {traits.api_version!r} must look like 2024-10-21.")
    errors = traits.billed_errors.split(",") if traits.billed_errors else []
    if len(errors) > MOST_BILLED_ERRORS or not all(map(_ERROR_NAME.fullmatch, errors)):
        raise InvalidInput(
            f"The billed errors must be up to {MOST_BILLED_ERRORS} types, codes or statuses in small letters, with "
            "commas between them, such as content_filter,408."
        )
