"""Data validation: the contract per file, the Great Expectations suite over the table, quarantine and the report."""
