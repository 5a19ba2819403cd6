"""Step 108: several credentials of an upstream, and which of them a call or an incident was with.

What is known of incidents that are there stays: they are of whatever credential there was.
"""

SQL = """
CREATE TABLE upstream_credential (
    upstream TEXT NOT NULL,
    credential_env TEXT NOT NULL,
    position BIGINT NOT NULL,
    CONSTRAINT upstream_credential_pkey PRIMARY KEY (upstream, credential_env),
    CONSTRAINT upstream_credential_upstream_fkey FOREIGN KEY (upstream) REFERENCES upstream (name)
);
ALTER TABLE outbox ADD COLUMN credential TEXT;
CREATE TABLE past_incident AS SELECT * FROM upstream_incident;
DROP TABLE upstream_incident;
CREATE TABLE upstream_incident (
    upstream TEXT NOT NULL,
    fault TEXT NOT NULL,
    model TEXT NOT NULL,
    credential TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    words TEXT NOT NULL,
    ended_at BIGINT,
    CONSTRAINT upstream_incident_pkey PRIMARY KEY (upstream, fault, model, credential)
);
INSERT INTO upstream_incident SELECT upstream, fault, model, '', first_at, last_at, calls, words, ended_at
    FROM past_incident;
DROP TABLE past_incident;
"""
