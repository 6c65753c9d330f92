"""One-class protocols on small pictures of ten classes: scikit-learn's digits and a part of CIFAR-10.

``one``: one class is normal, the others are the anomalies, ten trainings a method. ``rest``: all classes but one are
normal, as NLN has it. ``half``: five classes are normal, UniAD's four groups. All training pictures of the normal
classes are learned from, the last epoch stands: nothing is chosen, no label is seen. Image AUROC on all test pictures.
A cell that is measured with these settings is not measured again, so that a run may be ended and go on. Written to
benchmarks/results/oneclass.md and oneclass.json.
"""

import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common.images import STORE
from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import one_thread, options
from benchmarks.common.short import trained
from benchmarks.common.tables import joined, markdown, wrapped
from components.backbones.features import FeatureStore
from components.core.artefacts import file_hash, values_hash
from components.datasets.adapters import adapter
from components.datasets.oneclass import one_class
from components.datasets.settings import SplitSettings
from components.detectors.catalogue import create, settings_for
from components.detectors.contract import Detector
from components.evaluation.metrics import image_metrics
from components.pictures.kept import keeping
from components.training.data import FileImages, FitImages, StoredImages
from components.training.select import finite, scores_of

FOUND, PAGE = RESULTS / "oneclass.json", RESULTS / "oneclass.md"
SETS = {"digits": "digits", "cifar10_subset": "cifar10"}  # the folder in data/, and its adapter
PROTOCOLS = {"one": ("nln", "sap2", "adtr", "uniad", "alps"), "half": ("uniad",), "rest": ("nln",)}
HALVES = ("01234", "56789", "02468", "13579")  # UniAD's groups of normal classes, by their number
TOKENS: dict[str, Any] = {"backbone.size": 64, "grid": 8, "pool": 64, "positions": False, "batch_size": 16}
TOKENS |= {"epochs": 4, "draws": 2000}
SETTINGS: dict[str, dict[str, Any]] = {  # on preset cpu; the scores are the published ones of small pictures
    "nln": {
        "size": 32,
        "patch": 32,
        "stride": 32,
        "width": 32,
        "latent": 32,
        "share": 0.6,
        "blur": 0.0,
        "top": 1.0,
        "positions": False,
        "epochs": 20,
        "batch_size": 32,
    },
    "sap2": {"backbone.size": 64},
    "adtr": {**TOKENS, "push_epochs": 0},
    "uniad": {**TOKENS, "window": 3},
    "alps": {
        "size": 32,
        "widths": [32, 64, 128],
        "latent": 64,
        "epochs": 20,
        "batch_size": 32,
        "blur": 0.5,
        "top": 1.0,
        "positions": False,
    },
}
PUBLISHED = [
    ("sap2", "one", "CIFAR-10 97.0 (CAP 97.0)", "ResNet-152 at 224 pixels"),
    ("adtr", "one", "CIFAR-10 94.7 (ADTR+ 96.1)", "EfficientNet-B4, 500 epochs"),
    ("uniad", "half", "CIFAR-10 84.4, 79.6, 93.0, 89.1, mean 86.5", "EfficientNet-B4, 1000 epochs, 8 GPUs"),
    ("nln", "rest", "up to 17 % above its autoencoder", "best K by test labels; figures of a set: not found"),
    ("nln", "one", "up to 8 % above its autoencoder", "the same"),
    ("alps", "one", "not found", "no figure of any set is known"),
]
ABOUT = (
    "Image AUROC in per cent, seed 0, one thread; the mean is of the measured cells, whose number stands behind it. "
    "Preset `cpu` with the settings of benchmarks/quality/oneclass.py: 32 pixels for NLN and ALPS, EfficientNet-lite0 "
    "at 64 pixels for the others, seconds of training each. digits: 1,797 pictures of 8 x 8 "
    "pixels, every fifth for testing. cifar10_subset: 500 training and 200 test pictures a class, re-encoded as JPEG. "
    "*all but*: the class is the anomaly."
)
APART = (
    "Not comparable: the published figures are of all 50,000 training and 10,000 test pictures, of the backbones and "
    "schedules named, and of the authors' code. Ours are of a tenth of the pictures, a small backbone and a short "
    "schedule. What can be compared is NLN beside the plain autoencoder of the same training."
)


def main(arguments: list[str]) -> None:
    parser = options("oneclass", __doc__, report=True)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many")
    parser.add_argument("names", nargs="*", metavar="SET/PROTOCOL/METHOD", help="the beginning of some cells")
    asked = parser.parse_args(arguments)
    known, started = stored(FOUND), time.monotonic()
    with keeping():  # every epoch would decode them again
        for name in [] if asked.report else cells(asked.names):
            if is_measured(known, name) or time.monotonic() - started > 60 * asked.minutes:
                continue
            entry = measured(name)
            add(FOUND, {name: entry})
            sys.stderr.write(f"{name}: {entry['auroc']:.3f} in {entry['seconds']} s\n")
    PAGE.write_text(page(stored(FOUND)))


def cells(names: list[str]) -> list[str]:
    """SET/PROTOCOL/METHOD/CLASS of all that begin with one of *names*, class by class, so that none is left behind."""
    every = [
        f"{data}/{protocol}/{method}/{kind}"
        for protocol, methods in PROTOCOLS.items()
        for data in SETS
        for kind in (HALVES if protocol == "half" else range(10))
        for method in methods
    ]
    return [name for name in every if not names or name.startswith(tuple(names))]


def is_measured(known: dict[str, Any], name: str) -> bool:
    return name in known and known[name]["settings"] == identity(name)


def identity(name: str) -> str:
    """What says that a cell was measured with other settings than today's."""
    return values_hash(SETTINGS[name.split("/")[2]])[:12]


