"""Synthetic anomalies: seeded, one file per published strategy, pasted on good images."""
