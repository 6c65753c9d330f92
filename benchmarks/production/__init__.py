"""What happens on a line: load, drift, retraining, power cuts, machines."""
