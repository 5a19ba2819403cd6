"""Reports: who spent what, why it changed, and what it would have cost; tables and charts of the ledger.

Begin with `spend`: each function is one question to a `Ledger`; so are `refusals`, `requests` and `hold_accuracy`, all
by the `dimensions`. `attribution`, `whatif` and `balances` ask more of it, `charts` and `tables` show the answers.

May import `ledger`, `admin`, `billing` and what is below.
"""
