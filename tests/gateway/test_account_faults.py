"""What concerns our account at a provider is known in each provider's own form; what does not is not taken for it."""

import json
from typing import Any

import pytest

from toolkit.core.account_fault import CURES, SENTENCES, AccountFault
from toolkit.core.scrub import Scrubber
from toolkit.gateway import upstream_errors

CREDENTIAL, ACCOUNT, CREDIT = AccountFault.CREDENTIAL, AccountFault.ACCOUNT, AccountFault.CREDIT
REGION, PROJECT, MODEL, PERMISSION = (
    AccountFault.REGION,
    AccountFault.PROJECT,
    AccountFault.MODEL,
    AccountFault.PERMISSION,
)


def of_google(status: str, words: str, reason: str = "", **more: Any) -> dict[str, Any]:
    """Return an error of Google's."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
    return {"error": {"status": status, "message": words, "details": [info] if reason else [], **more}}


def plain(words: str, **names: Any) -> dict[str, Any]:
    """Return an error as OpenAI and who follows it write it."""
    return {"error": {"message": words, **names}}


OURS: list[tuple[str, int, Any, AccountFault]] = [
    ("OpenAI", 401, plain("Incorrect API key provided: sk-abc.", code="invalid_api_key"), CREDENTIAL),
    ("OpenAI", 401, plain("You must be a member of an organization to use the API."), PROJECT),
    ("OpenAI", 401, plain("Your IP is not allowed.", code="ip_not_authorized"), CREDENTIAL),
    ("OpenAI", 403, plain("Country, region, or territory not supported"), REGION),
    ("OpenAI", 403, plain("Project `proj_x` does not have access to model `m`", code="model_not_found"), MODEL),
    ("OpenAI", 400, plain("Your organization must be verified to stream this model.", param="stream"), MODEL),
    ("OpenAI", 429, plain("You exceeded your current quota", code="insufficient_quota"), CREDIT),
    ("OpenAI", 429, plain("Your account is not active, please check your billing.", code="billing_not_active"), CREDIT),
    ("OpenAI", 400, plain("Billing hard limit has been reached", code="billing_hard_limit_reached"), CREDIT),
    ("OpenAI", 401, plain("x", code="account_deactivated"), ACCOUNT),
    (
        "Azure",
        401,
        plain("Access denied due to invalid subscription key or wrong API endpoint.", code="401"),
        CREDENTIAL,
    ),
    ("Azure", 403, plain("Access denied due to Virtual Network/Firewall rules.", code="403"), PERMISSION),
    ("Azure", 404, plain("The API deployment for this resource does not exist.", code="DeploymentNotFound"), MODEL),
    ("Anthropic", 401, {"type": "error", "error": {"type": "authentication_error", "message": "no"}}, CREDENTIAL),
    ("Anthropic", 400, plain("Your credit balance is too low to access", type="invalid_request_error"), CREDIT),
    (
        "Anthropic",
        400,
        plain("You have reached your specified API usage limits.", type="invalid_request_error"),
        CREDIT,
    ),
    ("Anthropic", 400, plain("This organization has been disabled.", type="invalid_request_error"), ACCOUNT),
    ("Anthropic", 403, plain("Request not allowed", type="forbidden"), REGION),
    ("Anthropic", 402, plain("x", type="billing_error"), CREDIT),
    ("Gemini", 400, of_google("INVALID_ARGUMENT", "API key not valid.", "API_KEY_INVALID"), CREDENTIAL),
    ("Gemini", 400, of_google("INVALID_ARGUMENT", "API key expired. Please renew the API key."), CREDENTIAL),
    ("Gemini", 403, of_google("PERMISSION_DENIED", "Your API key was reported as leaked."), CREDENTIAL),
    ("Gemini", 403, of_google("PERMISSION_DENIED", "x is disabled", "SERVICE_DISABLED"), PROJECT),
    (
        "Gemini",
        403,
        of_google("PERMISSION_DENIED", "Permission denied: Consumer 'api_key:1' has been suspended."),
        ACCOUNT,
    ),
    ("Gemini", 403, of_google("PERMISSION_DENIED", "x", "BILLING_DISABLED"), CREDIT),
    ("Gemini", 400, of_google("FAILED_PRECONDITION", "User location is not supported for the API use."), REGION),
    ("Gemini", 429, of_google("RESOURCE_EXHAUSTED", "You exceeded your current quota. x, limit: 0, model: m"), MODEL),
    ("Gemini", 429, of_google("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), CREDIT),
    ("Gemini, list", 400, [of_google("INVALID_ARGUMENT", "API key not valid.", "API_KEY_INVALID")], CREDENTIAL),
    ("Vertex", 401, of_google("UNAUTHENTICATED", "x", "ACCESS_TOKEN_EXPIRED"), CREDENTIAL),
    ("Vertex", 403, of_google("PERMISSION_DENIED", "Permission 'p' denied", "IAM_PERMISSION_DENIED"), PERMISSION),
    ("Vertex", 403, of_google("PERMISSION_DENIED", "Vertex AI API has not been used in project 1 before"), PROJECT),
    ("OpenRouter", 402, plain("Insufficient credits", code=402), CREDIT),
    ("OpenRouter", 402, plain("This request requires more credits, or fewer max_tokens.", code=402), CREDIT),
    ("OpenRouter", 401, plain("No auth credentials found", code=401), CREDENTIAL),
    ("OpenRouter", 404, plain("No endpoints found matching your data policy", code=404), MODEL),
    ("DeepSeek", 402, plain("Insufficient Balance", type="unknown_error", code="invalid_request_error"), CREDIT),
    ("DeepSeek", 401, plain("Authentication Fails, Your api key: ****1 is invalid"), CREDENTIAL),
    ("Mistral", 401, {"detail": "Unauthorized"}, CREDENTIAL),
    ("Mistral", 401, {"message": "Unauthorized", "request_id": "x"}, CREDENTIAL),
    ("Groq", 400, plain("Organization has been restricted.", code="organization_restricted"), ACCOUNT),
    ("Groq", 403, plain("The model `m` is blocked at the project level.", code="x"), MODEL),
    (
        "xAI",
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: x."},
        CREDENTIAL,
    ),
    ("xAI", 403, {"code": "no", "error": "Your newly created team doesn't have any credits or licenses yet."}, CREDIT),
    ("xAI", 429, {"code": "no", "error": "Your team x has either used all available credits or reached its"}, CREDIT),
    ("Moonshot", 401, plain("x", type="invalid_authentication_error"), CREDENTIAL),
    (
        "Moonshot",
        429,
        plain("Your account org-1 is suspended, please check", type="exceeded_current_quota_error"),
        CREDIT,
    ),
    ("Qwen", 400, plain("Access denied, please make sure your account is in good standing.", code="Arrearage"), CREDIT),
    ("Qwen", 403, plain("x", code="AllocationQuota.FreeTierOnly"), CREDIT),
    ("Qwen", 403, plain("x", code="Model.AccessDenied"), MODEL),
    ("Qwen", 401, plain("x", code="invalid_api_key"), CREDENTIAL),
    ("Together", 402, plain("Credit limit exceeded"), CREDIT),
    ("Together", 401, plain("Invalid API key provided.", type="invalid_request_error"), CREDENTIAL),
    ("Fireworks", 412, plain("Account x is suspended, possibly due to reaching the monthly spending limit"), ACCOUNT),
    ("Bedrock", 403, {"message": "x", "__type": "AccessDeniedException"}, PERMISSION),
    ("Bedrock", 403, {"message": "The security token included in the request is expired"}, CREDENTIAL),
    ("a page", 401, "<html>", CREDENTIAL),
]


@pytest.mark.parametrize(("provider", "status", "answer", "fault"), OURS)
def test_our_account_is_to_blame(provider: str, status: int, answer: Any, fault: AccountFault) -> None:
    """502 in our words, with nothing of the provider's text, never to be tried again; the operator learns why."""
    body = json.dumps(answer).encode()
    found = upstream_errors.of_answer(status, body, {"retry-after": "9"}, "gpt", Scrubber("", ""))
    assert found.fault is fault, provider
    assert (found.refusal.status, found.body) == (502, None)
    assert found.refusal.headers == {"x-should-retry": "false"}
    assert found.refusal.message.startswith("The provider of 'gpt' does not serve this gateway's account.")


