"""The report of a run: one HTML file that works offline, made from `result.json` and `items.parquet` alone."""
