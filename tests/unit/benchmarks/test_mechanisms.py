"""What the studies of mechanisms compare, and how they say it."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.common.short import label, paired, trained
from benchmarks.mechanisms import lists, mechanisms
from benchmarks.mechanisms.studies import STUDIES, Mechanism, studied
from benchmarks.quality import methods
from components.backbones.extractor import BackboneSettings
from components.core.settings import plain
from components.detectors.catalogue import create, settings_for
from components.detectors.methods.patchcore import PatchCore, PatchCoreSettings
from components.training.data import FileImages, FitImages
from components.training.model import save_model

STUDIED = sorted(studied())


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.05, "helps"),
        (-0.05, -0.01, "does not help here"),
        (0.0, 0.0, "does not help here"),
        (-0.01, 0.05, "within the noise"),
    ],
)
def test_verdict_follows_the_interval_of_the_difference(low, high, said):
    assert mechanisms.verdict(low, high) == said


def test_paired_interval_of_scores():
    rng = np.random.default_rng(0)
    labels = np.arange(200) < 100
    good, noise = labels + 0.5 * rng.normal(size=(2, 200)), rng.normal(size=(2, 200))
    assert paired(labels, good, good) == (0.0, 0.0)
    low, high = paired(labels, good, noise)
    assert 0.2 < low < high < 0.6
    assert paired(labels, noise, good)[1] < 0


def scored(monkeypatch, folder, figures: dict[str, float]) -> None:
    """Made-up runs of uniad on screw, by label@seed: the AUROC told, and scores that all are the same."""
    monkeypatch.setattr(mechanisms, "KEPT", folder)
    monkeypatch.setattr(mechanisms, "RESULTS", folder)
    labels = SimpleNamespace(labels=lambda: np.arange(20) < 10)
    monkeypatch.setattr(mechanisms, "View", SimpleNamespace(of=lambda _: labels))
    runs = {f"screw/uniad/{k}": {"auroc": v, "pixel_ap": None} for k, v in figures.items()}
    for name in runs:
        np.save(mechanisms.file(name, "npy"), np.arange(20.0)[::-1])
    (folder / "mechanisms.json").write_text(json.dumps({"runs": runs}))


def test_one_seed_is_held_against_the_range_over_seeds(monkeypatch, tmp_path):
    figures = {"full@0": 0.90, "full@1": 0.80, "full@2": 0.85, "jitter=0.0@0": 0.85}
    scored(monkeypatch, tmp_path, figures)
    row = mechanisms.compared("uniad", "screw", Mechanism("jitter", {"jitter": 0.0}))
    assert row["seeds"] == [0]
    assert row["interval"] == pytest.approx([-0.05, 0.15])
    assert row["verdict"] == "within the noise"


def test_several_seeds_must_agree(monkeypatch, tmp_path):
    figures = {f"full@{s}": 0.9 for s in range(3)} | {f"jitter=0.0@{s}": v for s, v in enumerate((0.8, 0.85, 0.91))}
    scored(monkeypatch, tmp_path, figures)
    row = mechanisms.compared("uniad", "screw", Mechanism("jitter", {"jitter": 0.0}, main=True))
    assert row["difference"] == pytest.approx(0.14 / 3)
    assert row["interval"] == pytest.approx([-0.01, 0.1])
    assert row["verdict"] == "within the noise"


def test_mechanism_table_says_what_does_not_help(monkeypatch, tmp_path):
    scored(monkeypatch, tmp_path, {"full@0": 0.9, "jitter=0.0@0": 0.9, "window=0@0": 0.7})
    mechanisms.write()
    study = json.loads((tmp_path / "mechanisms.json").read_text())["studies"]["uniad"]
    study["schedules"] = {"screw": {"epochs": 9}, "mtd": {"epochs": 9}}
    text = methods.mechanisms("uniad", {"uniad": study})
    assert "| neighbour mask | screw | 1 | 0.900 | 0.700 | +0.200 (+0.000 to +0.200) |" in text
    assert "| jitter | screw | 1 | 0.900 | 0.900 | +0.000 (+0.000 to +0.000) | does not help here | - | - |" in text
    assert "Does not help here: jitter (screw)" in text
    assert "preset `cpu`, on screw and mtd `epochs=9`." in text
    assert methods.mechanisms("sap2", {"uniad": study}) == ""
    assert "## uniad" in (tmp_path / "mechanisms.md").read_text()


def test_a_row_whose_scores_lie_elsewhere_stays(monkeypatch, tmp_path):
    scored(monkeypatch, tmp_path, {"full@0": 0.9, "jitter=0.0@0": 0.9, "window=0@0": 0.7})
    mechanisms.write()
    before = json.loads((tmp_path / "mechanisms.json").read_text())["studies"]["uniad"]["rows"]
    mechanisms.file("screw/uniad/window=0@0", "npy").unlink()
    mechanisms.write()
    assert json.loads((tmp_path / "mechanisms.json").read_text())["studies"]["uniad"]["rows"] == before


def test_a_blind_view_is_of_its_mechanisms_alone():
    asked = {t.name for t in mechanisms.trainings("prn", "bottle") if t.seed == 0}
    assert asked == {"bottle/prn/full@0", "bottle/prn/strategies=heterologous,homologous,shade@0"}


@pytest.mark.parametrize("name", STUDIED)
def test_variants_build_and_differ(name):
    for view in STUDIES[name].views:
        all_of = list(mechanisms.trainings(name, view))
        known = {k: plain(t.settings(o)) for t in all_of for k, o in t.variants()}
        assert len(known) == sum(len(t.scored) for t in all_of)
        for mechanism in STUDIES[name].asked(view):
            on, off = (mechanisms.key(name, view, side, 0) for side in mechanism.sides())
            assert known[on] != known[off], f"{name}: {mechanism.what} is not on"
            sides = mechanism.sides()
            seeds = [s for s in mechanisms.SEEDS if all(mechanisms.key(name, view, o, s) in known for o in sides)]
            thrice = mechanism.main or mechanism.behind or view in mechanism.blind
            assert seeds == ([0, 1, 2] if thrice else [0])
        assert any(mechanism.main for mechanism in STUDIES[name].mechanisms)


# One per method, its first: training all of them would take minutes.
REUSED = {n: next((m for m in STUDIES[n].mechanisms if m.behind), None) for n in STUDIED}
REUSED = [(n, m) for n, m in REUSED.items() if m]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mechanism"), REUSED, ids=[f"{n}-{label(m.off)}" for n, m in REUSED])
def test_a_reused_model_scores_as_one_trained_so(name, mechanism, product, store):
    """What is scored from a state of the full training is exactly what a training with the mechanism off gives."""
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:8])
    data = FitImages(FileImages(paths, tuple(p.name for p in paths)), store)
    on, off = (settings_for(name, "tiny", tiny(name, side)) for side in ({}, mechanism.sides()[1]))
    found = []

    def score(detector: torch.nn.Module) -> None:
        with torch.inference_mode():
            table = detector.inputs(data)
            found.extend(detector.eval().score(table.take(range(4)), (64, 64)))

    def behind(stage: str) -> None:
        if stage == mechanism.behind:
            detector.settings = off
            score(detector)
            detector.settings = on

    torch.manual_seed(0)
    detector = create(name, on)
    trained(detector, data, 0, lambda _: 0.5, behind)
    torch.manual_seed(0)
    alone = create(name, off)
    trained(alone, data, 0, lambda _: 0.5)
    score(alone)
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-5, atol=1e-6)


def tiny(name: str, overrides: dict) -> dict:
    """The study's switches over the tiny preset, without its schedule."""
    switches = {k for m in STUDIES[name].mechanisms for k in m.off}
    known = {k: v for k, v in STUDIES[name].schedule.items() if k in switches and not k.endswith("epochs")}
    return {**known, **overrides}


