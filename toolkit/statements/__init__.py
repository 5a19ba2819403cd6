"""Month close and its statements, corrections of charges, and providers' invoices beside our own log.

Begin with `month_close`. `figures` is what a statement says, `sequence` whose turn it is, `render` its forms;
`invoice_comparison` sets a provider's invoice against our calls.

May import `reports`, `workspace` and what is below.
"""
