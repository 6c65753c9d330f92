"""Whether the good test images were taken as the good training images were: light, contrast, focus.

Where they were not, a detector is right to find good test images unusual: figures then tell of the camera too.
"""

import pandas as pd

MEASURED = ("brightness", "contrast", "sharpness")
DISTANCE, CHANCE = 0.3, 0.001  # told from this distance on, if chance gives it more rarely


def shifts(table: pd.DataFrame) -> list[str]:
    """A sentence per group and measure whose good test images differ from the good ones of fit and calibrate.

    Compared by the two-sample Kolmogorov-Smirnov distance (the largest difference of the distributions, 0 to 1).
    """
    good = table[(table["label"] == "normal") & (table["split"] != "excluded")]
    parts = [(str(group), *_sides(part)) for group, part in good.groupby("group")]
    return [line for group, known, new in parts for what in MEASURED for line in _told(group, what, known, new)]


def _sides(part: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    tested = part["split"] == "test"
    return part[~tested], part[tested]


def _told(group: str, what: str, known: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    if known.empty or new.empty:
        return []
    from scipy.stats import ks_2samp  # only here: whoever reads params.yaml comes by this file

    found = ks_2samp(known[what], new[what])
    if found.statistic < DISTANCE or found.pvalue > CHANCE:
        return []
    medians = f"median {new[what].median():.3g} against {known[what].median():.3g}"
    return [
        f"{group}: good test images differ from good training images in {what} ({medians}, Kolmogorov-Smirnov "
        f"distance {found.statistic:.2f})"
    ]
