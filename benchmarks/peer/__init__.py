"""The peer, anomalib, in an environment of its own."""
