"""From a file to pixels: which files are pictures, how they are decoded, what is measured of them, what masks mark."""
