"""``python -m components.decision BUNDLE IMAGE... --out FILE``: ``loupe score`` where typer is not installed."""

import argparse
from pathlib import Path
from typing import get_args

from components.core.boundary import boundary
from components.core.progress import show_logs
from components.core.runtime import Provider
from components.core.system import in_utf8
from components.decision.batch import score


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m components.decision", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--overlays", type=Path)
    parser.add_argument("--group")
    parser.add_argument("--provider", choices=get_args(Provider))
    parser.add_argument("--cascade", action="store_true")
    asked = parser.parse_args()
    show_logs()
    with boundary():
        score(
            asked.bundle,
            asked.images,
            asked.out,
            asked.maps,
            asked.group,
            asked.cascade,
            asked.overlays,
            asked.provider,
        )


if __name__ == "__main__":
    in_utf8("components.decision")
    main()
