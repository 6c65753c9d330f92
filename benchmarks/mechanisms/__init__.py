"""What the parts of a method earn: each switched on and off."""
