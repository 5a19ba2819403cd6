"""The dashboard: a gate that knows who is signed in, the frame of every page, and one file a page.

Begin with `pages` (one row for each), `router` (the frame around them) and `gate` (what is served without a session). A
page asks services and reports, with the rights of whoever looks at it; `shared` is what the pages have in common.

May import everything but `cli` and `demo`. Streamlit is imported nowhere else.
"""
