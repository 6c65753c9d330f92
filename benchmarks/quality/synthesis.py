"""What synthetic anomalies look like, and whether they order detectors as real defects do.

Without a flag: every strategy on calibrate normals of four views. The gallery goes to docs/synthesis.png, figures to
results/synthesis.json and below the marker of docs/synthesis.md.

--rank: does a strategy order detectors as real defects do? For every detector that ``loupe bench fit`` has trained on
the view: image AUROC of calibrate normals against one anomaly on each of them, beside the image AUROC on the
real defects of the test split; then Spearman's correlation over detectors. It reports and must choose nothing: a
strategy chosen by it would be chosen by test labels. Goes to results/synthesis.json and results/synthesis.md.
"""

import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import label
from scipy.stats import permutation_test, rankdata
from sklearn.metrics import roc_auc_score

from benchmarks.common import results as kept
from benchmarks.common.results import WORK, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import markdown, wrapped
from benchmarks.common.views import VIEWS
from components.core.artefacts import read_json, tree_hash, write_json
from components.core.progress import progress
from components.datasets.loading import read_decoding, rows
from components.detectors.contract import Detector
from components.pictures.decoding import decode
from components.pictures.imaging import to_tensor
from components.synthesis.blending import Synthetic
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import AREAS, STRATEGIES
from components.synthesis.synthesise import make
from components.training.model import load_model

DATA = {"mtd": "mtd", "screw": "mvtec_ad_screw", "elpv-mono": "elpv", "elpv-poly": "elpv"}
RESULTS = kept.RESULTS / "synthesis.json"
TABLE = RESULTS.with_suffix(".md")
PAGE = Path("docs/synthesis.md")
MARKER = "<!-- Below this line: loupe bench synthesis -->"
SETTINGS = SynthesisSettings(size=256)
PER_VIEW, SHOWN, CELL, NAMES = 16, 2, 96, 112  # normals measured and shown of each view; pixels of a cell, of the names
GREYS = 20
FEWEST = 3  # detectors below which no correlation is told


def main(arguments: list[str]) -> None:
    parser = options("synthesis", __doc__, report=True)
    parser.add_argument("--rank", action="store_true")
    parser.add_argument("--view", default="mtd", choices=VIEWS)
    parser.add_argument("--images", type=int, default=64, help="calibrate normals that --rank scores")
    parser.add_argument("--work", type=Path, default=WORK / "seed-0", help="where splits and trained detectors lie")
    asked = parser.parse_args(arguments)
    results = stored(RESULTS)
    if asked.rank:
        if not asked.report:
            rank(asked.work, asked.view, asked.images, results)
        TABLE.write_text(ranking(asked.view, results["rank"][asked.view]))
        sys.stdout.write(TABLE.read_text())
        return
    if not asked.report:
        images = [image for view in VIEWS for image in normals(asked.work, view, PER_VIEW)]
        results["strategies"] = {name: measured(name, images) for name in STRATEGIES}
        write_json(RESULTS, results)
        shown = [image for view in VIEWS for image in normals(asked.work, view, SHOWN)]
        gallery(shown).save("docs/synthesis.png", optimize=True)
    told = statistics({name: results["strategies"][name] for name in STRATEGIES})
    PAGE.write_text(f"{PAGE.read_text().split(MARKER)[0].rstrip()}\n\n{MARKER}\n{told}")
    sys.stdout.write(told)


def normals(work: Path, view: str, count: int) -> list[np.ndarray]:
    """Up to *count* calibrate normals of a view, spread over the split, at the size of the settings."""
    table = rows(work / view / "split", "calibrate", "normal")
    chosen = np.linspace(0, len(table) - 1, min(count, len(table))).astype(int)
    side = (SETTINGS.size, SETTINGS.size)
    paths = [Path("data") / DATA[view] / table["image_id"][i] for i in chosen]
    rules = read_decoding(work / view / "split")
    return [np.asarray(Image.fromarray(decode(p, rules=rules)).resize(side, Image.Resampling.BILINEAR)) for p in paths]


def drawn(name: str, image: np.ndarray, number: int) -> Synthetic:
    """The anomaly of one strategy on image *number*: the same in every run."""
    return make(name, image, np.random.default_rng([number, list(STRATEGIES).index(name)]), SETTINGS)


# Figures of each strategy


