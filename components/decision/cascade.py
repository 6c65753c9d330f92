"""Two graphs under one false-alarm rate: when the quick edge graph's answer stands, and with which p-value.

Each graph has a conformal p-value of its own, from the same calibrate normals, and a share of alpha to spend: what is
reported is the p-value of the graph that answered, divided by its share (a weighted Bonferroni correction). Whatever
decides which graph answers, P(p <= t) <= t holds for a normal image, and it is anomalous when p <= alpha, as anywhere.
"""

from typing import Any

import numpy as np

from components.decision.conformal import p_values, threshold


def early(table: dict[str, Any], score: float) -> str | None:
    """The decision that the edge graph takes alone by *table* (the group's: ``conformal.of_group``), None if none."""
    if score <= table["low"]:
        return "normal"
    return "anomalous" if table["high"] is not None and score > table["high"] else None


def edge_verdict(table: dict[str, Any], score: float, decision: str) -> tuple[float, str, float]:
    """p-value, decision and the threshold it stands on, where the edge graph has decided."""
    p = shared(float(p_values(table, np.array([score]))[0]), table["share"])
    return p, decision, float(table["low"] if decision == "normal" else table["high"])


def full_verdict(table: dict[str, Any], known: dict[str, Any], score: float) -> tuple[float, str, float]:
    """The same where the full graph had to answer, by its own table *known* and what the edge graph left of alpha."""
    left = 1 - table["share"]
    p = shared(float(p_values(known, np.array([score]))[0]), left)
    limit = threshold(np.asarray(known["scores"]), left * known["alpha"], known.get("resolution", 0.0))
    return p, "anomalous" if p <= known["alpha"] + 1e-12 else "normal", limit


def shared(p: float, share: float) -> float:
    """A p-value to be held against all of alpha by a graph that may spend *share* of it; 1 where it may spend none."""
    return min(1.0, p / share) if share else 1.0
