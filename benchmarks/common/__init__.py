"""What the benchmarks share: processes of their own, stored results, tables, views, short trainings."""
