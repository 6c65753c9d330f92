"""What the side of the input and squares cost PatchCore: time and peak memory of a fit and of scoring.

Preset ``cpu``, seed 0, on the first good training pictures of bottle (900 x 900): 32 to fit, from an empty feature
store, and 16 others to score from their files. Each fit and each scoring is a process of its own on one thread. Seconds
are those of the processor: other work on the machine moves them less. Where squares are named they are what lies in a
picture (docs/tiles.md). The bank has the same number of patches in each case, so that nothing is said of quality here.
Writes results/sizes.json and sizes.md.
"""

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import asking, command, one_thread, options, peak_mb, tell, told
from benchmarks.common.tables import joined, markdown, wrapped
from components.core.checks import check_known
from components.core.errors import DataError
from components.pictures.decoding import Decoding


class Case(NamedTuple):
    """Settings on top of preset ``cpu``, and the squares across a picture."""

    settings: dict[str, Any]
    tiles: int = 0


# What is measured, by its name. A row more is all that another case needs.
CASES = {
    "256": Case({}),
    "384": Case({"backbone.size": 384}),
    "512": Case({"backbone.size": 512}),
    "256 in 2 x 2 squares": Case({}, 2),
    "256 in 4 x 4 squares": Case({}, 4),
}
DETECTOR, SEED = "patchcore", 0
PICTURES = Path("data/mvtec_ad_bottle/train/good")
FITTED, SCORED = 32, 16
OUT = RESULTS / "sizes.json"
HEAD = ("side and squares", "fit s", "of it features s", "fit peak MiB", "score ms a picture", "score peak MiB")
ABOUT = (
    "{fitted} pictures fitted, {scored} scored, one thread on the CPU; seconds of the processor. The features are of "
    "an empty store, the export of the backbone's graph among them. *Peak*: the largest resident memory of the process."
)


def main(arguments: list[str]) -> None:
    parser = options("sizes", __doc__, report=True)
    parser.add_argument("--fit", nargs=2, metavar=("CASE", "FOLDER"), help="fit one case in this process")
    parser.add_argument("--score", nargs=2, metavar=("CASE", "FOLDER"), help="score with a model in this process")
    parser.add_argument("names", nargs="*", default=list(CASES), metavar="CASE")
    asked = parser.parse_args(arguments)
    if asked.fit:
        tell(fit(CASES[asked.fit[0]], Path(asked.fit[1])))
    elif asked.score:
        tell(score(CASES[asked.score[0]], Path(asked.score[1])))
    else:
        for name in [] if asked.report else asked.names:
            check_known(name, CASES, "loupe bench sizes")
            add(OUT, {name: measured(name)})
        OUT.with_suffix(".md").write_text(page(stored(OUT)))


def measured(name: str) -> dict[str, Any]:
    """One case: a fit, then a scoring, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        fitted = told(asking(command("sizes", "--fit", name, folder), one_thread=True))
        scored = told(asking(command("sizes", "--score", name, folder), one_thread=True))
    return {
        "fit": fitted,
        "score": scored,
        "settings": CASES[name].settings,
        "tiles": CASES[name].tiles,
        "commit": commit(),
    }


def fit(case: Case, folder: Path) -> dict[str, Any]:
    """Fit in this process and leave the model in *folder*; what that took."""
    import torch

    from benchmarks.common.short import trained
    from components.backbones.extractor import Backbone
    from components.backbones.features import FeatureStore
    from components.core.artefacts import file_hash
    from components.detectors.catalogue import create, settings_for
    from components.training.data import FileImages, FitImages
    from components.training.model import save_model

    one_thread()
    torch.manual_seed(SEED)
    detector = create(DETECTOR, settings_for(DETECTOR, "cpu", case.settings))
    paths = pictures()[:FITTED]
    files = FileImages(tuple(paths), tuple(map(file_hash, paths)), Decoding(tiles=case.tiles))
    started = time.process_time()
    data = FitImages(files, FeatureStore(folder / "store"), SEED)
    for backbone in (part for part in detector.modules() if isinstance(part, Backbone)):
        data.features(backbone)
    features = time.process_time() - started
    trained(detector, data, SEED, lambda _: 0.5)  # a bank has no epochs to choose
    seconds = time.process_time() - started
    save_model(detector, folder)
    return {"seconds": seconds, "features": features, "peak_mb": peak_mb(), "pictures": len(paths)}


def score(case: Case, folder: Path) -> dict[str, Any]:
    """Score in this process with the model in *folder*; what that took."""
    from components.training.model import load_model, score_files

    one_thread()
    detector, paths = load_model(folder), pictures()[FITTED : FITTED + SCORED]
    started = time.process_time()
    count = sum(len(scores) for scores, _ in score_files(detector, paths, rules=Decoding(tiles=case.tiles)))
    spent = time.process_time() - started
    return {"ms": 1000 * spent / count, "peak_mb": peak_mb(), "pictures": count}


def pictures() -> list[Path]:
    """The pictures of all cases, in order. Raises DataError where there are too few."""
    found = sorted(PICTURES.glob("*.jpg"))[: FITTED + SCORED]
    if len(found) < FITTED + SCORED:
        raise DataError(f"{PICTURES}: has {len(found)} of {FITTED + SCORED} pictures; docs/data.md says where they are")
    return found


def page(found: dict[str, Any]) -> str:
    """results/sizes.md."""
    if not found:
        return "# What the side of the input and squares cost\n\nNot measured.\n"
    first = next(iter(found.values()))
    about = ABOUT.format(fitted=first["fit"]["pictures"], scored=first["score"]["pictures"])
    names = sorted(found, key=lambda name: list(CASES).index(name) if name in CASES else len(CASES))
    return joined(
        "# What the side of the input and squares cost",
        wrapped(about),
        markdown(HEAD, [line(name, found[name]) for name in names]),
    )


def line(name: str, entry: dict[str, Any]) -> list[str]:
    fitted, scored = entry["fit"], entry["score"]
    figures = (fitted["seconds"], fitted["features"], fitted["peak_mb"], scored["ms"], scored["peak_mb"])
    return [name, *(f"{figure:,.0f}" for figure in figures)]
