"""Taking tweets out: as JSON lines (`lines`), as Parquet (`parquet`), or as CSV, which PostgreSQL writes itself.

All three hold every column of `tweets` as it is stored, so that `import` gives back the same rows.
"""
