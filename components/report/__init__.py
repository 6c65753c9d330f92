"""Reports: pages that people read, made of files, for a run and for the benchmark. A page never asks the network."""
