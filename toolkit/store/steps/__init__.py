"""The steps of the key store's schema. A step that has shipped is never edited.

Each spells its tables out, so that it means the same for ever; `tables` says what they are today, and a test compares
the two. The SQL is the part that SQLite and PostgreSQL share; a semicolon ends a statement, and stands nowhere else.
"""

from typing import NamedTuple

from toolkit.store.steps import alerts, first_schema, invitations, upstream_credentials, upstream_traits


class Step(NamedTuple):
    """One step of the schema.

    Args:
        version: of the schema that it leads to: one more than that of the step before.
        name: for the log, and for whoever looks into the table `schema_step`.
        sql: what it does.
    """

    version: int
    name: str
    sql: str


STEPS: tuple[Step, ...] = (
    Step(100, "first schema", first_schema.SQL),
    Step(
        101,
        "what becomes of hosted tools",
        """
        ALTER TABLE plan ADD COLUMN hosted_tools TEXT NOT NULL DEFAULT 'leave_out';
        ALTER TABLE api_key ADD COLUMN hosted_tools TEXT NOT NULL DEFAULT 'leave_out'
        """,
    ),
    Step(102, "traits of upstreams, and the tier that served", upstream_traits.SQL),
    Step(
        103,
        "incidents of upstreams",
        """
        CREATE TABLE upstream_incident (
            upstream TEXT NOT NULL,
            fault TEXT NOT NULL,
            model TEXT NOT NULL,
            first_at BIGINT NOT NULL,
            last_at BIGINT NOT NULL,
            calls BIGINT NOT NULL,
            words TEXT NOT NULL,
            ended_at BIGINT,
            CONSTRAINT upstream_incident_pkey PRIMARY KEY (upstream, fault, model)
        )
        """,
    ),
    Step(
        104,
        "presets of upstreams, and how they are asked",
        """
        ALTER TABLE upstream ADD COLUMN preset TEXT;
        ALTER TABLE upstream ADD COLUMN credential_header TEXT NOT NULL DEFAULT 'usual';
        ALTER TABLE upstream ADD COLUMN api_version TEXT NOT NULL DEFAULT '';
        ALTER TABLE upstream ADD COLUMN output_bound TEXT NOT NULL DEFAULT 'either';
        ALTER TABLE upstream ADD COLUMN add_stream_options BOOLEAN NOT NULL DEFAULT TRUE;
        ALTER TABLE upstream ADD COLUMN add_store BOOLEAN NOT NULL DEFAULT TRUE;
        ALTER TABLE upstream ADD COLUMN billed_errors TEXT NOT NULL DEFAULT ''
        """,
    ),
    Step(
        105,
        "several ways to serve a model",
        """
        CREATE TABLE model_way (
            model_id TEXT NOT NULL,
            upstream TEXT NOT NULL,
            position BIGINT NOT NULL,
            upstream_model TEXT NOT NULL,
            weight BIGINT NOT NULL,
            price_model TEXT,
            CONSTRAINT model_way_pkey PRIMARY KEY (model_id, upstream),
            CONSTRAINT model_way_model_id_fkey FOREIGN KEY (model_id) REFERENCES model (id),
            CONSTRAINT model_way_upstream_fkey FOREIGN KEY (upstream) REFERENCES upstream (name),
            CONSTRAINT model_way_price_model_fkey FOREIGN KEY (price_model) REFERENCES model (id)
        )
        """,
    ),
    Step(
        106,
        "fields that upstreams refuse",
        """
        ALTER TABLE upstream ADD COLUMN add_include BOOLEAN NOT NULL DEFAULT TRUE;
        CREATE TABLE refused_field (
            upstream TEXT NOT NULL,
            model TEXT NOT NULL,
            name TEXT NOT NULL,
            seen BIGINT NOT NULL,
            first_at BIGINT NOT NULL,
            last_at BIGINT NOT NULL,
            CONSTRAINT refused_field_pkey PRIMARY KEY (upstream, model, name)
        )
        """,
    ),
    Step(
        107,
        "tests of upstreams",
        """
        CREATE TABLE upstream_test (
            id TEXT NOT NULL,
            upstream TEXT NOT NULL,
            model TEXT,
            asked_at BIGINT NOT NULL,
            asked_by TEXT NOT NULL,
            tries BIGINT NOT NULL,
            taken_by TEXT,
            ended_at BIGINT,
            found TEXT,
            failure TEXT,
            CONSTRAINT upstream_test_pkey PRIMARY KEY (id)
        )
        """,
    ),
    Step(108, "several credentials of an upstream", upstream_credentials.SQL),
    Step(
        109,
        "bound of connections to upstreams",
        "ALTER TABLE upstream ADD COLUMN max_connections BIGINT NOT NULL DEFAULT 0",
    ),
    Step(110, "the credential of calls under way", "ALTER TABLE hold ADD COLUMN credential TEXT"),
    Step(
        111,
        "limits of models that upstreams have smaller",
        """
        CREATE TABLE smaller_limit (
            upstream TEXT NOT NULL,
            model TEXT NOT NULL,
            name TEXT NOT NULL,
            most BIGINT NOT NULL,
            seen BIGINT NOT NULL,
            first_at BIGINT NOT NULL,
            last_at BIGINT NOT NULL,
            CONSTRAINT smaller_limit_pkey PRIMARY KEY (upstream, model, name)
        )
        """,
    ),
    Step(112, "alerts", alerts.SQL),
    Step(
        113,
        "provider accounts of organisations",
        "ALTER TABLE upstream ADD COLUMN org_id TEXT CONSTRAINT upstream_org_id_fkey REFERENCES organisation (id)",
    ),
    Step(114, "versions of gateways", "ALTER TABLE gateway_instance ADD COLUMN version TEXT"),
    Step(115, "invitations", invitations.SQL),
    Step(116, "alerts by e-mail", alerts.MAIL_SQL),
    Step(117, "reports of gateways", "ALTER TABLE gateway_instance ADD COLUMN report TEXT"),
    Step(
        118,
        "owners, environments, notes and labels of keys",
        """
        ALTER TABLE api_key ADD COLUMN owner TEXT NOT NULL DEFAULT '';
        ALTER TABLE api_key ADD COLUMN environment TEXT NOT NULL DEFAULT '';
        ALTER TABLE api_key ADD COLUMN note TEXT NOT NULL DEFAULT '';
        ALTER TABLE api_key ADD COLUMN labels TEXT NOT NULL DEFAULT '[]'
        """,
    ),
)
"""In their order. Stores of versions 1 to 15 are from before the first release, and read by nothing."""
