"""Checks: findings on keys, operators, prices and records; reconciliation; limits that were broken or should change.

Begin with `findings` (all audits in one go) and `reconcile` (does the money add up?). The audits judge a `snapshot`.

May import everything but the front ends: `cli`, `dashboard` and `demo`.
"""
