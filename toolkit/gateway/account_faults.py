"""What of a provider's error concerns our account there, and not the call. Pure.

Providers say it in many ways and with many statuses; by type, code or reason where there is one, else by how the
sentence begins. Only its beginning counts: a caller can have his own words quoted further on.
"""

import re
from typing import Any

from toolkit.core.account_fault import AccountFault
from toolkit.dialects.reading import object_of, objects_of

LONGEST_WORDS = 2_000
"""Characters of a provider's sentence that are looked at."""

_LONGEST_NAME = 80

# OpenAI, "Error codes"; Anthropic, "Errors"; Google, "google.api.ErrorReason" and "Troubleshooting guide" of the Gemini
# API; Amazon Bedrock, "Troubleshooting API error codes"; Azure OpenAI, "Troubleshooting"; Groq, "Error codes" and
# "Model permissions"; Moonshot, "Error reference"; Alibaba Model Studio, "Error codes"; LiteLLM, "Budget alerts".
_NAMES: dict[AccountFault, frozenset[str]] = {
    AccountFault.CREDIT: frozenset(
        {
            *("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"),
            *("billing_disabled", "exceeded_current_quota_error", "arrearage", "insufficient_balance"),
            *("insufficient_credits", "payment_required", "blocked_api_access", "allocationquota.freetieronly"),
            "budget_exceeded",
        }
    ),
    AccountFault.ACCOUNT: frozenset(
        {
            *("account_deactivated", "account_suspended", "consumer_suspended", "account_state_invalid"),
            *("organization_restricted", "organization_deactivated", "user_blocked_by_admin"),
        }
    ),
    AccountFault.REGION: frozenset(
        {"unsupported_country_region_territory", "location_policy_violated", "location_org_policy_violated"}
    ),
    AccountFault.PROJECT: frozenset(
        {
            *("invalid_organization", "mismatched_organization", "mismatched_project", "service_disabled"),
            *("consumer_invalid", "user_project_denied", "resource_project_invalid", "org_restriction_violation"),
            "workspace.accessdenied",
        }
    ),
    AccountFault.MODEL: frozenset(
        {
            *("deploymentnotfound", "model.accessdenied", "accessdenied.unpurchased"),
            *("model_permission_blocked_org", "model_permission_blocked_project"),
        }
    ),
    AccountFault.CREDENTIAL: frozenset(
        {
            *("authentication_error", "unauthenticated", "invalid_api_key", "invalidapikey", "api_key_invalid"),
            *("incorrect_api_key_error", "invalid_authentication_error", "ip_not_authorized", "credentials_missing"),
            *("access_token_expired", "access_token_type_unsupported", "access_token_scope_insufficient"),
            *("api_key_service_blocked", "api_key_http_referrer_blocked", "api_key_ip_address_blocked"),
            *("api_key_android_app_blocked", "api_key_ios_app_blocked"),
            *("expiredtokenexception", "unrecognizedclientexception", "invalidclienttokenid"),
        }
    ),
    AccountFault.PERMISSION: frozenset(
        {
            *("permission_error", "permission_denied", "permission_denied_error", "iam_permission_denied"),
            *("accessdenied", "access_denied", "accessdeniedexception"),
        }
    ),
}

# The same pages, and: DeepSeek, "Error Codes"; OpenRouter, "Errors and debugging"; xAI, "Debugging errors"; Fireworks,
# "Inference error codes"; Together, "Error codes"; Mistral, "API error codes".
_SENTENCES: dict[AccountFault, tuple[str, ...]] = {
    AccountFault.CREDIT: (
        r"your credit balance is too low",
        r"you exceeded your current quota",
        r"you have reached your specified (?:api|workspace) usage limits",
        r"insufficient (?:account )?(?:balance|credits|funds)",
        r"this request requires more credits",
        r"your (?:prepayment |free )?credits? (?:are|is|have been) (?:depleted|exhausted)",
        r"your (?:project|team|account|organization)\b[^.]{0,80}\b(?:spending (?:cap|limit)|available credits)",
        r"your newly created team doesn't have any credits",
        r"access denied, please make sure your account is in good standing",
        r"the free (?:tier|quota) of the model has been exhausted",
        r"credit limit exceeded|payment required|billing hard limit has been reached",
        r"your account is not active, please check your billing",
        r"this api method requires billing|gemini api free tier is not available",
        r"inactive subscription or usage limit",
    ),
    AccountFault.ACCOUNT: (
        r"(?:this |your )?organization has been (?:disabled|deactivated|restricted)",
        r"your account (?:\S{1,80} )?(?:<\S{1,80}> )?(?:has been|is) (?:deactivated|suspended|disabled|banned)",
        r"(?:the )?account \S{1,80} is (?:suspended|not active|disabled)",
        r"the openai account associated with this api key has been deactivated",
        r"permission denied: consumer \S{1,100} has been suspended",
    ),
    AccountFault.REGION: (
        r"user location is not supported",
        r"country, region, or territory not supported",
        r"request not allowed",
    ),
    AccountFault.PROJECT: (
        r"you must be a member of an organization|no such organization",
        r"openai-organization header should match",
        r"[\w. ()-]{1,80} has not been used in project \S{1,80} before",
    ),
    AccountFault.MODEL: (
        r"project \S{1,80} does not have access to model",
        r"(?:you|your (?:account|project|organization|team)) (?:do|does) ?n[o']t have access to [^.]{0,20}model",
        r"your organization must be verified to",
        r"the api deployment for this resource does not exist",
        r"the model \S{1,100} is blocked at the",
        r"no endpoints found matching your data policy",
    ),
    AccountFault.CREDENTIAL: (
        r"api key (?:not valid|not found|expired)|(?:incorrect|invalid) api[ _-]key",
        r"invalid x-api-key|invalid bearer token|authentication fails",
        r"your api key (?:was reported|has been|is invalid|is not valid|has expired)",
        r"access denied due to invalid subscription key",
        r"the security token included in the request is",
        r"no auth credentials found",
    ),
}
_BEGINNINGS = {
    fault: re.compile(rf"\W{{0,3}}(?:{'|'.join(patterns)})", re.IGNORECASE) for fault, patterns in _SENTENCES.items()
}
_OF_TOKENS = re.compile(r"\b(?:context length|max_tokens|max_new_tokens|input token)", re.IGNORECASE)
_FLAGGED = re.compile(r"\W{0,3}content violates usage guidelines", re.IGNORECASE)
_NONE_AT_ALL = re.compile(r"limit: 0\b")
_PER_MINUTE = "error-code#token-limit"
"""Alibaba's address for its limit of tokens a minute, which it words as OpenAI's quota."""


