"""How good detectors and the data they learn from are."""
