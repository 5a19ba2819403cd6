"""The dashboard: the gate before it, the page frame, and one file a page."""
