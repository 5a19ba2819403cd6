"""Month close and its statements, corrections of charges, and providers' invoices beside our own log.

Begin with `month_close`. `figures` is what a statement says, built by `figures_builder`; `sequence` says whose
turn it is, `render` has its forms. `invoice_comparison` sets a provider's invoice (`invoice_columns`, `invoice_lines`)
against our calls (`invoice_calls`) and says what they differ by (`invoice_gaps`).

May import `reports`, `workspace` and what is below.
"""
