"""The key store: organisations, keys, wallets, prices, holds and the audit log, in SQLite or PostgreSQL.

Begin with `tables` (what is kept), `database` (the store and its transactions) and `locks`.

May import `core`, `dialects` and `environment`.
"""
