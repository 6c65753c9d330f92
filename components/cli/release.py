"""How a wheel is made of a checkout: `components` and `flows` go below `loupe`, and every import with them.

Nobody's environment gets a top-level `components`. The rule is one: what a checkout calls ``components.x``, a wheel
calls ``loupe.components.x``. pyproject.toml names these classes; an editable install leaves everything where it is
(docs/adr/0045-wheel.md).
"""

import re
import shutil
from pathlib import Path

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT, HOUSES = "loupe", ("components", "flows")
_NAMES = "|".join(HOUSES)
BARE = re.compile(rf"^(\s*import )({_NAMES})(?=\s*(?:#|$))", re.MULTILINE)  # import components
NAMED = re.compile(rf"(?<![\w./])({_NAMES})(?=\.[a-z_{{]|\s+import\b)")  # components.core, also in strings


def rehoused(text: str) -> str:
    """The text of a module with the names of a wheel.

    >>> rehoused("from components.core import errors")
    'from loupe.components.core import errors'
    >>> rehoused("import flows")
    'import loupe.flows as flows'
    >>> rehoused("self.flows.append(Path('components/core'))")
    "self.flows.append(Path('components/core'))"
    """
    return NAMED.sub(rf"{ROOT}.\1", BARE.sub(rf"\1{ROOT}.\2 as \2", text))


class Gathered(build_py):
    """setuptools' step that gathers the modules of a wheel."""

    def run(self) -> None:
        built = Path(self.build_lib)
        if self.editable_mode:
            super().run()
            return
        for name in (ROOT, *HOUSES):  # what an earlier build has left
            shutil.rmtree(built / name, ignore_errors=True)
        super().run()
        for name in HOUSES:
            (built / name).rename(built / ROOT / name)
        shutil.rmtree(built / ROOT / "components/cli/package", ignore_errors=True)  # it is in its place already
        (built / ROOT / "components/cli/release.py").unlink()  # makes wheels of checkouts and source archives
        for path in (built / ROOT).rglob("*.py"):
            path.write_text(rehoused(path.read_text(encoding="utf-8")), encoding="utf-8")


class Wheel(bdist_wheel):
    """setuptools' step that writes the wheel; an editable install asks it for parts, and never runs it."""

    housed = False

    def run(self) -> None:
        self.housed = True
        super().run()

    def egg2dist(self, egginfo_path: str, distinfo_path: str) -> None:
        """The wheel's record of itself, which names what can be imported."""
        super().egg2dist(egginfo_path, distinfo_path)
        if self.housed:
            (Path(distinfo_path) / "top_level.txt").write_text(f"{ROOT}\n", encoding="utf-8")
