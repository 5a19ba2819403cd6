"""Providers by name: where each is, how it is asked, and what it reports and bills, as its documentation says.

Begin with `preset`, what a row says, and `presets`, the table. `keydesk upstreams add NAME --preset P` makes an
upstream of a row; `usual` says what holds of one that is made without.

May import `core` and `dialects`. Pure: no I/O and no clock, not even through another module.
"""
