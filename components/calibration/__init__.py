"""The operating point, from normal images alone."""
