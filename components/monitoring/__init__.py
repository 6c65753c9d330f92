"""Drift: windows of the score log against the reference frozen with the champion, and a verdict that is a record."""