def measured(name: str, images: list[np.ndarray]) -> dict[str, float]:
    """Area in % of the image, blend weight, mean change in grey levels where changed, parts, ms per image."""
    started = time.process_time()
    made = [drawn(name, image, i) for i, image in enumerate(images)]
    spent = time.process_time() - started
    areas = 100 * np.array([m.area for m in made])
    changes = [
        np.abs(m.image[m.mask].astype(int) - image[m.mask]).mean() for m, image in zip(made, images, strict=True)
    ]
    figures = {
        "images": len(made),
        "area": np.median(areas),
        "area_low": np.quantile(areas, 0.05),
        "area_high": np.quantile(areas, 0.95),
        "strength": np.mean([m.strength for m in made]),
        "change": np.median(changes),
        "parts": np.median([label(m.mask)[1] for m in made]),
        "ms": 1000 * spent / len(made),
    }
    return {key: round(float(value), 2) for key, value in figures.items()}


def statistics(figures: dict[str, dict[str, float]]) -> str:
    """What ``measured`` found, as the lower half of the page."""
    head = ("strategy", "area % (5 to 95 %)", "blend weight", "change in grey levels", "parts", "ms")
    lines = [
        (
            f"`{name}`",
            f"{f['area']:.1f} ({f['area_low']:.1f} to {f['area_high']:.1f})",
            f"{f['strength']:.2f}",
            f"{f['change']:.0f}",
            f"{f['parts']:.0f}",
            f"{f['ms']:.1f}",
        )
        for name, f in figures.items()
    ]
    images = next(iter(figures.values()))["images"]
    own = "".join(f", for `{name}` {_percent(area)}" for name, area in AREAS.items())
    about = (
        f"One anomaly on each of {images:.0f} calibrate normals ({', '.join(VIEWS)}; {SETTINGS.size} pixels, areas of "
        f"{_percent(SETTINGS.area)} allowed{own}). Medians of the area, of the mean change where anything changed, and "
        "of the connected parts; means of the blend weight and of the processor time on one core of a machine in use, "
        "draws thrown away for their area included."
    )
    return f"## Measured\n{wrapped(about)}\n\n{markdown(head, lines)}\n"


def _percent(area: tuple[float, float]) -> str:
    return f"{100 * area[0]:g} to {100 * area[1]:g} %"


