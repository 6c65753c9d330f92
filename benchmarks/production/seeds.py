"""The matrix of ``loupe bench matrix`` over several seeds: what each cell has for each, in one table.

DVC keeps what every seed gave in its cache of runs, so a seed that was run before comes back without a training. The
seed of params.yaml is run last: that file, dvc.lock and artefacts/ are then of one seed again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.common.tables import markdown, spread
from components.core.artefacts import read_json, write_json
from components.core.checks import check_seed
from components.core.errors import SettingsError

ARTEFACTS = Path("artefacts")
SEED = re.compile(r"(?m)^seed: *\d+")
Found = dict[str, dict[int, float]]  # image AUROC by cell and seed


def seeds_of(text: str) -> list[int]:
    """*text*, such as 0,1,2, as seeds. Raises SettingsError."""
    try:
        seeds = list(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise SettingsError(f"--seeds {text}: is no list of whole numbers; write one such as 0,1,2") from None
    for seed in seeds:
        check_seed(seed)
    return seeds


def over(seeds: Iterable[int], params: Path, run: Callable[[], list[str]]) -> Found:
    """What *run* gives for each seed in *params*; *run* tells the cells that are whole.

    The file is as it was at the end, whatever happens.
    """
    own = int(yaml.safe_load(params.read_text())["seed"])
    found: Found = {}
    for seed in sorted(seeds, key=lambda seed: (seed == own, seed)):
        with seeded(params, seed):
            runs = yaml.safe_load(params.read_text())["benchmark"]["runs"]
            for cell in run():
                found.setdefault(cell, {})[seed] = auroc(runs[cell])
    return found


@contextmanager
def seeded(params: Path, seed: int) -> Iterator[None]:
    """*seed* in the file *params*, and what was there afterwards."""
    before = params.read_text()
    params.write_text(SEED.sub(f"seed: {seed}", before, count=1))
    try:
        yield
    finally:
        params.write_text(before)


def auroc(run: Mapping[str, str]) -> float:
    """Image AUROC of a cell that has been evaluated."""
    metrics = read_json(ARTEFACTS / run["view"] / run["detector"] / "evaluation" / "metrics.json")
    return float(metrics["overall"]["image"]["auroc"])


def table(found: Found, seeds: Iterable[int]) -> str:
    """A line for each cell: the mean over its seeds with the smallest and largest, and each seed; - where it failed."""
    wanted = sorted(seeds)
    lines = [
        [cell, spread(list(values.values())), *(f"{values[s]:.3f}" if s in values else "-" for s in wanted)]
        for cell, values in sorted(found.items())
    ]
    return markdown(("cell", "image AUROC", *(f"seed {seed}" for seed in wanted)), lines)


def keep(found: Found, out: Path) -> None:
    """Write the figures as JSON."""
    write_json(out, {cell: {str(seed): value for seed, value in of.items()} for cell, of in found.items()})
