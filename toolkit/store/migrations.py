"""The key store's schema, as an append-only list of steps. A step that has shipped is never edited.

Each step spells its tables out, so that it means the same for ever; `tables` says what they are today, and a
test compares the two. The SQL is the part that SQLite and PostgreSQL share.
"""

from collections.abc import Callable

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from toolkit.core.errors import Unavailable
from toolkit.core.payment_reference import reference_key

M001_FIRST_SCHEMA = """
CREATE TABLE audit (
    chain TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    "before" TEXT,
    "after" TEXT,
    reason TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain, seq)
);
CREATE INDEX audit_subject ON audit (subject);
CREATE TABLE audit_head (
    chain TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (chain)
);
CREATE TABLE catalog_version (
    id BIGINT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE gateway_instance (
    id TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE organisation (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    suspended BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    credited BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    held BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT organisation_name_unique UNIQUE (name)
);
CREATE TABLE outbox (
    request_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    admitted_at BIGINT NOT NULL,
    settled_at BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    refusal TEXT,
    status BIGINT NOT NULL,
    dialect TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    stream BOOLEAN NOT NULL,
    model TEXT,
    upstream TEXT,
    response_id TEXT,
    usage_source TEXT,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cache_write_5m_tokens BIGINT NOT NULL,
    cache_write_1h_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    price_id TEXT,
    multiplier BIGINT NOT NULL,
    input_price BIGINT NOT NULL,
    cached_input_price BIGINT NOT NULL,
    cache_write_5m_price BIGINT NOT NULL,
    cache_write_1h_price BIGINT NOT NULL,
    output_price BIGINT NOT NULL,
    request_price BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    held BIGINT NOT NULL,
    overrun BIGINT NOT NULL,
    first_byte_ms BIGINT,
    duration_ms BIGINT,
    error TEXT,
    PRIMARY KEY (request_id)
);
CREATE TABLE "plan" (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    multiplier BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT plan_name_unique UNIQUE (name)
);
CREATE TABLE refusal_count (
    key_id TEXT NOT NULL,
    refusal TEXT NOT NULL,
    minute BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    PRIMARY KEY (key_id, refusal, minute)
);
CREATE TABLE segment (
    path TEXT NOT NULL,
    day TEXT NOT NULL,
    rows BIGINT NOT NULL,
    size BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    schema_version BIGINT NOT NULL,
    first_admitted_at BIGINT NOT NULL,
    last_admitted_at BIGINT NOT NULL,
    first_request_id TEXT NOT NULL,
    last_request_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (path)
);
CREATE INDEX segment_day ON segment (day);
CREATE TABLE sign_in_failure (
    id TEXT NOT NULL,
    subject TEXT NOT NULL,
    failed_at BIGINT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX sign_in_failure_subject ON sign_in_failure (subject, failed_at);
CREATE TABLE superseded_segment (
    path TEXT NOT NULL,
    superseded_at BIGINT NOT NULL,
    PRIMARY KEY (path)
);
CREATE TABLE upstream (
    name TEXT NOT NULL,
    dialect TEXT NOT NULL,
    base_url TEXT NOT NULL,
    credential_env TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE api_key (
    id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    monthly_limit BIGINT,
    hold_policy TEXT NOT NULL,
    expires_at BIGINT,
    display TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    rotated_at BIGINT,
    deleted_at BIGINT,
    version BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT api_key_monthly_limit CHECK (monthly_limit >= 0),
    FOREIGN KEY(org_id) REFERENCES organisation (id),
    FOREIGN KEY(plan_id) REFERENCES "plan" (id)
);
CREATE UNIQUE INDEX api_key_live_name_unique ON api_key (org_id, name) WHERE status <> 'deleted';
CREATE TABLE model (
    id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    upstream_model TEXT NOT NULL,
    context_window BIGINT NOT NULL,
    default_output BIGINT NOT NULL,
    max_output BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(upstream) REFERENCES upstream (name)
);
CREATE TABLE operator (
    id TEXT NOT NULL,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    org_id TEXT,
    password_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    last_sign_in_at BIGINT,
    PRIMARY KEY (id),
    CONSTRAINT operator_email_unique UNIQUE (email),
    FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE TABLE wallet_entry (
    id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    amount BIGINT NOT NULL,
    reference TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT wallet_entry_reference_unique UNIQUE (org_id, kind, reference),
    CONSTRAINT wallet_entry_kind CHECK (kind IN ('credit', 'adjustment')),
    FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE TABLE hold (
    request_id TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    month TEXT NOT NULL,
    admitted_at BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    limit_amount BIGINT NOT NULL,
    dialect TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    stream BOOLEAN NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    price_id TEXT NOT NULL,
    multiplier BIGINT NOT NULL,
    PRIMARY KEY (request_id),
    FOREIGN KEY(org_id) REFERENCES organisation (id),
    FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE TABLE key_month (
    key_id TEXT NOT NULL,
    month TEXT NOT NULL,
    calls BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    held BIGINT NOT NULL,
    last_call_at BIGINT NOT NULL,
    PRIMARY KEY (key_id, month),
    FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE TABLE live_secret (
    digest TEXT NOT NULL,
    key_id TEXT NOT NULL,
    pepper_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (digest),
    CONSTRAINT live_secret_key_unique UNIQUE (key_id),
    FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE TABLE plan_model (
    plan_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    PRIMARY KEY (plan_id, model_id),
    FOREIGN KEY(plan_id) REFERENCES "plan" (id),
    FOREIGN KEY(model_id) REFERENCES model (id)
);
CREATE TABLE price (
    id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    valid_from BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    recorded_by TEXT NOT NULL,
    source TEXT NOT NULL,
    sheet TEXT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(model_id) REFERENCES model (id)
);
CREATE INDEX price_model_valid_from ON price (model_id, valid_from, recorded_at);
CREATE TABLE recent_cost (
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    cost BIGINT NOT NULL,
    PRIMARY KEY (key_id, model),
    FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE TABLE retired_secret (
    digest TEXT NOT NULL,
    key_id TEXT NOT NULL,
    display TEXT NOT NULL,
    retired_at BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    last_used_at BIGINT,
    PRIMARY KEY (digest),
    FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE INDEX retired_secret_key ON retired_secret (key_id);
CREATE TABLE sign_in_session (
    digest TEXT NOT NULL,
    operator_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (digest),
    FOREIGN KEY(operator_id) REFERENCES operator (id)
);
INSERT INTO catalog_version (id, version) VALUES (1, 1);
"""