def gallery(images: list[np.ndarray]) -> Image.Image:
    """A row of originals, then one of each strategy, named on the left; few colours, small cells."""
    lines = [("original", images)]
    lines += [(name, [drawn(name, image, i).image for i, image in enumerate(images)]) for name in STRATEGIES]
    sheet = Image.new("RGB", (NAMES + CELL * len(images), CELL * len(lines)), "white")
    for y, (name, cells) in enumerate(lines):
        ImageDraw.Draw(sheet).text((4, CELL * y + CELL // 2 - 6), name, fill="black")
        for x, cell in enumerate(cells):
            small = Image.fromarray(cell).resize((CELL - 2, CELL - 2), Image.Resampling.BOX)
            sheet.paste(small, (NAMES + CELL * x + 1, CELL * y + 1))
    return sheet.quantize(palette=_palette(), dither=Image.Dither.NONE)


def _palette() -> Image.Image:
    """Some greys and the coloured points of a 5 x 5 x 5 cube: the photographs are grey, few anomalies are not."""
    greys = [[round(g)] * 3 for g in np.linspace(0, 255, GREYS)]
    colours = [c for c in product((0, 64, 128, 191, 255), repeat=3) if len(set(c)) > 1]
    holder = Image.new("P", (1, 1))
    holder.putpalette([v for colour in (*greys, *colours) for v in colour])
    return holder


# Rank correlation with real defects


def rank(work: Path, view: str, count: int, results: dict[str, Any]) -> None:
    """Fill results["rank"][view]; a detector whose model, images and strategies are those of the last run is kept."""
    known = results.setdefault("rank", {}).setdefault(view, {})
    folders = {p.parent.parent.name: p.parent.parent for p in sorted((work / view).glob("*/evaluation/metrics.json"))}
    known = {name: entry for name, entry in known.items() if name in folders}
    images = normals(work, view, count)
    made: dict[str, list[np.ndarray]] = {}
    for name, folder in folders.items():
        identity = [tree_hash(folder / "model" / "model.safetensors")[:12], len(images), list(STRATEGIES)]
        if known.get(name, {}).get("of") != identity:
            made = made or {s: [drawn(s, image, i).image for i, image in enumerate(images)] for s in STRATEGIES}
            found = synthetic_aurocs(load_model(folder / "model"), images, made)
            known[name] = {"of": identity, "synthetic": found}
        known[name]["real"] = read_json(folder / "evaluation" / "metrics.json")["overall"]["image"]["auroc"]
        results["rank"][view] = known
        write_json(RESULTS, results)
    results["rank"][view] = known


def synthetic_aurocs(
    detector: Detector, images: list[np.ndarray], made: dict[str, list[np.ndarray]]
) -> dict[str, float]:
    """Image AUROC of *images* against the anomalies of each strategy, and of the settings' default mixture."""
    normal = scores(detector, images)
    anomalous = {name: scores(detector, anomalies) for name, anomalies in made.items()}
    mixture = [anomalous[name] for name in SETTINGS.strategies if name in anomalous]
    anomalous |= {"default mixture": np.concatenate(mixture)} if mixture else {}
    return {name: round(auroc(normal, values), 4) for name, values in anomalous.items()}


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    truth = np.repeat([False, True], [len(normal), len(anomalous)])
    return float(roc_auc_score(truth, np.concatenate([normal, anomalous])))


@torch.inference_mode()
def scores(detector: Detector, images: list[np.ndarray], batch: int = 8) -> np.ndarray:
    """Image scores (N,) of uint8 images."""
    starts = progress(range(0, len(images), batch), f"{detector.name}: scoring {len(images)} images")
    found = [detector(torch.stack([to_tensor(i) for i in images[s : s + batch]])).image for s in starts]
    return torch.cat(found).double().numpy()


def correlations(entries: dict[str, Any], rounds: int = 1000) -> dict[str, dict[str, float]]:
    """Per strategy Spearman's rho of synthetic with real AUROC over detectors, its 95 % bootstrap interval, and p.

    p: share of random pairings with as strong a rho; says what the interval over few detectors does not. Empty with
    fewer than FEWEST detectors; a strategy on which all detectors are alike has no rho.
    """
    if len(entries) < FEWEST:
        return {}
    real = np.array([e["real"] for e in entries.values()])
    found = {}
    for name in next(iter(entries.values()))["synthetic"]:
        ours = np.array([e["synthetic"][name] for e in entries.values()])
        if np.ptp(ours) > 0 and np.ptp(real) > 0:
            found[name] = {"rho": spearman(ours, real), **_interval(ours, real, rounds), **_chance(ours, real, rounds)}
    return found


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _interval(ours: np.ndarray, real: np.ndarray, rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    draws = (rng.integers(0, len(real), len(real)) for _ in range(rounds))
    kept = [spearman(ours[d], real[d]) for d in draws if np.ptp(ours[d]) > 0 and np.ptp(real[d]) > 0]
    return dict(zip(("low", "high"), map(float, np.quantile(kept, (0.025, 0.975))), strict=True))


def _chance(ours: np.ndarray, real: np.ndarray, rounds: int) -> dict[str, float]:
    found = permutation_test(
        (ours,),
        lambda paired: spearman(paired, real),
        permutation_type="pairings",
        n_resamples=rounds,
        vectorized=False,
        rng=np.random.default_rng(0),
    )
    return {"p": float(found.pvalue)}


ABOUT = """\
Spearman's rank correlation, over these {count} detectors, of the image AUROC on a strategy's anomalies ({images}
calibrate normals, and one anomaly on each) with the image AUROC on real test defects; in brackets its 95 % bootstrap
interval over detectors; p is the share of random pairings with as strong a correlation. A detector that learned from
a strategy has an easier task there. Test labels are reported here and choose nothing.
"""
RANKED = ("strategy", "rank correlation", "AUROC of the detectors: least, median, most")


def ranking(view: str, entries: dict[str, Any], rounds: int = 1000) -> str:
    """The table of correlations, how many detectors it is over, and their AUROCs."""
    found, count = correlations(entries, rounds), len(entries)
    names = ", ".join(sorted(entries)) or "none"
    said = wrapped(f"`loupe bench synthesis --rank --view {view}`: seed 0, over {count} detectors ({names}).")
    head = f"# Synthetic anomalies beside real defects\n{said}\n\n"
    if not found:
        return f"{head}No correlation is told: it takes {FEWEST} detectors at least that differ.\n"
    first = next(iter(entries.values()))
    order = sorted(first["synthetic"])  # entries read back are sorted, fresh ones are not
    real = [("real test defects", "", [e["real"] for e in entries.values()])]
    strategies = [(s, _told(found.get(s)), [e["synthetic"][s] for e in entries.values()]) for s in order]
    lines = [_line(*r) for r in real + strategies]
    return f"{head}{ABOUT.format(count=count, images=first['of'][1])}\n{markdown(RANKED, lines)}\n"


def _told(found: dict[str, float] | None) -> str:
    if not found:
        return "none: all alike"
    return f"{found['rho']:.2f} ({found['low']:.2f} to {found['high']:.2f}), p {found['p']:.3f}"


def _line(name: str, told: str, aurocs: list[float]) -> tuple[str, str, str]:
    return name, told, ", ".join(f"{v:.3f}" for v in np.quantile(aurocs, (0, 0.5, 1)))
