"""Published data sets: what each is, as a table, and one reader for each kind of layout."""
