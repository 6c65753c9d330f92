"""Every published number and the command that makes it: ``loupe bench NAME``; it needs a checkout of the project."""
