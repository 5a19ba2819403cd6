"""What operators do: organisations, operators, sign-in, keys, plans, wallets, the catalog; each act in the audit log.

Begin with `keys` (the life of an API key) and `rights` (who may do what). `secret_lookup` finds the key of a secret.

Services take a `Transaction`, which carries actor and clock. May import `store`, `dialects`, `environment` and `core`.
"""
