"""Checks: findings on keys, operators, prices and records; reconciliation; limits that were broken or should change.

Begin with `findings` (all audits in one go) and `reconcile` (does the money add up?). The audits (`keys`, `operators`,
`prices`, `records`, `charges`) judge a `snapshot` by `thresholds`, and are pure. `proposed_limit` says what limit a key
should have, `limit_backtest` what it would have refused, `limits_history` what was let beyond the limits of the time.

May import everything but the front ends: `cli`, `dashboard` and `demo`.
"""
