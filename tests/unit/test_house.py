"""The floor plan of docs/architecture.md: how many rooms, floors and arrows, and that the page shows each room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
HOUSES = ("components", "flows", "benchmarks", "infra")
# Modules with functions that no test imports, and what stands for it.
UNNAMED = {
    "components.cli.guard": "commands, which tests give to components.cli.app",
    "components.cli.line": "commands, which tests give to components.cli.app",
    "components.cli.machine": "commands, which tests give to components.cli.app",
    "components.cli.package.loupe.__init__": "imported as loupe, as everybody does; test_face.py",
    "components.cli.workshop": "commands, which tests give to components.cli.app",
    "components.datasets.validation.suite": "called by validate alone; test_validation.py reads what it records",
    "components.decision.__main__": "run by benchmarks/production/torchless.sh, and that by test_torchless.py",
    "components.service.review": "routes, asked over HTTP in tests/service/test_review_page.py",
    "components.service.server": "`loupe serve`, a process of its own in tests/service",
    "components.storage.base": "a protocol; its promises are those that test_storage.py holds both stores to",
}
ALIAS = "components.scoring"  # old names of a command and of three files; it imports none by an import of its own


def modules() -> Iterator[tuple[str, Path]]:
    for house in HOUSES:
        for path in sorted((PROJECT / house).rglob("*.py")):
            yield ".".join(path.relative_to(PROJECT).with_suffix("").parts), path


def room(module: str) -> str | None:
    """components.decision.batch -> decision; the faces of the packages themselves are no room."""
    if module.startswith(ALIAS):
        return None
    first, *rest = module.removesuffix(".__init__").split(".")
    if first != "components":
        return first
    return rest[0] if rest else None


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.fixture(scope="module")
def plan() -> dict[str, set[str]]:
    """For each room those that it imports."""
    found: dict[str, set[str]] = {}
    for module, path in modules():
        if own := room(module):
            others = {room(name) for name in imported(path) if name.split(".")[0] in HOUSES}
            found.setdefault(own, set()).update(others - {own, None})
    return found


def floors(plan: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest that it imports. Fails on a circle."""
    known: dict[str, int] = {}
    while len(known) < len(plan):
        free = [r for r in plan if r not in known and plan[r] <= known.keys()]
        assert free, f"a circle among {sorted(plan.keys() - known.keys())}"
        known |= {r: 1 + max((known[other] for other in plan[r]), default=0) for r in free}
    return known


def test_the_house_stays_small(plan):
    assert len(plan) <= 23, sorted(plan)
    assert max(floors(plan).values()) <= 11
    assert sum(map(len, plan.values())) <= 122


def test_the_page_shows_every_room(plan):
    page = (PROJECT / "docs" / "architecture.md").read_text()
    assert [r for r in plan if f"{r}/" not in page and f"{r}.py" not in page] == []
    for module, path in modules():
        if module.startswith("components.") and path.name not in ("__init__.py", "__main__.py"):
            assert path.stem in page or "methods" in module or "synthesis" in module, f"{module} is not on the page"


def test_no_two_test_files_have_one_name():
    """pytest knows a file by its name alone, and leaves out the second one with an error that is easily missed."""
    names = [path.name for path in (PROJECT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_a_room_keeps_its_knobs_in_one_file():
    """Settings of params.yaml are in settings.py; those of a method in its own file."""
    elsewhere = []
    for module, path in modules():
        classes = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
        own = path.name == "settings.py" or "methods" in module or not module.startswith("components.")
        if not own and any(name.endswith("Settings") for name in classes):
            elsewhere.append(module)
    assert elsewhere == []


def test_every_module_with_a_function_is_imported_by_a_test():
    """Methods are asked for by name: that each has a test file of its own stands in test_detectors.py."""
    names = {name for path in (PROJECT / "tests").rglob("*.py") for name in imported(path)}
    named = names | {name.rpartition(".")[0] for name in names}
    unnamed = set()
    for module, path in modules():
        functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
        ours = module.startswith(("components.", "flows.")) and ".methods." not in module
        if ours and functions and not {module, module.removesuffix(".__init__")} & named:
            unnamed.add(module)
    assert sorted(unnamed - UNNAMED.keys()) == [], "test what they do, or say in UNNAMED what stands for it"
    assert sorted(UNNAMED.keys() - unnamed) == [], "they are imported; leave them out of UNNAMED"
