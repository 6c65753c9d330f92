"""What thresholds promise: the false-alarm rate by folds, and where one set of normals chooses epochs and calibrates.

Folds: Gaussian features, the score is the mean distance to the three nearest of the bank; all of n normals are the
bank that is asked, their out-of-fold scores the table, as ``loupe fit`` does with few pictures. ``drifting`` scales
every training's scores by a random factor of 10 %, as trainings of networks may end. Choice: six epochs of FastFlow,
preset tiny, seed 0 to 2, on mtd; scores of good training pictures that were kept from the training, and of synthetic
anomalies on them. Again and again n of them choose the epoch and set the threshold, and the others are the line. Test
pictures have no part. Worst case: six scorers that have nothing to do with each other. Written to
benchmarks/results/thresholds.json and thresholds.md; --simulated leaves the trainings out.
"""

from typing import Any

import numpy as np

from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import markdown
from components.decision.conformal import threshold

FILE = RESULTS / "thresholds.json"
ALPHA, CHECKS, EPOCHS, VIEW = 0.05, 6, 12, "mtd"
SIZES, FOLDS = (20, 31, 60), (5, 0)  # 0: as many folds as pictures
NORMALS = (19, 39, 76)


def main(arguments: list[str]) -> None:
    parser = options("thresholds", __doc__, report=True)
    parser.add_argument("--simulated", action="store_true", help="without the trainings on mtd")
    asked = parser.parse_args(arguments)
    if not asked.report:
        add(FILE, {"commit": commit(), "alpha": ALPHA, "folds": all_folds(), "worst": choices(*unrelated())})
        if not asked.simulated:
            add(FILE, {"choice": {str(seed): choices(*histories(seed)) for seed in range(3)}})
    (RESULTS / "thresholds.md").write_text(report(stored(FILE)))


# By folds


def all_folds(rounds: int = 4000) -> dict[str, dict[str, float]]:
    """The mean rate, its standard error and what a split would give, for each number of pictures and folds."""
    found = {}
    for n in SIZES:
        for folds in FOLDS:
            for drift in (0.0, 0.1):
                rate = alarms(n, folds or n, rounds, drift)
                name = f"{n} pictures, {folds or n} folds" + (", drifting" if drift else "")
                found[name] = {"rate": round(float(rate.mean()), 4), "error": error(rate)}
    return found


def alarms(n: int, folds: int, rounds: int, drift: float = 0.0, alpha: float = ALPHA, seed: int = 0) -> np.ndarray:
    """The share of 50 fresh normals above the threshold, in each of *rounds* draws of *n* normals: (rounds,)."""
    rng, rates = np.random.default_rng(seed), np.empty(rounds)
    for number in range(rounds):
        normals, fresh = rng.normal(size=(n, 16)), rng.normal(size=(50, 16))
        fold, out = np.arange(n) % folds, np.empty(n)
        for k in range(folds):
            out[fold == k] = knn(normals[fold != k], normals[fold == k]) * np.exp(drift * rng.normal())
        limit = threshold(out, alpha)
        rates[number] = (knn(normals, fresh) * np.exp(drift * rng.normal()) > limit).mean()
    return rates


