"""Where values lie inside a Parquet file, and the pages that are laid by hand."""
