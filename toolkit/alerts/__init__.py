"""Alerts: what has passed a threshold is told once, by signed webhooks.

Begin with `runner`, the one process of several that looks and sends. `evaluation` says what there is to tell, in the
words of `messages`; `destinations`, who may have it sent where; `queue`, what waits to be sent; `webhook`, how it is.

May import everything but the front ends: `cli`, `dashboard` and `demo`.
"""
