"""Alerts: destinations, what has fired, what waits to be sent; from which balance on a wallet is low."""

SQL = """
ALTER TABLE organisation ADD COLUMN low_balance BIGINT;
CREATE TABLE alert_destination (
    id TEXT NOT NULL,
    org_id TEXT,
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    any_address BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    CONSTRAINT alert_destination_pkey PRIMARY KEY (id),
    CONSTRAINT alert_destination_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE TABLE alert (
    id TEXT NOT NULL,
    org_id TEXT,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    fired_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    CONSTRAINT alert_pkey PRIMARY KEY (id),
    CONSTRAINT alert_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE INDEX alert_fired ON alert (fired_at);
CREATE TABLE alert_delivery (
    alert_id TEXT NOT NULL,
    destination_id TEXT NOT NULL,
    queued_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    ended_at BIGINT,
    failure TEXT,
    CONSTRAINT alert_delivery_pkey PRIMARY KEY (alert_id, destination_id),
    CONSTRAINT alert_delivery_alert_id_fkey FOREIGN KEY(alert_id) REFERENCES alert (id),
    CONSTRAINT alert_delivery_destination_id_fkey FOREIGN KEY(destination_id) REFERENCES alert_destination (id)
);
CREATE INDEX alert_delivery_open ON alert_delivery (destination_id, due_at) WHERE ended_at IS NULL;
CREATE TABLE alert_state (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    period TEXT NOT NULL,
    basis BIGINT NOT NULL,
    reached BIGINT NOT NULL,
    CONSTRAINT alert_state_pkey PRIMARY KEY (kind, subject)
);
CREATE TABLE alert_runner (
    id BIGINT NOT NULL,
    holder TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    CONSTRAINT alert_runner_pkey PRIMARY KEY (id)
)
"""

MAIL_SQL = """
CREATE TABLE alert_mailbox (
    destination_id TEXT NOT NULL,
    host TEXT NOT NULL,
    port BIGINT NOT NULL,
    security TEXT NOT NULL,
    login TEXT,
    password_name TEXT,
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    CONSTRAINT alert_mailbox_pkey PRIMARY KEY (destination_id),
    CONSTRAINT alert_mailbox_destination_id_fkey FOREIGN KEY(destination_id) REFERENCES alert_destination (id)
)
"""