def fault_of(status: int | None, error: Any) -> AccountFault | None:
    """Return what is wrong with our account by a provider's error; None if that is not what the error is about.

    Args:
        status: of the answer; None where the error is an event of a stream.
        error: the error object, or its words.
    """
    words = words_of(error)[:LONGEST_WORDS]
    named = names_of(error)
    told = next((fault for fault, pattern in _BEGINNINGS.items() if pattern.match(words)), None)
    if "resource_exhausted" in named:
        # Gemini says "quota" of limits per minute, too; a model that our account has none of has a limit of 0. "Rate
        # limits".
        if _NONE_AT_ALL.search(words) or "0" in _limits_of(error):
            return AccountFault.MODEL
        return told if told and "current quota" not in words else None
    if _PER_MINUTE in words or is_callers(status, error):
        return None
    by_name = next((fault for fault, names in _NAMES.items() if named & names), None)
    if by_name in {None, AccountFault.CREDENTIAL, AccountFault.PERMISSION}:
        by_name = told or by_name  # the sentence may say more than such a name
    if by_name is None and "403" in named | {str(status)} and "model_not_found" in named:
        return AccountFault.MODEL
    return by_name or next((_OF_STATUS[name] for name in _OF_STATUS if name in named | {str(status)}), None)


_OF_STATUS = {"401": AccountFault.CREDENTIAL, "402": AccountFault.CREDIT, "403": AccountFault.PERMISSION}


def is_callers(status: int | None, error: Any) -> bool:
    """Whether a 403 is the caller's: his input was flagged (OpenRouter, xAI), or is too long (Together)."""
    if "403" not in names_of(error) | {str(status)}:
        return False
    if _FLAGGED.match(words_of(error)):  # of xAI, which says so by the code that a key without permission has, too
        return True
    if not isinstance(error, dict):
        return False
    metadata = object_of(error, "metadata")
    return (
        bool(metadata.get("reasons") or metadata.get("flagged_input"))
        or _OF_TOKENS.search(words_of(error)[:LONGEST_WORDS]) is not None
    )


def names_of(error: Any) -> set[str]:
    """Return the short words by which an error says what it is, in lower case."""
    if not isinstance(error, dict):
        return set()
    found = {str(error.get(name)).lower()[:_LONGEST_NAME] for name in ("type", "code", "status", "__type")}
    found |= {str(detail.get("reason")).lower()[:_LONGEST_NAME] for detail in details_of(error)}
    return found - {"none"}


def words_of(error: Any) -> str:
    """Return an error's sentence."""
    if isinstance(error, dict):
        error = next((error[name] for name in ("message", "error", "detail", "msg") if error.get(name)), None)
    return error if isinstance(error, str) else ""


def details_of(error: Any) -> list[dict[str, Any]]:
    """Return the first details of an error of Google's; "google.rpc.Status"."""
    details = error.get("details") if isinstance(error, dict) else None
    return [detail for detail in details[:10] if isinstance(detail, dict)] if isinstance(details, list) else []


def _limits_of(error: Any) -> set[str]:
    """Return the limits that were reached; "google.rpc.QuotaFailure"."""
    found = (violation for detail in details_of(error) for violation in objects_of(detail, "violations"))
    return {str(violation.get("quotaValue")) for violation in found}
