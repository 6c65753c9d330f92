"""``python -m components.cli``: the program loupe where it is not installed."""

from components.cli import main

if __name__ == "__main__":
    main()
