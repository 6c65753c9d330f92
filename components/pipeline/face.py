"""What ``import loupe`` offers to notebooks and other programs: the same stages as behind the command line.

Pictures are arrays or paths. An array, uint8 (H, W, 3) RGB, goes the way of a file: it is written as PNG, which loses
nothing, and decoded by the bundle's rules, so that a picture scores alike however it comes. Heavy packages are loaded
by the function that needs them; ``load`` and a ``Model`` need neither torch nor pandas.
"""

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.core.artefacts import atomic_dir, tree_hash
from components.core.errors import BundleError, DataError
from components.core.filenames import printable
from components.core.places import bundle_in
from components.decision.bundle import Answer, Bundle
from components.detectors.catalogue import FIRST

if TYPE_CHECKING:
    import pandas as pd


Picture = np.ndarray | str | Path
Pictures = np.ndarray | str | Path | Sequence[Picture]
Label = int | str
ANOMALOUS, NORMAL = -1, 1  # as scikit-learn's outlier detectors say it
LABELS = {"normal": "good", "anomalous": "defect", NORMAL: "good", ANOMALOUS: "defect"}  # label -> folder
Read = Callable[[], Path | bytes]


@dataclass(frozen=True)
class Model:
    """A bundle that is open for scoring, with the verbs of scikit-learn's outlier detectors.

    Of scikit-learn are the signs: ``predict`` says 1 for normal and -1 for anomalous, and in ``score_samples`` and
    ``decision_function`` higher is more normal, as in ``IsolationForest``. Everywhere else in Loupe, the tables of
    ``score`` included, a raw score is higher for what is more anomalous.
    """

    folder: Path  # the bundle
    bundle: Bundle

    @property
    def detector(self) -> str:
        """The detector's name, such as ``patchcore``."""
        return self.bundle.manifest.detector

    @property
    def threshold(self) -> float:
        """The raw score above which a picture is anomalous, of a model with groups that of all together."""
        return self.bundle.calibration.threshold

    @property
    def alpha(self) -> float:
        """The share of good pictures that may be called anomalous."""
        return self.bundle.calibration.alpha

    def score_samples(self, pictures: Pictures, group: str | None = None) -> np.ndarray:
        """How normal each picture is: minus its raw score, float64 (N,). Raises DataError for what is no picture."""
        return -np.array([answer.score for answer in self._answers(pictures, group)], np.float64)

    def decision_function(self, pictures: Pictures, group: str | None = None) -> np.ndarray:
        """Threshold less raw score, float64 (N,): negative exactly for what is anomalous but for rounding.

        Raises DataError for what is no picture.
        """
        answers = self._answers(pictures, group)
        return np.array([answer.decided.threshold - answer.score for answer in answers], np.float64)

    def predict(self, pictures: Pictures, group: str | None = None) -> np.ndarray:
        """1 for normal, -1 for anomalous, int (N,): the bundle's own decisions. Raises DataError as above."""
        said = [answer.decided.decision for answer in self._answers(pictures, group)]
        return np.array([ANOMALOUS if decision == "anomalous" else NORMAL for decision in said], np.int64)

    def p_values(self, pictures: Pictures, group: str | None = None) -> np.ndarray:
        """The share of good pictures that score as high, float64 (N,). Raises DataError as above."""
        return np.array([answer.decided.p_value for answer in self._answers(pictures, group)], np.float64)

    def maps(self, pictures: Pictures) -> list[np.ndarray]:
        """The heat map of each picture, float32 (H, W): raw scores by pixel. Raises DataError as above."""
        return [answer.map for answer in self._answers(pictures, None)]

    def _answers(self, pictures: Pictures, group: str | None) -> list[Answer]:
        from components.decision.batch import alongside
        from components.pictures.clips import decode

        def answer(bundle: Bundle, name: str, content: Path | bytes) -> Answer:
            return bundle.answer(decode(content, name, bundle.decoding), group)

        self.bundle.require_group(group)
        return list(alongside(self.bundle, sources(pictures), answer))


