"""Forecasts: what this month will cost, when limits and wallets run out, and which days are unlike the past.

Begin with `outlook`. `seasonal` is the model and `runway` what follows from it, both pure; `anomalies` looks back.

May import `reports`, `workspace` and what is below.
"""