THEIRS: list[tuple[str, int, Any, int]] = [
    ("Gemini, a minute", 429, of_google("RESOURCE_EXHAUSTED", "You exceeded your current quota. limit: 20"), 429),
    ("Gemini, unsaid", 429, of_google("RESOURCE_EXHAUSTED", "You exceeded your current quota"), 429),
    ("Qwen, a minute", 429, plain("You exceeded x: error-code#token-limit", code="insufficient_quota"), 429),
    ("Moonshot", 429, plain("busy", type="engine_overloaded_error"), 429),
    ("Mistral", 429, {"message": "Service tier capacity exceeded for this model.", "code": "3505"}, 429),
    ("Groq, too large", 413, plain("Request too large on tokens per minute", code="rate_limit_exceeded"), 413),
    ("OpenAI, no such model", 404, plain("The model `m` does not exist", code="model_not_found"), 404),
    ("Anthropic, no such model", 404, plain("model: m", type="not_found_error"), 404),
    ("OpenRouter, flagged", 403, plain("flagged", code=403, metadata={"reasons": ["x"], "flagged_input": "y"}), 403),
    ("xAI, flagged", 403, {"code": "permission-denied", "error": "Content violates usage guidelines. "}, 403),
    ("Together, too long", 403, plain("Input token count and max_tokens must be less than the context length"), 403),
    ("quoted words", 400, plain("Invalid value: 'Your credit balance is too low'.", type="invalid_request_error"), 400),
    ("quoted words", 400, plain("Unknown field: api key not valid", type="invalid_request_error"), 400),
    ("quoted codes", 422, plain("x", type="invalid_request_error", param="insufficient_quota"), 422),
]


@pytest.mark.parametrize(("provider", "status", "answer", "gets"), THEIRS)
def test_our_account_is_not_to_blame(provider: str, status: int, answer: Any, gets: int) -> None:
    """A limit of a minute, or what the caller has sent: he cannot make it look like our account's."""
    found = upstream_errors.of_answer(status, json.dumps(answer).encode(), {}, "gpt", Scrubber("", ""))
    assert found.refusal.status == gets, provider
    assert found.fault is (MODEL if status == 404 else None)


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, {"error": None}, {"error": []}, {"error": {"details": [1]}}])
@pytest.mark.parametrize("status", [400, 403, 500])
def test_any_shape_is_read(status: int, value: Any) -> None:
    """What has no form that anybody documents is judged by its status."""
    found = upstream_errors.of_answer(status, json.dumps(value).encode(), {}, "gpt", Scrubber("", ""))
    assert found.refusal.status == {400: 400, 403: 502, 500: 502}[status]


def test_each_fault_has_words_and_a_cure() -> None:
    """For whoever has to mend it."""
    assert set(SENTENCES) == set(CURES) == set(AccountFault)