@cache
def listed(data: str) -> pd.DataFrame:
    """Every picture of a set by its adapter, with the hash of its file."""
    root = Path("data") / data
    rows = adapter(SETS[data]).rows(root)
    table = pd.DataFrame([(r.image_id, r.group, r.label, r.defect, r.role) for r in rows])
    table.columns = pd.Index(["image_id", "group", "label", "defect", "role"])
    return table.assign(dataset=data, sha256=[file_hash(root / name) for name in table["image_id"]])


def chosen(name: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a cell, and the classes that it names: the normal ones, of ``rest`` the anomalous one."""
    data, protocol, _, kind = name.split("/")
    table = listed(data)
    classes = sorted(set(table["group"]))
    named = tuple(classes[int(number)] for number in kind)
    settings = SplitSettings(anomalous=named) if protocol == "rest" else SplitSettings(normal=named)
    return one_class(table, settings, name), list(named)


def measured(name: str) -> dict[str, Any]:
    """One training, and the image AUROC of its test side."""
    one_thread()
    (table, classes), started = chosen(name), time.process_time()
    data, _, method, _ = name.split("/")
    fit, test = table[table["role"] == "train"], table[table["role"] == "test"]
    store = FeatureStore(STORE)
    torch.manual_seed(0)
    made = create(method, settings_for(method, "cpu", SETTINGS[method]))
    trained(made, FitImages(_files(data, fit), store), 0, lambda _: 0.5)  # of equal ones the last epoch stands
    labels, inputs = (test["label"] == "anomalous").to_numpy(), made.inputs(StoredImages(_files(data, test), store))
    found = {"auroc": _auroc(made, inputs, labels), **_plain(made, inputs, labels)}
    counts = {"fit": len(fit), "test normals": int((~labels).sum()), "anomalous": int(labels.sum())}
    seconds = round(time.process_time() - started, 1)
    return {**found, "classes": classes, **counts, "seconds": seconds, "settings": identity(name), "commit": commit()}


def _files(data: str, table: pd.DataFrame) -> FileImages:
    return FileImages(tuple(Path("data") / data / name for name in table["image_id"]), tuple(table["sha256"]))


def _auroc(detector: Detector, inputs: Any, labels: np.ndarray) -> float:
    return round(float(image_metrics(labels, finite(scores_of(detector, inputs)))["auroc"]), 4)


def _plain(detector: Detector, inputs: Any, labels: np.ndarray) -> dict[str, float]:
    """Of NLN also what the autoencoder that it trained finds by itself: what the paper compares with."""
    if detector.name != "nln":
        return {}
    detector.settings = replace(detector.settings, scoring="autoencoder")
    return {"plain": _auroc(detector, inputs, labels)}


def page(known: dict[str, Any]) -> str:
    """results/oneclass.md."""
    parts = [table_of(known, data, protocol) for data in SETS for protocol in PROTOCOLS]
    wanted = cells([])
    count = sum(is_measured(known, name) for name in wanted)
    commits = ", ".join(sorted({str(known[name]["commit"])[:8] for name in wanted if name in known}))
    seconds = sum(known[name]["seconds"] for name in wanted if name in known)
    said = f"Measured: {count} of {len(wanted)} cells, {seconds / 60:.0f} minutes of one core. Commit {commits or '-'}."
    return joined("# One-class protocols", wrapped(ABOUT), wrapped(said), *parts, beside_published(known))


def table_of(known: dict[str, Any], data: str, protocol: str) -> str:
    """A row per class, or group of classes, and a column per method; of NLN its plain autoencoder too."""
    if not any(name.startswith(f"{data}/{protocol}/") for name in known):
        return f"## {data}: {protocol}\n\nNot measured yet."
    columns = [(method, key) for method in PROTOCOLS[protocol] for key in ("auroc", "plain")[: 1 + (method == "nln")]]
    kinds = HALVES if protocol == "half" else [str(number) for number in range(10)]
    lines = []
    for kind in kinds:
        entries = {method: known.get(f"{data}/{protocol}/{method}/{kind}", {}) for method in PROTOCOLS[protocol]}
        lines.append([_named(entries, kind), *(_cell(entries[method].get(key)) for method, key in columns)])
    means = [_mean(known, data, protocol, method, key) for method, key in columns]
    names = (method if key == "auroc" else "its autoencoder" for method, key in columns)
    head = ["all but" if protocol == "rest" else "normal", *names]
    return f"## {data}: {protocol}\n\n{markdown(head, [*lines, ['mean', *means]])}"


def _named(entries: dict[str, Any], kind: str) -> str:
    found: dict[str, Any] = next((e for e in entries.values() if e), {})
    return ", ".join(found.get("classes", [kind]))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _mean(known: dict[str, Any], data: str, protocol: str, method: str, key: str = "auroc") -> str:
    entries = [known[name] for name in cells([f"{data}/{protocol}/{method}/"]) if name in known]
    values = [entry[key] for entry in entries if key in entry]
    return f"{100 * float(np.mean(values)):.1f} ({len(values)})" if values else "-"


def beside_published(known: dict[str, Any]) -> str:
    """The published figures, ours, and why the two do not compare."""
    lines, of = [], []
    for method, protocol, published, how in PUBLISHED:
        lines.append([method, protocol, published, *(_mean(known, data, protocol, method) for data in SETS)])
        of.append(f"- {method}, {protocol}: {how}")
        if method == "nln":
            plain = [_mean(known, data, protocol, method, "plain") for data in SETS]
            lines.append(["its autoencoder", protocol, "not found", *plain])
    table = markdown(["method", "protocol", "published", *(f"ours, {data}" for data in SETS)], lines)
    return "\n\n".join(("## Beside the published figures", wrapped(APART), table, "Published of:", "\n".join(of)))
