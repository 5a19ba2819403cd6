"""Step 102: what is known of an upstream beside its address, and which tier and region served a call.

Upstreams that are there get what new ones at their address have by default: at OpenAI's and Anthropic's own hosts the
tier is pinned, and at Anthropic's a refusal before any output is free.
"""

SQL = """
ALTER TABLE upstream ADD COLUMN on_leave TEXT NOT NULL DEFAULT 'cancel';
ALTER TABLE upstream ADD COLUMN refusal_free BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE upstream ADD COLUMN pin_tier BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE upstream ADD COLUMN reckon_rate BIGINT NOT NULL DEFAULT 200;
UPDATE upstream SET pin_tier = TRUE WHERE dialect = 'openai' AND (
    LOWER(base_url) = 'https://api.openai.com' OR LOWER(base_url) LIKE 'https://api.openai.com/%'
    OR LOWER(base_url) LIKE 'https://__.api.openai.com/%'
);
UPDATE upstream SET pin_tier = TRUE, refusal_free = TRUE WHERE dialect = 'anthropic' AND (
    LOWER(base_url) = 'https://api.anthropic.com' OR LOWER(base_url) LIKE 'https://api.anthropic.com/%'
);
ALTER TABLE outbox ADD COLUMN service_tier TEXT;
ALTER TABLE outbox ADD COLUMN inference_geo TEXT;
"""
