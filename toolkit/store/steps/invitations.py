"""Invitations: one-time links by which people set the password that they sign in with."""

SQL = """
CREATE TABLE invitation (
    id TEXT NOT NULL,
    digest TEXT NOT NULL,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    org_id TEXT,
    operator_id TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    CONSTRAINT invitation_pkey PRIMARY KEY (id),
    CONSTRAINT invitation_digest_unique UNIQUE (digest),
    CONSTRAINT invitation_org_id_fkey FOREIGN KEY(org_id) REFERENCES organisation (id)
);
CREATE INDEX invitation_email ON invitation (email)
"""
