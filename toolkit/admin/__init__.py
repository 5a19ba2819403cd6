"""What operators do: organisations, operators, sign-in, keys, plans, wallets, the catalog; each act in the audit log.

Begin with `keys` (the life of an API key) and `accounts` (who may do what). `lookup` says which key a secret admits.

Services take a `Transaction`, which carries actor and clock. May import `store`, `dialects`, `environment` and `core`.
"""
