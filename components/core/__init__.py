"""What every room may use: errors, settings, artefacts and places to write them, records, progress."""
