"""What the feature store saved, and what two processes that ask it at once do.

Hits and seconds are those that each training of ``loupe bench fit`` (seed 0) wrote into its timing.json: a hit is a tap
found in the store, a miss one that was computed; seconds saved are what the taps that were found once cost. Then
processes on one thread each ask at the same moment for the features of the same 64 solar cells, from an empty store
in a folder of its own. Written to benchmarks/results/features.md.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common.results import RESULTS, WORK
from benchmarks.common.runner import asking, command, options, tell, told
from benchmarks.common.tables import markdown
from components.core.artefacts import file_hash, read_json

RUNS = WORK / "seed-0"
CELLS = Path("data/elpv/images")
COUNT = 64
OUT = RESULTS / "features.md"
HEAD = ("training", "hits", "misses", "hit rate", "s spent", "s saved")
AT_ONCE = ("process", "hits", "misses", "s computing", "s until it had them")


def main(arguments: list[str]) -> None:
    parser = options("features", __doc__)
    parser.add_argument("--ask", nargs=2, metavar=("FOLDER", "AT"), help="ask a store at this time, in this process")
    parser.add_argument("pictures", nargs="*", type=Path, help="of --ask")
    asked = parser.parse_args(arguments)
    if asked.ask:
        tell(usage(Path(asked.ask[0]), float(asked.ask[1]), tuple(asked.pictures)))
        return
    OUT.write_text(
        "# Feature store\n\n## Over the benchmark's trainings\n"
        f"{markdown(HEAD, trainings(RUNS))}\n\n## The same features asked for at once\n{at_once(pictures())}\n"
    )


def trainings(runs: Path) -> list[list[str]]:
    """One line per training below *runs* that asked for features, and their sum."""
    used = {}
    for path in sorted(runs.glob("*/*/model/timing.json")):
        features = read_json(path).get("features")
        if features and features["hits"] + features["misses"]:
            used["/".join(path.parts[-4:-2])] = features
    if not used:
        return [["not measured", *[""] * (len(HEAD) - 1)]]
    total = {key: sum(f[key] for f in used.values()) for key in next(iter(used.values()))}
    return [line(name, f) for name, f in (*used.items(), (f"all {len(used)}", total))]


def line(name: str, f: dict[str, Any]) -> list[str]:
    rate = f["hits"] / (f["hits"] + f["misses"])
    return [
        name,
        str(f["hits"]),
        str(f["misses"]),
        f"{rate:.0%}",
        *(f"{f[key]:.0f}" for key in ("seconds_spent", "seconds_saved")),
    ]


def pictures() -> list[Path]:
    return sorted(CELLS.glob("*.png"))[:COUNT]


def at_once(paths: list[Path]) -> str:
    """Two processes on an empty store, then one on the full store; and the files that the store then holds."""
    with tempfile.TemporaryDirectory() as folder:
        together(folder, paths[:1], 1)  # the backbone's graph, which is no feature, is there beforehand
        started = time.time() + 15.0  # both have loaded their libraries by then
        usages = together(folder, paths, 2, started)
        usages += together(folder, paths, 1)
        arrays = len([p for p in Path(folder).glob("*/tap.npy") if p.stat().st_size > 1e6])
    names = ("one of two", "the other", "a third, later")
    lines = [
        [n, str(u["hits"]), str(u["misses"]), f"{u['seconds_spent']:.1f}", f"{u['wall']:.1f}"]
        for n, u in zip(names, sorted(usages[:2], key=lambda u: u["hits"]) + usages[2:], strict=True)
    ]
    computed = sum(u["misses"] for u in usages)
    return (
        f"{markdown(AT_ONCE, lines)}\n\n{len(paths)} images, {arrays} taps in the store, {computed} computed: "
        f"{'each once' if computed == arrays else 'NOT each once'}."
    )


def together(folder: str, paths: list[Path], count: int, at: float = 0.0) -> list[dict[str, Any]]:
    """What *count* processes took that asked for the same at one moment."""
    processes = [asking(command("features", "--ask", folder, at, *paths), one_thread=True) for _ in range(count)]
    return [told(process) for process in processes]


def usage(folder: Path, at: float, paths: tuple[Path, ...]) -> dict[str, Any]:
    """Ask the store in *folder* at the time *at*: what it took."""
    from components.backbones.extractor import Backbone, BackboneSettings
    from components.backbones.features import FeatureStore
    from components.training.data import FileImages

    images, backbone = FileImages(paths, tuple(map(file_hash, paths))), Backbone(BackboneSettings())
    time.sleep(max(0.0, at - time.time()))
    started, store = time.perf_counter(), FeatureStore(folder)
    store.features(backbone, images)
    return dataclasses.asdict(store.usage) | {"wall": time.perf_counter() - started}
