"""From a drift verdict to a challenger: candidate normals, a new data version, and the comparison the gate reads."""
