"""What the other packages speak of: money, prices, usage, secrets, policies, periods, settings, errors. Pure.

Begin with `errors` (what a refusal is), `money`, `pricing` (what a call costs) and `policy` (what a key may do).

May import nothing of Keydesk, and reaches no driver, clock, environment or file, not even through another module.
"""
