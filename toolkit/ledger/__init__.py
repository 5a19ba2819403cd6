"""The usage ledger: every row of the request log, in immutable Parquet segments that DuckDB reads.

Begin with `ledger`: drain, compact, verify, query. `duckdb_views` says what a query sees, and of whom;
`segments` are the files, `storage` and `s3` where they are; `exports` and `focus` write them for other tools.

May import `store`, `dialects`, `environment` and `core`. The gateway never imports it.
"""
