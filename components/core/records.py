"""The tables that rooms hand to each other, named once."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Literal, TypedDict

Label = Literal["normal", "anomalous", "uncertain"]
Split = Literal["fit", "calibrate", "test", "excluded"]

# One row per file of a data set. `image_id` is a POSIX path below the data set's folder, `mask` one or several such
# joined by "|". `mask_rule` says how they are read (components/pictures/masks.py); older tables have none.
MANIFEST_COLUMNS = (
    "image_id", "dataset", "group", "label", "defect", "role", "mask", "mask_rule", "sha256", "width", "height", "mode",
    "brightness", "contrast", "sharpness", "phash", "problem",
)  # fmt: skip
# The manifest's clean rows, each on one side; `note` says why a row is excluded.
SPLIT_COLUMNS = (*MANIFEST_COLUMNS[:-1], "split", "note")
# One row per scored image; evaluation and production write the same table.
SCORE_COLUMNS = (
    "image_id", "dataset", "group", "split", "label", "score", "p_value", "decision", "threshold", "model",
    "model_version", "taken_at", "source", "width", "height", "brightness", "contrast", "sharpness", "embedding",
    "latency_ms", "map_uri",
)  # fmt: skip


class Measured(TypedDict):
    """Of a picture: sides in pixels, mean and deviation of its grey in [0, 1], variance of its Laplacian."""

    width: int
    height: int
    brightness: float
    contrast: float
    sharpness: float


class Scored(Measured):
    """What a bundle says of a picture; *embedding* has 16 numbers, *regions* is JSON, None where they are not known."""

    dataset: str
    group: str | None
    model: str
    model_version: str
    score: float
    p_value: float
    decision: str
    threshold: float
    embedding: list[float]
    regions: str | None


class ScoreRecord(Scored):
    """What is known of one scored picture, SCORE_COLUMNS; *graph* says which graph answered."""

    graph: str
    image_id: str
    source: str
    latency_ms: float
    map_uri: str | None


# One row per answered request of the service or file of the inbox. `taken_at` is the camera's time if it was told,
# `scored_at` the service's; `image_uri` is the image's key in the object store; `registered` the model's name in the
# registry, null for a bundle of none and in records of older versions; `regions` those of the defect, JSON, and then
# which part the picture shows, null where nobody told: records of older versions have none of these.
TRACE_COLUMNS = ("part", "lot", "recipe", "station", "operator")
LOG_COLUMNS = (
    "record_id", "scored_at", *SCORE_COLUMNS, "sha256", "image_uri", "registered", "regions", *TRACE_COLUMNS,
)  # fmt: skip
# One row per part that several cameras see: `views` is JSON, one entry a picture; `decision` may be error, and `reason`
# says why. `source` holds the names of all views.
PART_COLUMNS = (
    "record_id", "scored_at", "source", "decision", "p_value", "reason", *TRACE_COLUMNS, "views", "model_version",
    "registered",
)  # fmt: skip
# One row per click of a reviewer; the last one on a record counts. `label` is defect, false_alarm or withdrawn.
# `tags` are the reviewer's own words for why, joined by ", "; `shapes` what was drawn of the defect, JSON in pixels of
# the picture (components/scorelog/shapes.py). Rows of older versions have neither.
LABEL_COLUMNS = ("record_id", "labelled_at", "source", "image_id", "sha256", "label", "reviewer", "tags", "shapes")
FORMER = {"verdict": "label"}  # what older versions called a column of LABEL_COLUMNS
# One row per synthetic anomaly; `image_id` and `mask` are paths below the synthesis artefact. `area` is its share of
# the picture, `extent` the root of its pixels there: the side of a square as large.
SYNTHETIC_COLUMNS = ("image_id", "mask", "origin", "strategy", "strength", "area", "extent", "seed")

# One row per picture that a trained detector was checked with: `kind` is normal, a strategy, or nuisance and its name;
# `extent` is an anomaly's.
CHECK_COLUMNS = ("image_id", "kind", "extent", "score")
CHECK_TABLE = "check.parquet"  # where they lie in the folder of a model
NORMAL, NUISANCE = "normal", "nuisance "
# Edges of the classes of an anomaly's or a real defect's extent, in pixels of the picture itself, and their names.
SIZES = (0, 16, 32, 64, 128, 100_000)
SIZE_NAMES = tuple(f"{low} to {high}" for low, high in pairwise(SIZES))


def of_today(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the score log or the labels that any version wrote, with the names of today."""
    return {FORMER.get(name, name): value for name, value in row.items()}


def phase_of(record: Mapping[str, Any]) -> str:
    """The phase that an entry of history.json is about."""
    return str(record.get("phase") or record["stage"])  # the word of older versions


def kept_score(history: Iterable[Mapping[str, Any]]) -> float | None:
    """AUROC on synthetic anomalies of the model that a training ended with; None where it was never judged.

    Of the last phase that was judged, the best epoch, which the loop brings back; phases before it judged half a model.
    """
    judged = [record for record in history if "synthetic_auroc" in record]
    return max((r["synthetic_auroc"] for r in judged if phase_of(r) == phase_of(judged[-1])), default=None)