M002_RECONCILIATION = """
CREATE TABLE reconciliation (
    id TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    duration_ms BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    clean BOOLEAN NOT NULL,
    findings TEXT NOT NULL,
    PRIMARY KEY (id)
);
"""

M003_STATEMENTS = """
CREATE TABLE statement (
    id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    month TEXT NOT NULL,
    figures TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    audit_seq BIGINT NOT NULL,
    closed_at BIGINT NOT NULL,
    closed_by TEXT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT statement_month_unique UNIQUE (org_id, month),
    FOREIGN KEY(org_id) REFERENCES organisation (id)
);
"""

M004_SECRETS_IN_URLS = """
ALTER TABLE live_secret ADD COLUMN first_in_url_at BIGINT;
ALTER TABLE live_secret ADD COLUMN last_in_url_at BIGINT;
"""

M005_TAGS = """
ALTER TABLE outbox ADD COLUMN tags TEXT;
"""

M006_DOUBTFUL_USAGE = """
ALTER TABLE outbox ADD COLUMN usage_doubt TEXT;
ALTER TABLE outbox ADD COLUMN overrun_reason TEXT;
ALTER TABLE outbox ADD COLUMN provider_usage TEXT;
"""

M007_ADDRESS_OF_SESSIONS = """
ALTER TABLE sign_in_session ADD COLUMN address TEXT;
"""

M008_DISABLED_OPERATORS = """
ALTER TABLE operator ADD COLUMN disabled_at BIGINT;
"""

M009_CORRECTIONS = """
ALTER TABLE wallet_entry ADD COLUMN request_id TEXT;
ALTER TABLE wallet_entry ADD COLUMN key_id TEXT;
ALTER TABLE wallet_entry ADD COLUMN call_month TEXT;
ALTER TABLE wallet_entry ADD COLUMN month TEXT;
CREATE INDEX wallet_entry_request ON wallet_entry (request_id);
ALTER TABLE key_month ADD COLUMN corrected BIGINT NOT NULL DEFAULT 0;
"""

M010_PAYMENTS_CREDITED_ONCE = """
ALTER TABLE wallet_entry ADD COLUMN reference_key TEXT;
ALTER TABLE wallet_entry ADD COLUMN same_reference BOOLEAN NOT NULL DEFAULT FALSE;
CREATE UNIQUE INDEX wallet_entry_credited_once ON wallet_entry (reference_key);
"""

M011_UNKNOWN_FIELDS = """
ALTER TABLE upstream ADD COLUMN unknown_fields TEXT NOT NULL DEFAULT 'pass';
ALTER TABLE "plan" ADD COLUMN unknown_fields TEXT NOT NULL DEFAULT 'pass';
CREATE TABLE unknown_field (
    upstream TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    name TEXT NOT NULL,
    seen BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (upstream, plan_id, name)
);
"""

