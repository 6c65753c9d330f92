"""axe-core for tests of pages: fetched once with npm into a cache, checked against its hash, never part of the tree.

python -m tests.axe    # before the tests, where there is a network; without it tests that need it are skipped
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION, SHA256 = "4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
FOLDER = Path(os.environ.get("LOUPE_TEST_CACHE") or Path.home() / ".cache" / "loupe-tests")
FILE = FOLDER / f"axe-core-{VERSION}.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def source() -> str | None:
    """The script, fetched where it is not there yet; None where npm is missing or reaches no registry."""
    if not FILE.exists() and not _fetched():
        return None
    text = FILE.read_text("utf-8")
    assert hashlib.sha256(text.encode()).hexdigest() == SHA256, f"{FILE}: other bytes than expected; delete it"
    return text


def _fetched() -> bool:
    npm = shutil.which("npm")
    if npm is None:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            npm,
            "pack",
            "--silent",
            "--fetch-retries=0",
            "--fetch-timeout=20000",
            f"axe-core@{VERSION}",
            "--pack-destination",
            scratch,
        ]
        try:
            subprocess.run(command, cwd=scratch, check=True, timeout=60, capture_output=True)
        except (subprocess.SubprocessError, OSError):
            return False
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as packed:
            member = packed.extractfile("package/axe.min.js")
            assert member is not None
            FOLDER.mkdir(parents=True, exist_ok=True)
            new = FILE.with_suffix(f".{os.getpid()}")  # another worker may be writing it, too
            new.write_bytes(member.read())
            new.replace(FILE)
    return True


def violations(page) -> list[str]:  # type: ignore[no-untyped-def]
    """What axe finds on an open page: rule and the elements that break it. Call ``source`` first."""
    page.evaluate(source())
    # Left unfinished are only rules that no program can judge; those with a verdict must hold.
    found = page.evaluate("tags => axe.run(document, {runOnly: tags}).then(r => r.violations)", RULES)
    return [f"{v['id']}: {v['help']}: {[n['target'] for n in v['nodes']][:4]}" for v in found]


if __name__ == "__main__":
    print(f"axe-core in {FILE}" if source() else "axe-core could not be fetched; its tests are skipped")  # noqa: T201
    sys.exit(0)
