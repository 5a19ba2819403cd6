"""The key store: organisations, keys, wallets, prices, holds and the audit log, in SQLite or PostgreSQL.

Begin with `tables` (what is kept) and `database` (transactions and locks, and the actor and clock that go with them).

May import `core`, `dialects` and `environment`.
"""
