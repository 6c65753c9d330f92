"""What pip is to install of a pyproject.toml: `python wanted.py pyproject.toml EXTRA...`, one requirement a line.

The layer of an image that holds the packages is made from this list before the code is copied, so that a change of
the code does not install everything anew.
"""

import sys
import tomllib
from pathlib import Path


def wanted(project: Path, extras: list[str]) -> list[str]:
    """The dependencies of *project* and those of its *extras*. Raises KeyError for an extra that it does not have."""
    known = tomllib.loads(project.read_text())["project"]
    return known["dependencies"] + [need for extra in extras for need in known["optional-dependencies"][extra]]


if __name__ == "__main__":
    sys.stdout.write("\n".join(wanted(Path(sys.argv[1]), sys.argv[2:])) + "\n")
