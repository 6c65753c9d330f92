"""``python -m loupe``, and the command ``loupe``."""

from components.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
