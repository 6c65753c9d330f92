"""Frozen feature extractors, their weights with licence and hash, and the store of features computed once."""
