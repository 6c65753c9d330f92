"""What the line's computer decides by: a bundle opened, conformal p-values, batch scoring. Needs no torch."""