def load(folder: str | Path) -> Model:
    """Open the bundle of a run, or a bundle. Raises BundleError when its files are not those of its manifest.

    >>> model = load("runs/tiles")
    >>> model.detector
    'patchcore'
    """
    place = Path(folder)
    if not place.is_dir():
        raise BundleError(f"{place}: is not a folder; give a run of `loupe fit` or a bundle")
    bundle = bundle_in(place)
    return Model(bundle, Bundle.open(bundle))


def fit(
    good: Pictures,
    out: str | Path,
    detector: str = FIRST,
    *,
    preset: str | None = None,
    alpha: float | None = None,
    seed: int = 0,
    size: int | Sequence[int] | str = "auto",
    minutes: float | None = None,
    adapter: str = "folder",
    groups: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Model:
    """Train on good pictures, calibrate and export into the run's folder *out*; a finished run is opened at once.

    *good* is a data set's folder, as ``loupe fit --data`` takes it, or good pictures: arrays uint8 (N, H, W, 3), a list
    of arrays, or a list of files. These are kept in a folder beside *out*. *settings* are what ``--set`` takes: those
    of the detector, or ``validation.max_side``. Raises LoupeError as ``loupe fit`` ends.

    >>> model = fit(tiles[:24], "runs/small", preset="tiny", alpha=0.2)
    >>> model.predict(tiles[24:26]).shape
    (2,)
    """
    from components.pipeline.fit import FitRequest, fit_folder
    from components.pipeline.sections import put

    run = Path(out)
    sections: dict[str, dict[str, Any]] = {}
    overrides = {key: value for key, value in (settings or {}).items() if not put(sections, key, value)}
    data = _kept(run, "pictures", {"train/good": good})
    chosen = tuple(groups) if groups else None
    sizes = size if isinstance(size, str | int) else ",".join(map(str, size))
    known: tuple[Any, ...] = (
        adapter,
        chosen,
        preset,
        seed,
        alpha,
        overrides,
        None,
        sections,
        {},
        str(sizes),
        None,
        minutes,
    )
    return load(fit_folder(FitRequest(detector, data, *known), run))


def score(
    model: Model | str | Path, pictures: Pictures, group: str | None = None, maps: str | Path | None = None
) -> "pd.DataFrame":
    """The table of ``loupe score``, a row a picture: raw score (higher is more anomalous), p-value, decision.

    ``regions`` holds where defects are, as JSON; what cannot be scored has its reason in ``problem``. *maps* is a
    folder for raw heat maps, ``.npy``.

    >>> score("runs/tiles", ["new/000.png", tiles[0]])[["image_id", "decision"]].shape
    (2, 2)
    """
    import pandas as pd

    from components.core.records import SCORE_COLUMNS
    from components.decision.batch import alongside, row
    from components.decision.tables import PROBLEM, REGIONS

    opened = (model if isinstance(model, Model) else load(model)).bundle
    opened.require_group(group)
    kept = Path(maps) if maps else None

    def said(bundle: Bundle, name: str, content: Path | bytes) -> dict[str, Any]:
        return row(bundle, lambda: content, name, "python", kept, group)

    rows = list(alongside(opened, sources(pictures), said))
    return pd.DataFrame(rows, columns=[*SCORE_COLUMNS, REGIONS, PROBLEM])


@dataclass(frozen=True)
class Evaluation:
    """What ``loupe evaluate`` wrote: *metrics* of metrics.json, *scores* a row a picture, all of it in *folder*."""

    folder: Path
    metrics: dict[str, Any]
    scores: "pd.DataFrame"


def evaluate(
    run: str | Path,
    pictures: Pictures,
    labels: Sequence[Label] | np.ndarray | None = None,
    out: str | Path | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score labelled pictures with a run of ``fit`` and measure.

    *pictures* is a folder as ``loupe evaluate --labelled`` takes it (``good`` and a folder for each defect), or any
    pictures with one of *labels* for each: 1 or ``"normal"``, -1 or ``"anomalous"``. These are kept in a folder beside
    *run*. *out* is ``RUN/labelled`` where nothing is said. Raises LoupeError as the command ends.

    >>> found = evaluate("runs/tiles", tiles[24:28], labels=[1, 1, -1, -1])
    >>> sorted(found.metrics["overall"])[:2], len(found.scores)
    (['false_alarm_rate', 'image'], 4)
    """
    import pandas as pd

    from components.core.artefacts import read_json
    from components.pipeline.fit import EvaluateRequest, evaluate_run

    place = Path(run)
    folder = _folder_of(pictures) if labels is None else _kept(place, "labelled", _by_label(pictures, labels))
    written = evaluate_run(EvaluateRequest(place, labelled=folder, seed=seed), Path(out) if out else place / "labelled")
    return Evaluation(written, read_json(written / "metrics.json"), pd.read_parquet(written / "scores.parquet"))


def compare(
    runs: Sequence[str | Path], out: str | Path = "compare.html", data: str | Path | None = None
) -> "pd.DataFrame":
    """Write the page *out* of ``loupe compare``, and give its figures, a row a run. Raises DataError.

    *data* is the folder of the runs' data set, to draw pictures of.

    >>> compare(["runs/tiles", "runs/other"])[["detector", "threshold"]].shape
    (2, 2)
    """
    import pandas as pd

    from components.report import compare as side_by_side

    folders = [Path(run) for run in runs]
    side_by_side.compare(folders, Path(out), Path(data) if data else None)
    return pd.DataFrame([side_by_side.figures(run) for run in side_by_side.named(folders)]).set_index("run")


def sources(pictures: Pictures) -> list[tuple[str, Read]]:
    """Each picture by name, and how its file is read; arrays are named by their place. Raises DataError."""
    if isinstance(pictures, str | Path):
        from components.decision.batch import files_in

        return [(printable(str(path)), partial(Path, path)) for path in files_in([Path(pictures)])]
    if isinstance(pictures, np.ndarray) and pictures.ndim != 4:
        raise DataError(f"an array of shape {pictures.shape}: give pictures as (N, H, W, 3), or a list of (H, W, 3)")
    return [_source(number, picture) for number, picture in enumerate(pictures)]


def _source(number: int, picture: Picture) -> tuple[str, Read]:
    if isinstance(picture, str | Path):
        return printable(str(picture)), partial(Path, picture)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
        said = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise DataError(f"picture {number}: is {said}; give uint8 of shape (H, W, 3) in RGB, or a path")
    return f"{number:06d}.png", partial(_png, picture)


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _folder_of(pictures: Pictures) -> Path:
    if isinstance(pictures, str | Path):
        return Path(pictures)
    raise DataError("pictures without labels: give one label for each, or a folder with good/ and one for each defect")


def _by_label(pictures: Pictures, labels: Sequence[Label] | np.ndarray) -> dict[str, Pictures]:
    """Folder -> pictures. Raises DataError where labels are no labels, or not one for each picture."""
    every = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    said = [label if isinstance(label, str) else int(label) for label in labels]
    if unknown := [label for label in said if label not in LABELS]:
        raise DataError(f"label {unknown[0]!r}: write 1 or 'normal', -1 or 'anomalous'")
    if len(said) != len(every):
        raise DataError(f"{len(every)} pictures and {len(said)} labels: give one label for each picture")
    pairs = list(zip(said, every, strict=True))
    return {name: [picture for label, picture in pairs if LABELS[label] == name] for name in ("good", "defect")}


def _kept(run: Path, what: str, folders: Mapping[str, Pictures]) -> Path:
    """A data set of pictures, beside *run*: RUN-WHAT; a folder that holds the same already is left as it is."""
    for pictures in folders.values():
        if isinstance(pictures, str | Path):
            return Path(pictures).resolve()
    place = run.resolve().with_name(f"{run.resolve().name}-{what}")
    with atomic_dir(place.with_name(f"{place.name}.new")) as scratch:
        for name, pictures in folders.items():
            _written(scratch / name, pictures)
    made = place.with_name(f"{place.name}.new")
    if place.is_dir() and tree_hash(made) == tree_hash(place):  # times of files stay, by which a finished run is known
        shutil.rmtree(made)
        return place
    shutil.rmtree(place, ignore_errors=True)
    return made.rename(place)


def _written(folder: Path, pictures: Pictures) -> None:
    folder.mkdir(parents=True)
    for number, (name, read) in enumerate(sources(pictures)):
        given = read()
        path = folder / f"{number:06d}{Path(name).suffix.lower()}"
        if isinstance(given, bytes):
            path.write_bytes(given)
        else:
            shutil.copyfile(given, path)
