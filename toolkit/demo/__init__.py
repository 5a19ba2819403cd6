"""A provider and 90 days of data to try Keydesk with: no account is needed, and nothing costs anything.

Begin with `upstream`, which answers like the three providers (`openai`, `responses`, `anthropic`, `gemini`), and
`data`, which writes calls of the past by the same services and rules as real ones. `scenario` says whose calls they
are.

May import everything but `cli` and `dashboard`. Only `cli` imports it.
"""
