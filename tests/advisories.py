"""Known weaknesses of the installed packages, by pip-audit: python -m tests.advisories, a part of `make check`.

Without a network, or without pip-audit, one sentence says so and nothing fails. A weakness fails, until the package is
newer or ACCEPTED says why it is none here.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

ACCEPTED: Mapping[str, str] = {}  # advisory: why it does not concern us, and until when
ASKED = "https://pypi.org/pypi/pip/json"  # what pip-audit asks for each package
SECONDS = 600


def reachable(seconds: float = 5.0) -> bool:
    """Whether PyPI answers."""
    try:
        with urllib.request.urlopen(ASKED, timeout=seconds) as answer:
            json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return False
    return True


def audited() -> Any:
    """What pip-audit says of this environment; None where it is not there, or could not ask."""
    options = ["--local", "--skip-editable", "--progress-spinner", "off", "--format", "json", "--timeout", "10"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, timeout=SECONDS
        )
        return json.loads(done.stdout)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return None


def found(answer: Mapping[str, Any]) -> list[str]:
    """One line for each weakness that is not accepted."""
    return [
        f"{one['name']} {one['version']}: {weak['id']}, mended in {', '.join(weak['fix_versions']) or 'no version yet'}"
        for one in answer["dependencies"]
        for weak in one.get("vulns", [])
        if not {weak["id"], *weak.get("aliases", [])} & ACCEPTED.keys()
    ]


def main() -> int:
    """The exit status: 1 where a weakness is known."""
    answer = audited() if reachable() else None
    if answer is None:
        sys.stdout.write("no advisories were read: PyPI does not answer, or pip-audit is not installed\n")
        return 0
    weak = found(answer)
    sys.stdout.write("\n".join([*weak, f"{len(answer['dependencies'])} packages, {len(weak)} known weaknesses\n"]))
    return int(bool(weak))


if __name__ == "__main__":
    sys.exit(main())
