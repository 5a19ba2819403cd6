"""Step 100, the first schema that was released."""

SQL = """
CREATE TABLE organisation (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    suspended BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    credited BIGINT NOT NULL,
    settled BIGINT NOT NULL,
    held BIGINT NOT NULL,
    CONSTRAINT organisation_pkey PRIMARY KEY (id),
    CONSTRAINT organisation_name_unique UNIQUE (name)
);
CREATE TABLE org_person (
    org_id TEXT NOT NULL,
    name TEXT NOT NULL,
    CONSTRAINT org_person_pkey PRIMARY KEY (org_id, name),
    CONSTRAINT org_person_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
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
    disabled_at BIGINT,
    CONSTRAINT operator_pkey PRIMARY KEY (id),
    CONSTRAINT operator_email_unique UNIQUE (email),
    CONSTRAINT operator_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE TABLE sign_in_session (
    digest TEXT NOT NULL,
    operator_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    address TEXT,
    CONSTRAINT sign_in_session_pkey PRIMARY KEY (digest),
    CONSTRAINT sign_in_session_operator_id_fkey FOREIGN KEY(operator_id) REFERENCES operator (id)
);
CREATE TABLE sign_in_failure (
    id TEXT NOT NULL,
    subject TEXT NOT NULL,
    failed_at BIGINT NOT NULL,
    CONSTRAINT sign_in_failure_pkey PRIMARY KEY (id)
);
CREATE INDEX sign_in_failure_subject ON sign_in_failure (subject, failed_at);
CREATE TABLE upstream (
    name TEXT NOT NULL,
    dialect TEXT NOT NULL,
    base_url TEXT NOT NULL,
    credential_env TEXT NOT NULL,
    unknown_fields TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    CONSTRAINT upstream_pkey PRIMARY KEY (name)
);
CREATE TABLE model (
    id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    upstream_model TEXT NOT NULL,
    context_window BIGINT NOT NULL,
    default_output BIGINT NOT NULL,
    max_output BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    CONSTRAINT model_pkey PRIMARY KEY (id),
    CONSTRAINT model_upstream_fkey FOREIGN KEY(upstream) REFERENCES upstream (name)
);
CREATE TABLE price (
    id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    valid_from BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    recorded_by TEXT NOT NULL,
    source TEXT NOT NULL,
    sheet TEXT NOT NULL,
    CONSTRAINT price_pkey PRIMARY KEY (id),
    CONSTRAINT price_model_id_fkey FOREIGN KEY(model_id) REFERENCES model (id)
);
CREATE INDEX price_model_valid_from ON price (model_id, valid_from, recorded_at);
CREATE TABLE "plan" (
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    multiplier BIGINT NOT NULL,
    unknown_fields TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    CONSTRAINT plan_pkey PRIMARY KEY (id),
    CONSTRAINT plan_name_unique UNIQUE (name)
);
CREATE TABLE plan_model (
    plan_id TEXT NOT NULL,
    model_id TEXT NOT NULL,
    CONSTRAINT plan_model_pkey PRIMARY KEY (plan_id, model_id),
    CONSTRAINT plan_model_plan_id_fkey FOREIGN KEY(plan_id) REFERENCES "plan" (id),
    CONSTRAINT plan_model_model_id_fkey FOREIGN KEY(model_id) REFERENCES model (id)
);
CREATE TABLE catalog_version (
    id BIGINT NOT NULL,
    version BIGINT NOT NULL,
    CONSTRAINT catalog_version_pkey PRIMARY KEY (id)
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
    CONSTRAINT api_key_pkey PRIMARY KEY (id),
    CONSTRAINT api_key_monthly_limit CHECK (monthly_limit >= 0),
    CONSTRAINT api_key_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id),
    CONSTRAINT api_key_plan_id_fkey FOREIGN KEY(plan_id) REFERENCES "plan" (id)
);
CREATE UNIQUE INDEX api_key_live_name_unique ON api_key (org_id, name) WHERE status <> 'deleted';
CREATE TABLE live_secret (
    digest TEXT NOT NULL,
    key_id TEXT NOT NULL,
    pepper_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    first_in_url_at BIGINT,
    last_in_url_at BIGINT,
    CONSTRAINT live_secret_pkey PRIMARY KEY (digest),
    CONSTRAINT live_secret_key_unique UNIQUE (key_id),
    CONSTRAINT live_secret_key_id_fkey FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE TABLE retired_secret (
    digest TEXT NOT NULL,
    key_id TEXT NOT NULL,
    display TEXT NOT NULL,
    retired_at BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    last_used_at BIGINT,
    CONSTRAINT retired_secret_pkey PRIMARY KEY (digest),
    CONSTRAINT retired_secret_key_id_fkey FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE INDEX retired_secret_key ON retired_secret (key_id);
CREATE TABLE key_month (
    key_id TEXT NOT NULL,
    month TEXT NOT NULL,
    calls BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    held BIGINT NOT NULL,
    last_call_at BIGINT NOT NULL,
    corrected BIGINT NOT NULL,
    CONSTRAINT key_month_pkey PRIMARY KEY (key_id, month),
    CONSTRAINT key_month_key_id_fkey FOREIGN KEY(key_id) REFERENCES api_key (id)
);
CREATE TABLE recent_cost (
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    cost BIGINT NOT NULL,
    CONSTRAINT recent_cost_pkey PRIMARY KEY (key_id, model),
    CONSTRAINT recent_cost_key_id_fkey FOREIGN KEY(key_id) REFERENCES api_key (id)
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
    request_id TEXT,
    key_id TEXT,
    call_month TEXT,
    month TEXT,
    reference_key TEXT,
    same_reference BOOLEAN NOT NULL,
    CONSTRAINT wallet_entry_pkey PRIMARY KEY (id),
    CONSTRAINT wallet_entry_reference_unique UNIQUE (org_id, kind, reference),
    CONSTRAINT wallet_entry_kind CHECK (kind IN ('credit', 'adjustment')),
    CONSTRAINT wallet_entry_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE UNIQUE INDEX wallet_entry_credited_once ON wallet_entry (reference_key);
CREATE INDEX wallet_entry_request ON wallet_entry (request_id);
CREATE TABLE statement (
    id TEXT NOT NULL,
    org_id TEXT NOT NULL,
    month TEXT NOT NULL,
    figures TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    audit_seq BIGINT NOT NULL,
    closed_at BIGINT NOT NULL,
    closed_by TEXT NOT NULL,
    CONSTRAINT statement_pkey PRIMARY KEY (id),
    CONSTRAINT statement_month_unique UNIQUE (org_id, month),
    CONSTRAINT statement_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE TABLE gateway_instance (
    id TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    CONSTRAINT gateway_instance_pkey PRIMARY KEY (id)
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
    response_id TEXT,
    seen_bytes BIGINT,
    CONSTRAINT hold_pkey PRIMARY KEY (request_id),
    CONSTRAINT hold_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id),
    CONSTRAINT hold_key_id_fkey FOREIGN KEY(key_id) REFERENCES api_key (id)
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
    tags TEXT,
    usage_doubt TEXT,
    overrun_reason TEXT,
    provider_usage TEXT,
    seen_bytes BIGINT,
    resent BOOLEAN,
    CONSTRAINT outbox_pkey PRIMARY KEY (request_id)
);
CREATE TABLE refusal_count (
    key_id TEXT NOT NULL,
    refusal TEXT NOT NULL,
    minute BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    CONSTRAINT refusal_count_pkey PRIMARY KEY (key_id, refusal, minute)
);
CREATE TABLE refusal_day (
    key_id TEXT NOT NULL,
    refusal TEXT NOT NULL,
    day BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    last_minute BIGINT NOT NULL,
    CONSTRAINT refusal_day_pkey PRIMARY KEY (key_id, refusal, day)
);
CREATE TABLE unknown_field (
    upstream TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    name TEXT NOT NULL,
    seen BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    CONSTRAINT unknown_field_pkey PRIMARY KEY (upstream, plan_id, name)
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
    CONSTRAINT segment_pkey PRIMARY KEY (path)
);
CREATE INDEX segment_day ON segment (day);
CREATE TABLE superseded_segment (
    path TEXT NOT NULL,
    superseded_at BIGINT NOT NULL,
    CONSTRAINT superseded_segment_pkey PRIMARY KEY (path)
);
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
    CONSTRAINT audit_pkey PRIMARY KEY (chain, seq)
);
CREATE INDEX audit_subject ON audit (subject);
CREATE TABLE audit_head (
    chain TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    CONSTRAINT audit_head_pkey PRIMARY KEY (chain)
);
CREATE TABLE reconciliation (
    id TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    duration_ms BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    clean BOOLEAN NOT NULL,
    findings TEXT NOT NULL,
    CONSTRAINT reconciliation_pkey PRIMARY KEY (id)
);
INSERT INTO catalog_version (id, version) VALUES (1, 1);
"""
