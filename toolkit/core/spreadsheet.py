"""The characters by which spreadsheets know a formula, which CSV exports guard against. Pure."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Beginnings of text that spreadsheets take for a formula, full-width ones too, as
<https://owasp.org/www-community/attacks/CSV_Injection> has them."""
