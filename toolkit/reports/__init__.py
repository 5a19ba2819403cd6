"""Reports: who spent what, why it changed, and what it would have cost; tables and charts of the ledger.

Begin with `queries`: each function is one question to a `Ledger`. `attribution`, `whatif` and `balances` ask
more of it, `charts` and `tables` show the answers.

May import `ledger`, `admin`, `billing` and what is below.
"""
