"""The key stores that releases left behind, and what makes those of the next one: see README.md."""
