"""Why a provider does not serve our account: what operators read, and what they can do. Pure."""

from enum import StrEnum


class AccountFault(StrEnum):
    """What is wrong with our account at a provider, or with our way to it; callers can do nothing about it."""

    UNCONFIGURED = "unconfigured"
    CONNECTION = "connection"
    CREDENTIAL = "credential"
    ACCOUNT = "account"
    CREDIT = "credit"
    REGION = "region"
    PROJECT = "project"
    MODEL = "model"
    PERMISSION = "permission"


OF_ONE_MODEL = frozenset({AccountFault.MODEL, AccountFault.PERMISSION})
"""Faults that other models of the same upstream may not have."""

SENTENCES = {
    AccountFault.UNCONFIGURED: "our credential for it is missing, or cannot be sent",
    AccountFault.CONNECTION: "there is no way to it: a proxy, a certificate or its address is wrong",
    AccountFault.CREDENTIAL: "the provider does not take our credential: it is wrong, expired or revoked",
    AccountFault.ACCOUNT: "the provider has suspended or closed our account",
    AccountFault.CREDIT: "our account at the provider has no credit or quota left",
    AccountFault.REGION: "the provider does not serve the region that we call from",
    AccountFault.PROJECT: "the provider does not let our organisation or project use this service",
    AccountFault.MODEL: "the provider does not have this model, or has not opened it to our account",
    AccountFault.PERMISSION: "the provider does not permit our account to make this call",
}
"""What is wrong, for operators."""


def sentence_of(fault: AccountFault, model: str) -> str:
    """Return what is wrong, for operators, with the upstream's model if it is of one."""
    return SENTENCES[fault] + (f" ({model})" if model else "")


CURES = {
    AccountFault.UNCONFIGURED: "Set its credential where the gateway runs, or name another one: "
    "`keydesk upstreams update {upstream} --credential-env VAR`.",
    AccountFault.CONNECTION: "Mend what it says: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and KEYDESK_CLIENT_CERTIFICATE "
    "are read when the gateway starts; its address is `keydesk upstreams update {upstream} --base-url URL`.",
    AccountFault.CREDENTIAL: "Make a new key at the provider and put it in the place of the old one; the next call "
    "uses it.",
    AccountFault.ACCOUNT: "Ask the provider why, and move its models meanwhile: "
    "`keydesk models update MODEL --upstream NAME`.",
    AccountFault.CREDIT: "Add credit, or raise the limit, in the provider's console.",
    AccountFault.REGION: "Call the provider from a region that it serves, or move its models: "
    "`keydesk models update MODEL --upstream NAME`.",
    AccountFault.PROJECT: "See in the provider's console that the key's organisation and project may use the service.",
    AccountFault.MODEL: "See in the provider's console which models the account has, and mend the name: "
    "`keydesk models update MODEL --upstream-model NAME`.",
    AccountFault.PERMISSION: "See in the provider's console what the key is allowed.",
}
"""What to do, with the command."""