M012_REFUSALS_BY_DAY = """
CREATE TABLE refusal_day (
    key_id TEXT NOT NULL,
    refusal TEXT NOT NULL,
    day BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    last_minute BIGINT NOT NULL,
    PRIMARY KEY (key_id, refusal, day)
)
"""

M013_PROGRESS_OF_CALLS = """
ALTER TABLE hold ADD COLUMN response_id TEXT;
ALTER TABLE hold ADD COLUMN seen_bytes BIGINT;
ALTER TABLE outbox ADD COLUMN seen_bytes BIGINT;
"""

M014_PEOPLE_OF_ORGANISATIONS = """
CREATE TABLE org_person (
    org_id TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (org_id, name),
    FOREIGN KEY(org_id) REFERENCES organisation (id)
);
INSERT INTO org_person (org_id, name) SELECT org_id, email FROM operator WHERE org_id IS NOT NULL;
"""

_SCHEMA_STEP = """
CREATE TABLE schema_step (
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    applied_at BIGINT NOT NULL,
    PRIMARY KEY (version)
);
"""
"""Which steps have run; made before the first of them."""

M015_CALLS_SENT_TWICE = """
ALTER TABLE outbox ADD COLUMN resent BOOLEAN;
"""

STEPS: tuple[tuple[str, str], ...] = (
    ("first schema", M001_FIRST_SCHEMA),
    ("reconciliation", M002_RECONCILIATION),
    ("statements", M003_STATEMENTS),
    ("secrets in URLs", M004_SECRETS_IN_URLS),
    ("tags", M005_TAGS),
    ("doubtful usage", M006_DOUBTFUL_USAGE),
    ("address of sessions", M007_ADDRESS_OF_SESSIONS),
    ("disabled operators", M008_DISABLED_OPERATORS),
    ("corrections", M009_CORRECTIONS),
    ("payments credited once", M010_PAYMENTS_CREDITED_ONCE),
    ("unknown fields", M011_UNKNOWN_FIELDS),
    ("refusals by day", M012_REFUSALS_BY_DAY),
    ("progress of calls", M013_PROGRESS_OF_CALLS),
    ("people of organisations", M014_PEOPLE_OF_ORGANISATIONS),
    ("calls sent twice", M015_CALLS_SENT_TWICE),
)
"""Name and statements of each step; its version is its place in the list, from 1."""


def _fill_reference_keys(connection: Connection) -> None:
    """Give the first credit of each payment its reference's key; later ones stay without, and audits find them."""
    paid = text("SELECT id, reference FROM wallet_entry WHERE kind = 'credit' ORDER BY created_at, id")
    first: dict[str, str] = {}
    for entry_id, reference in connection.execute(paid):
        first.setdefault(reference_key(reference), entry_id)
    if first:
        connection.execute(
            text("UPDATE wallet_entry SET reference_key = :key WHERE id = :id"),
            [{"key": key, "id": entry_id} for key, entry_id in first.items()],
        )


AFTER: dict[str, Callable[[Connection], None]] = {"payments credited once": _fill_reference_keys}
"""What SQL cannot say: done after the statements of the step of that name."""


def schema_version(connection: Connection) -> int:
    """Return the version of the key store's schema; 0 for an empty one."""
    if not inspect(connection).has_table("schema_step"):
        return 0
    return int(connection.execute(text("SELECT coalesce(max(version), 0) FROM schema_step")).scalar_one())


def migrate(connection: Connection, now: int) -> list[str]:
    """Bring the schema up to date inside the caller's transaction; return the names of the steps that ran.

    Args:
        connection: in a transaction that excludes other writers.
        now: microseconds UTC, recorded with each step.

    Raises:
        Unavailable: the store was written by a newer Keydesk, or does not allow a step; nothing was changed.
    """
    version = schema_version(connection)
    if version > len(STEPS):
        raise Unavailable(
            f"The key store has schema version {version}; this Keydesk knows up to {len(STEPS)}. "
            "Run the newer version, or restore the backup made before the upgrade."
        )
    if version == 0:
        _execute(connection, "schema_step", _SCHEMA_STEP)
    for number, (name, statements) in enumerate(STEPS[version:], version + 1):
        _execute(connection, name, statements)
        if name in AFTER:
            AFTER[name](connection)
        connection.execute(
            text("INSERT INTO schema_step (version, name, applied_at) VALUES (:version, :name, :now)"),
            {"version": number, "name": name, "now": now},
        )
    return [name for name, _ in STEPS[version:]]


def _execute(connection: Connection, name: str, statements: str) -> None:
    try:
        for statement in filter(None, map(str.strip, statements.split(";"))):
            connection.execute(text(statement))
    except DBAPIError as error:
        raise Unavailable(f"The step {name!r} of the key store's schema failed: {error.orig}") from error
