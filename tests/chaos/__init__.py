"""Chaos: many callers, several gateways, verbs and kills at random moments, and what must be true all the same."""
