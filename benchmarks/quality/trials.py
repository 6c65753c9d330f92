"""What a change of settings is worth without a label: the evidence that every training leaves (docs/adr/0025).

``loupe bench trials mtd/nln "mtd/nln/epochs=4;turned=true"`` trains the preset ``cpu`` and a variant of it, seed 0, by
the pipeline's own stage, each in a process on one thread. Behind an @ stands what only scores: ``mtd/nln/@share=0.5``
takes the model of ``mtd/nln`` and scores anew. ``train.moves=none`` is a setting of the training, as params.yaml has
it. ``"mtd/nln + nln/epochs=4"`` is the mean of both, standardised as an ensemble is; members that the same program has
trained here are not trained again. No picture of a test side is read: what a trial says may choose a preset. One whose
settings are unchanged is skipped; ``--again`` measures it anew, after a change of code. Writes results/trials.json and
results/trials.md.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from benchmarks.common.images import KEPT, STORE
from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import apart, beside, one_thread, options
from benchmarks.common.short import Overrides, changed, label
from benchmarks.common.tables import joined, markdown
from benchmarks.common.views import prepare, stages_of
from components.backbones.features import FeatureStore
from components.core.artefacts import code_hash, read_json, values_hash, write_json
from components.core.settings import build, plain
from components.datasets.loading import read_decoding
from components.decision.paired import worth
from components.detectors.catalogue import create, detector_class, settings_for
from components.registry.choice import averaged
from components.training.data import CheckImages, StoredImages
from components.training.evidence import summary, with_nuisances, write_evidence
from components.training.model import load_model
from components.training.select import SyntheticAUROC
from components.training.settings import TrainSettings
from components.training.train import anomalous, check_images, train

FILE = RESULTS / "trials.json"
HEAD = (
    "view",
    "detector",
    "differs from the preset",
    "worth",
    "graded",
    "small",
    "faint",
    "wide",
    "structure",
    "CPU s",
)
TOGETHER = " + "
TRAIN = "train."
GRADED = ("small", "faint", "wide", "structure")
ABOUT = """*Worth* is what detectors are compared by without a label ([ADR 0025](../../docs/adr/0025-the-choice.md)):
the mean over the kinds of graded anomaly of the AUROC against good pictures, nuisances among them. *Graded*: the same
without nuisances, then each kind. *Differs*: from preset `cpu` as it is today; *nothing* is that preset. Seed 0; no
picture of a test side was read. What was decided by it stands on the page of each method."""


def main(arguments: list[str]) -> None:
    parser = options("trials", __doc__, report=True)
    parser.add_argument("--again", action="store_true", help="also what was measured with these very settings")
    parser.add_argument("--note", default="", help="what is special about the code, where the settings do not say it")
    parser.add_argument("--train", metavar="NAME", help="one training in this process, by its name")
    parser.add_argument("names", nargs="*", metavar="VIEW/DETECTOR[/KEY=VALUE;...[@KEY=VALUE;...]][ + DETECTOR...]")
    asked = parser.parse_args(arguments)
    if asked.train:
        run(asked.train)
        return
    if not asked.report:
        missing = [name for name in asked.names if asked.again or wanted(name).key not in stored(FILE)]
        beside(1, lambda name: record(name, asked.note), missing)
    (RESULTS / "trials.md").write_text(page(stored(FILE)))


class Trial(NamedTuple):
    """What is trained, and what scores: settings on top of preset ``cpu``, by their (dotted) names."""

    view: str
    detector: str
    learned: Overrides
    scored: Overrides  # nothing: as it was trained
    train: Overrides  # of the training: what stands in params.yaml below train

    @classmethod
    def of(cls, name: str) -> "Trial":
        view, detector, *others = name.split("/")
        learned, _, scored = "/".join(others).partition("@")
        given = _overrides(learned)
        train = {key.removeprefix(TRAIN): given.pop(key) for key in list(given) if key.startswith(TRAIN)}
        return cls(view, detector, given, _overrides(scored), train)

    @property
    def settings(self) -> dict[str, Any]:
        """All of those that it is trained with, as they are kept."""
        return dict(plain(settings_for(self.detector, "cpu", self.learned)))

    @property
    def key(self) -> str:
        special = [part for part in (self.scored, self.train) if part]
        what = [self.settings, *special] if special else self.settings
        return f"{self.view}/{self.detector}/{values_hash(what)[:12]}"

    @property
    def folder(self) -> Path:
        return KEPT / "trials" / self.key


class Company(NamedTuple):
    """Trials of one view whose mean is looked at."""

    members: tuple[Trial, ...]

    @classmethod
    def of(cls, name: str) -> "Company":
        first, *others = name.split(TOGETHER)
        view, _, _ = first.partition("/")
        return cls((Trial.of(first), *(Trial.of(f"{view}/{other}") for other in others)))

    @property
    def view(self) -> str:
        return self.members[0].view

    @property
    def key(self) -> str:
        names = "+".join(member.detector for member in self.members)
        return f"{self.view}/{names}/{values_hash([member.key for member in self.members])[:12]}"

    @property
    def folder(self) -> Path:
        return KEPT / "trials" / self.key


def wanted(name: str) -> Trial | Company:
    """The trial of a name, or of several the company."""
    return Company.of(name) if TOGETHER in name else Trial.of(name)


def _overrides(text: str) -> Overrides:
    pairs = (pair.partition("=") for pair in text.split(";") if pair)
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def record(name: str, note: str = "") -> None:
    """One trial in a process of its own; its entry goes to results/trials.json."""
    trial = wanted(name)
    prepare(trial.view)
    if not apart("trials", "--train", name, KEPT):
        return
    entry = {**read_json(trial.folder / "entry.json"), "commit": commit()}
    del entry["program"]  # the commit says it
    add(FILE, {trial.key: {**entry, **({"note": note} if note else {})}})
    sys.stderr.write(f"{name}: worth {entry['worth']:.4f}, graded {entry['graded']:.4f}\n")


def run(name: str) -> None:
    """What ``record`` runs: the model, its check.parquet and entry.json go to the folder of the trial."""
    one_thread()
    trial = wanted(name)
    if isinstance(trial, Company):
        together(trial)
    else:
        alone(trial)


def alone(trial: Trial) -> dict[str, Any]:
    """One training; returns its entry."""
    started = time.process_time()
    shutil.rmtree(trial.folder, ignore_errors=True)
    (scored if trial.scored else trained)(trial)
    model = trial.folder / "model"
    entry = {**evidence(pd.read_parquet(model / "check.parquet")), **described(trial)}
    entry |= {} if trial.scored else {"history": read_json(model / "history.json")}
    return kept(trial.folder, {**entry, "seconds": round(time.process_time() - started, 1)})


def described(trial: Trial) -> dict[str, Any]:
    special = {"scored": trial.scored, "train": trial.train}
    return {"settings": trial.settings} | {name: given for name, given in special.items() if given}


def kept(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "entry.json", entry | {"program": code_hash()})
    return entry


def together(company: Company) -> dict[str, Any]:
    """The mean of several, of which those are trained that this very program has not trained; returns its entry."""
    entries = [known if (known := _known(member)) else alone(member) for member in company.members]
    mean = averaged([pd.read_parquet(member.folder / "model" / "check.parquet") for member in company.members])
    told = {"members": [described(member) for member in company.members], "seconds": sum(e["seconds"] for e in entries)}
    return kept(company.folder, {**evidence(mean), **told})


def _known(trial: Trial) -> dict[str, Any] | None:
    file = trial.folder / "entry.json"
    entry = dict(read_json(file)) if file.exists() else {}
    return entry if entry.get("program") == code_hash() else None


def trained(trial: Trial) -> None:
    """As the pipeline would."""
    stages = stages_of(trial.view)
    given = {**plain(stages.params.train), **trial.train, "preset": "cpu", "detectors": {trial.detector: trial.learned}}
    asked = build(TrainSettings, given, "train")
    at, out = stages.folder, trial.folder / "model"
    train(trial.detector, at / "split", at / "synthetic", stages.data, out, asked, 0)


def scored(trial: Trial) -> None:
    """The model of the trial that was trained alike, with other settings where they matter to scores alone."""
    stages, before = stages_of(trial.view), trial._replace(scored={})
    if not (before.folder / "model").exists():
        trained(before)
    known = load_model(before.folder / "model")
    detector = create(trial.detector, settings_for(trial.detector, "cpu", trial.learned, trial.scored))
    detector.load_state_dict(known.state_dict())
    detector.eval()
    split, store = stages.folder / "split", FeatureStore(STORE)
    images, told = check_images(split, stages.folder / "synthetic", stages.data)
    found = SyntheticAUROC(CheckImages(StoredImages(images, store), anomalous(told))).scores(detector)
    out = trial.folder / "model"
    out.mkdir(parents=True)
    rules = read_decoding(split)
    write_evidence(with_nuisances(detector, told.assign(score=found), stages.data, rules, 0), out)


def evidence(checked: pd.DataFrame) -> dict[str, Any]:
    """What CHECK_COLUMNS come to: worth, AUROC by kind of anomaly with their mean, alarms by nuisance."""
    told = summary(checked)
    kinds = {kind: round(found["auroc"], 4) for kind, found in told["kinds"].items()}
    alarms = {kind: round(found["alarms"], 4) for kind, found in told["nuisances"].items()}
    graded = round(float(np.mean(list(kinds.values()))), 4)
    return {"worth": round(worth(checked), 4), "graded": graded, "kinds": kinds, "alarms": alarms}


def page(found: dict[str, Any]) -> str:
    """results/trials.md."""
    rows = [(*name.split("/")[:2], entry) for name, entry in found.items()]
    rows.sort(key=lambda row: (row[1], row[0], -row[2]["worth"]))
    shown, notes = changed((differs(detector, entry) for _, detector, entry in rows), 34)
    lines = [[view, d, shown[differs(d, e)], *figures(e), f"{e['seconds']:.0f}"] for view, d, e in rows]
    return joined("# Trials without a label", ABOUT, markdown(HEAD, lines), notes)


def figures(entry: dict[str, Any]) -> list[str]:
    kinds = [entry["kinds"].get(f"graded_{kind}") for kind in GRADED]
    return [f"{value:.3f}" if value is not None else "-" for value in (entry["worth"], entry["graded"], *kinds)]


def differs(detector: str, entry: dict[str, Any]) -> str:
    """What an entry's settings differ in from the preset of today, and its note; ``full`` where they do not."""
    if "members" in entry:
        first, *others = map(differs, detector.split("+"), entry["members"])
        return ";".join([first, *(f"with {other.replace(';', ' ')}" for other in others)])
    # A setting that was not there yet: its default leaves all as it was.
    kept = plain(detector_class(detector).settings_type()) | entry["settings"]
    own, today = _flat(kept), _flat(plain(settings_for(detector, "cpu")))
    found = [f"{name}={_text(value)}" for name, value in sorted(own.items()) if today.get(name, value) != value]
    if "scored" in entry:
        found.append(f"scored with {label(entry['scored'])}")
    found += [f"{TRAIN}{name}={_text(value)}" for name, value in entry.get("train", {}).items()]
    return ";".join([*found, *([entry["note"]] if "note" in entry else [])]) or "full"


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return found


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
