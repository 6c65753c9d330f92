"""What another threshold would have done to the pictures of late, and the change itself, with its record.

A p-value does not depend on alpha: at another one those pictures are alarms whose p-value is at most that. So the page
moves its slider over p-values that the score log has, by the very rule that decides.
"""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from components.core.errors import LoupeError, RequestError, StorageError
from components.decision.conformal import Table, beyond, threshold
from components.service.answers import Service
from components.service.history import Filter

LARGEST = 0.5  # alpha that the slider ends at
STEPS = 240  # places of the slider
NORMALS = 1000  # calibrate normals that are drawn; more are thinned evenly
LABELLED = 5000
_one_change = threading.Lock()


def point(service: Service, n: int) -> dict[str, Any]:
    """The operating point of what is served, the others it could have, and the newest *n* pictures of this model."""
    bundle = service.champion.served.bundle
    known = bundle.calibration
    labels = {i: v["label"] for i, v in list(service.recorder.labels.items()) if v["label"] != "withdrawn"}
    late = service.history.newest(Filter(version=bundle.version), n)
    judged = service.history.newest(Filter(version=bundle.version, labelled="yes"), LABELLED)
    return {
        **{k: service.champion.identity()[k] for k in ("name", "version", "model_version")},
        "alpha": known.alpha,
        "threshold": known.threshold,
        "normals": [float(s) for s in _thinned(known.table.scores)],
        "n_normals": known.n,
        "steps": steps(known.table),
        "groups": sorted(known.own),
        "pictures": _told(late, labels),
        "labelled": _told(judged, labels),
    }


def _told(rows: pa.Table, labels: Mapping[str, str]) -> list[list[Any]]:
    """Score, p-value and label of each."""
    names = ("record_id", "score", "p_value")
    return [[s, p, labels.get(i)] for i, s, p in zip(*(rows[name].to_pylist() for name in names), strict=True)]


def _thinned(scores: np.ndarray) -> np.ndarray:
    return scores if len(scores) <= NORMALS else np.quantile(scores, np.linspace(0, 1, NORMALS))


def steps(table: Table) -> list[dict[str, float]]:
    """Every alpha that the normals can tell apart, up to LARGEST, with its threshold; of many about STEPS, closer where
    alpha is small, and always the present one."""
    n = len(table.scores)
    most = max(1, int(LARGEST * (n + 1)))
    chosen = (
        {round(float(k)) for k in np.geomspace(1, most, min(most, STEPS))} if most > STEPS else set(range(1, most + 1))
    )
    present = beyond(n, table.alpha)
    # The present alpha may lie between two places, at the threshold of the lower one.
    alphas = [table.alpha if k == present else k / (n + 1) for k in sorted({*chosen, present})]
    return [{"alpha": alpha, "threshold": threshold(table.scores, alpha, table.resolution)} for alpha in alphas]


def change(service: Service, alpha: float, seen: float, who: str, reason: str) -> dict[str, Any]:
    """Move what is served to *alpha*. *seen* is the alpha that the page showed. Raises RequestError, StorageError."""
    if service.desk.repoint is None:
        raise RequestError(403, "this service was started without a way to change its threshold; use `loupe calibrate`")
    with _one_change:
        now = service.champion.served.bundle.calibration.alpha
        require_seen(abs(now - seen) < 1e-9)
        late = service.history.newest(Filter(version=service.champion.served.bundle.version), 1000)[
            "p_value"
        ].to_numpy()
        before, after = (int(np.sum(late <= limit + 1e-12)) for limit in (now, alpha))
        shown = f"of the last {len(late)} pictures {after} would have been alarms, {before} at alpha {now:.4g}"
        try:
            decision = service.desk.repoint(alpha, (f"by hand, {who}: {reason}", shown))
            service.champion.renew()
        except StorageError:
            raise
        except LoupeError as error:
            raise RequestError(422, str(error)) from error
    return {"decision": decision, "model": service.champion.identity()}


def require_seen(same: bool) -> None:
    """Raises RequestError 409: somebody else was faster."""
    if not same:
        raise RequestError(409, "what is served has changed since you looked; load the page again and decide anew")
