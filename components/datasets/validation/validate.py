"""The validation component: manifest -> clean table, quarantine, summary, data docs, or one sentence and a stop."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from components.core.artefacts import read_json, recorded, write_json
from components.core.errors import DataError
from components.datasets.loading import LISTING, hand_on, read_decoding
from components.datasets.settings import ValidationSettings
from components.datasets.validation.contract import breaches, repeats
from components.datasets.validation.offline import make_offline
from components.datasets.validation.suite import run_suite
from components.pictures.masks import ADVICE, UNREADABLE, Sizes, is_known, mask_paths, reason, tiny_defects

log = logging.getLogger("loupe")


def validate(manifest: Path, data: Path, out: Path, settings: ValidationSettings, size: int = 256) -> Path:
    """Write clean.parquet, quarantine.parquet, summary.json and docs/. Raises DataError when the contract is broken.

    The report is written in either case, so that the user can look. *size* is the side at which defects are seen.
    """
    table = pd.read_parquet(manifest / "manifest.parquet")
    reasons = breaches(table, settings)
    clean, bad = table[reasons.isna()], table[reasons.notna()].assign(reason=reasons.dropna())
    # Nothing moves in some frames of a clip: they repeat others byte by byte and are frames all the same.
    frames = read_decoding(manifest).stride > 0
    again = pd.Series(dtype=object) if frames else repeats(clean)
    clean = clean.drop(again.index)
    name = str(table["dataset"].iloc[0]) if len(table) else data.name
    with recorded(out, "validate", settings, {"manifest": manifest / "manifest.parquet"}) as scratch:
        hand_on(manifest, scratch)
        checks = run_suite(clean, settings, name, scratch / "docs", frames) if len(clean) else []
        listing = read_json(manifest / LISTING) if (manifest / LISTING).exists() else {}
        known = listing.pop("regions", None)
        tiny = tiny_defects(Sizes(**known) if known else None, size)
        repeated = [f"{table.at[row, 'image_id']}: {why}" for row, why in again.items()]
        found = {"repeats": repeated, "listing": listing, "masks": _masks(clean), "defects": tiny}
        summary = {**_summary(name, table, clean, bad, checks, settings), **found}
        clean.to_parquet(scratch / "clean.parquet", index=False)
        bad.to_parquet(scratch / "quarantine.parquet", index=False)
        write_json(scratch / "summary.json", summary)
        (scratch / "docs").mkdir(exist_ok=True)
        make_offline(scratch / "docs", summary)
    if repeated:
        log.warning("%d files repeat others byte by byte and are left out, the first: %s", len(repeated), repeated[0])
    for line in summary["quarantined"]:
        log.warning("quarantined: %s", line)
    for why, images in summary["masks"]["unknown"].items():
        log.warning(
            "%s: of %d images the mask does not tell: %s (first %s); they are left out of pixel figures: %s",
            name,
            len(images),
            why,
            images[0],
            ADVICE[why],
        )
    if summary["defects"]:
        log.warning("%s: %s", name, summary["defects"])
    if summary["broken"]:
        raise DataError(f"{data}: {'; '.join(summary['broken'])}; the report is {out / 'docs' / 'index.html'}")
    return out


def _summary(
    name: str,
    table: pd.DataFrame,
    clean: pd.DataFrame,
    bad: pd.DataFrame,
    checks: list[dict[str, Any]],
    settings: ValidationSettings,
) -> dict[str, Any]:
    counts = Counter("/".join(map(str, key)) for key in zip(clean["group"], clean["role"], clean["label"], strict=True))
    return {
        "dataset": name,
        "files": len(table),
        "counts": dict(sorted(counts.items())),
        "quarantined": list(bad["reason"]),
        "expectations": checks,
        "unavailable": _unavailable(clean),
        "broken": _broken(table, clean, bad, checks, settings),
    }


def _masks(clean: pd.DataFrame) -> dict[str, Any]:
    """How many anomalous images have masks that tell, and the images of those that do not, by the reason."""
    unknown: dict[str, list[str]] = {}
    used = without = 0
    for row in clean[clean["label"] == "anomalous"].to_dict("records"):
        why = reason(row.get("mask_rule"))
        if why is not None:
            kind = next((kind for kind in ADVICE if why.startswith(kind)), UNREADABLE)
            unknown.setdefault(kind, []).append(str(row["image_id"]))
        used, without = used + is_known(row["mask"], row.get("mask_rule")), without + (not mask_paths(row["mask"]))
    return {"used": used, "without": without, "unknown": unknown}


def _unavailable(clean: pd.DataFrame) -> dict[str, str]:
    """Metrics that this data set cannot give, with the reason."""
    test = clean[clean["role"] == "test"]
    missing = {}
    if not (test["label"] == "anomalous").any():
        missing["image AUROC, AP, F1, miss rate"] = "no anomalous test images"
    if not (test["label"] == "normal").any():
        missing["image AUROC, AP, F1, false-alarm rate"] = "no normal test images"
    rules = test["mask_rule"] if "mask_rule" in test else [None] * len(test)
    if not any(is_known(*row) for row in zip(test["mask"], rules, strict=True)):
        missing["pixel AUROC, AP, F1, AUPRO"] = "no masks that tell" if test["mask"].notna().any() else "no masks"
    return missing


def _broken(
    table: pd.DataFrame,
    clean: pd.DataFrame,
    bad: pd.DataFrame,
    checks: list[dict[str, Any]],
    settings: ValidationSettings,
) -> list[str]:
    normals = int(((clean["role"] == "train") & (clean["label"] == "normal")).sum())
    found = []
    if normals < settings.min_train_normals:
        fewer = "validation.min_train_normals (`loupe fit --set validation.min_train_normals=...`)"
        needed = f"{settings.min_train_normals} are needed; add some, or allow fewer with {fewer}"
        found.append(f"{normals} readable good training images, {needed}")
    if len(table) and len(bad) / len(table) > settings.max_quarantined_share:
        found.append(
            f"{len(bad)} of {len(table)} files broke the contract, more than {settings.max_quarantined_share:.0%}; "
            "mend them, or allow more with validation.max_quarantined_share (`loupe fit --set "
            f"validation.max_quarantined_share=...`); the first: {bad['reason'].iloc[0]}"
        )
    found += [f"{c['expectation']} on {c['column']} failed" for c in checks if not c["success"]]
    return found
