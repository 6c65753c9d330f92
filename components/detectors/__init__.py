"""The detectors: the contract, the catalogue, one file per method, and the parts that they share."""