def test_what_lists_change_is_told_by_patch_and_by_picture():
    exact = [torch.tensor([1.0, 2.0, 4.0, 3.0]), torch.tensor([5.0, 1.0, 1.0, 1.0])]
    found = [torch.tensor([1.0, 3.0, 4.0, 3.0]), torch.tensor([6.0, 1.0, 1.0, 1.0])]
    told = lists.apart(exact, found)
    assert told["same"] == pytest.approx(6 / 8)
    assert told["image_change"] == pytest.approx(0.2)
    assert lists.apart(exact, exact) == {"same": 1.0, "image_change": 0.0}


def test_a_way_to_visit_lists_is_of_the_same_bank(tmp_path):
    """Whole, by all probes, and by those within a reach: never nearer than the nearest row."""
    settings = PatchCoreSettings(BackboneSettings(taps=(2, 3), size=64), bank_size=64, blur=1.0, lists=4)
    made = PatchCore(settings, pretrained=False)
    made.grow()
    save_model(made, tmp_path)
    whole, every, near = (lists.variant(tmp_path, *way) for way in ((0, 0.0), (4, 0.0), (4, 0.25)))
    assert (whole.lists, every.lists.limit, near.lists.limit > 0) == (None, math.inf, True)
    rows = torch.rand(1, 50, made.coreset.bank.shape[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(every.distances(rows), whole.distances(rows))
    assert (near.distances(rows) >= whole.distances(rows) - 1e-5).all()


def test_the_page_of_lists_holds_each_number_of_them():
    row = {"rows": 60, "auroc": 0.9, "pixel_ap": None, "pixel_aupro": None, "same": 1.0, "image_change": 0.0}
    ways = {"probes": 0, "lists": 0, "ms": 20.0}, {"probes": 6, "lists": 32, "ms": 10.0}
    rows = [row | way for way in (*ways, {"probes": 8, "reach": 0.5, "lists": 32, "ms": 8.0})]
    shown = lists.page({"screw": {"rows": rows, "commit": "abc"}})
    assert "| screw | 60 | 32 | 8, reach 0.5 | 1.0000 | 0.0e+00 | 8.0 | 2.50 |" in shown
    assert "| screw | 60 | 32 | 6 | 1.0000 | 0.0e+00 | 10.0 | 2.00 |" in shown
    assert "| screw | all | 0.9000 | - | - |" in shown
