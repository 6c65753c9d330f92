"""The tables that rooms hand to each other, named once."""

from typing import Literal

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
# One row per answered request of the service or file of the inbox. `taken_at` is the camera's time if it was told,
# `scored_at` the service's; `image_uri` is the image's key in the object store.
LOG_COLUMNS = ("record_id", "scored_at", *SCORE_COLUMNS, "sha256", "image_uri")
# One row per click of a reviewer; the last one on a record counts. `verdict` is defect, false_alarm or withdrawn.
LABEL_COLUMNS = ("record_id", "labelled_at", "source", "image_id", "sha256", "verdict", "reviewer")
# One row per synthetic anomaly; `image_id` and `mask` are paths below the synthesis artefact.
SYNTHETIC_COLUMNS = ("image_id", "mask", "origin", "strategy", "strength", "area", "seed")
