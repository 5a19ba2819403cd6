"""The usage ledger: every row of the request log, in immutable Parquet segments that DuckDB reads.

Begin with `ledger`: query, drain, compact, verify. A query asks `duckdb_views`, made of a `snapshot`, under
`row_security` and `sql_guard`; `drain` and `compaction` write `segments`, which `segment_list` names and `storage` or
`s3` keeps; `exports` and `focus` write them for other tools.

May import `store`, `dialects`, `environment` and `core`. The gateway never imports it.
"""