def knn(bank: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The mean distance of each of *asked* (M, D) to its three nearest of *bank* (N, D)."""
    squares = (asked**2).sum(1)[:, None] + (bank**2).sum(1) - 2 * asked @ bank.T
    return np.sqrt(np.maximum(np.sort(squares, 1)[:, :3], 0)).mean(1)


# One set of normals for two ends


def choices(normals: np.ndarray, made: np.ndarray, rounds: int = 4000) -> dict[str, dict[str, float]]:
    """By number of normals: false alarms where they choose and calibrate, and where others chose."""
    return {str(n): _choice(normals, made, n, rounds) for n in NORMALS if 2 * n + 50 <= normals.shape[1]}


def _choice(normals: np.ndarray, made: np.ndarray, n: int, rounds: int) -> dict[str, float]:
    """*normals* and *made* (CHECKS, N) are scores of pictures and of the anomalies on them, at each check."""
    rng, count = np.random.default_rng(n), normals.shape[1]
    both, apart = np.empty(rounds), np.empty(rounds)
    for number in range(rounds):
        order = rng.permutation(count)
        one, other, fresh = order[:n], order[n : 2 * n], order[2 * n :]
        for rates, chooses in ((both, one), (apart, other)):
            best = int(np.argmax([auroc(a[chooses], b[chooses]) for a, b in zip(normals, made, strict=True)]))
            rates[number] = (normals[best, fresh] > threshold(normals[best, one], ALPHA)).mean()
    exact = np.floor(ALPHA * (n + 1) + 1e-9) / (n + 1)
    difference = both - apart
    return {
        "exact": round(float(exact), 4),
        "same": round(float(both.mean()), 4),
        "apart": round(float(apart.mean()), 4),
        "difference": round(float(difference.mean()), 4),
        "error": error(difference),
    }


def auroc(normal: np.ndarray, made: np.ndarray) -> float:
    """Of scores without ties in any number; ties count half."""
    order = np.sort(normal)
    below, upto = (np.searchsorted(order, made, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(normal))


def unrelated(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Scores of six scorers that agree on nothing: what a choice can cost at most."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(CHECKS, count)), rng.normal(1, 1, size=(CHECKS, count))


def histories(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (CHECKS, N) of good pictures that a training has not seen, and of synthetic anomalies on them."""
    import torch

    from benchmarks.common.images import View
    from benchmarks.common.short import trained
    from benchmarks.common.views import prepare
    from components.datasets.loading import rows
    from components.detectors.catalogue import create, settings_for
    from components.training.data import FitImages

    prepare(VIEW, 0)
    view = View.of(VIEW)
    good = rows(view.split, "fit", "normal").sample(frac=1, random_state=seed)
    kept, learned = good.iloc[: len(good) // 2], good.iloc[len(good) // 2 :]
    settings = view.stages.params.synthesis
    held = FitImages(view._files(kept), view.store, seed, settings)
    torch.manual_seed(seed)
    detector = create("fastflow", settings_for("fastflow", "tiny", {"epochs": EPOCHS}))
    recorder = Recorder(held, held.anomalies(settings.strategies, settings.size))
    trained(detector, FitImages(view._files(learned), view.store, seed, settings), seed, recorder)
    return np.stack([a for a, _ in recorder.scores]), np.stack([b for _, b in recorder.scores])


class Recorder:
    """In place of what chooses epochs: keeps the scores of each check."""

    def __init__(self, *images: Any) -> None:
        self.images = images
        self.tables: tuple[Any, ...] = ()
        self.scores: list[tuple[np.ndarray, ...]] = []

    def __call__(self, detector: Any) -> float:
        from benchmarks.common.short import scored

        self.tables = self.tables or tuple(detector.inputs(images) for images in self.images)
        self.scores.append(tuple(scored(detector, table)[0] for table in self.tables))
        return auroc(*self.scores[-1])


# The page


def error(values: np.ndarray) -> float:
    return round(float(values.std() / len(values) ** 0.5), 5)


def report(found: dict[str, Any]) -> str:
    """Both tables in Markdown."""
    folds = [(name, f"{e['rate']:.4f}", f"{e['error']:.4f}") for name, e in found["folds"].items()]
    lines = []
    for name, entries in {"unrelated scorers": found["worst"], **_seeds(found.get("choice", {}))}.items():
        keys = ("exact", "same", "apart", "difference", "error")
        lines += [(name, n, *(f"{e[k]:.4f}" for k in keys)) for n, e in entries.items()]
    return (
        f"# Thresholds\n\n`loupe bench thresholds`, commit {found['commit']}, alpha {found['alpha']}.\n\n"
        f"## The false-alarm rate by folds\n{markdown(('drawn', 'rate', 'standard error'), folds)}\n\n"
        "## One set of normals for choice and threshold\n"
        f"{markdown(('scores', 'normals', 'by theory', 'same', 'apart', 'difference', 'its error'), lines)}\n"
    )


def _seeds(choice: dict[str, Any]) -> dict[str, Any]:
    return {f"FastFlow on {VIEW}, seed {seed}": entries for seed, entries in choice.items()}
