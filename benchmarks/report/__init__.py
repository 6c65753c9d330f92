"""The benchmark report: one page from the stored results, as HTML, Markdown and CSV. It trains nothing."""
