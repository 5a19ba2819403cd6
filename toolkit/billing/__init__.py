"""Billing: admits calls by holding money, settles what they cost, and writes off the holds of gateways that died.

Begin with `rules`: the verdicts on admitting, settling and refusing a `call`, pure, judged on a `state`; each ends in a
`log_row`. `batcher` runs many of them in one transaction of a billing store (`stores`: one file for SQLite, one for
PostgreSQL). `hold_estimate` says how much a call can cost, `metering` what it did cost, `refusal_messages` what a
caller without money is told.

May import `store`, `dialects`, `environment` and `core`. The rules reach no driver.
"""
