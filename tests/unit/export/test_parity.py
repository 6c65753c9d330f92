"""The parity gate on hard products: flat film, good pictures only; and the parts of a bundle are of one model."""

import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from components.calibration.calibrate import summary
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import file_hash, read_json, write_json
from components.core.cache import graphs_folder
from components.core.errors import BundleError, ParityError, SettingsError
from components.decision.bundle import Bundle
from components.decision.conformal import Table, span
from components.detectors.contract import Scores
from components.export.export import _gate, _sample, export
from components.export.parity import compare
from components.export.settings import ExportSettings
from components.export.ties import shaken
from components.pictures.imaging import load_batch, resize
from components.pipeline.fit import FitRequest, fit_folder
from tests.given import decisions


def film(seed, side=100):
    """Clean film: one grey and a noise of less than one step."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(180 + rng.normal(0, 2), 0.8, (side, side)), 0, 255).round().astype(np.uint8)


def good_only(root, make, count=60):
    (root / "train/good").mkdir(parents=True)
    for i in range(count):
        Image.fromarray(make(i)).save(root / "train/good" / f"{i:03d}.png")
    return root


@pytest.fixture
def flat(tmp_path):
    """A run on clean film."""
    data = good_only(tmp_path / "part", film)
    return fit_folder(FitRequest("patchcore", data, preset="tiny", alpha=0.2), tmp_path / "run")


@pytest.mark.parametrize("which", ["flat", "without_test"])
@pytest.mark.slow
def test_flat_film_and_good_pictures_alone_pass_the_gate(which, request):
    run = request.getfixturevalue(which)
    parity = read_json(run / "bundle" / "parity.json")
    assert parity["decision_agreement"] == 1.0
    calibrate = int((pd.read_parquet(run / "split.parquet")["split"] == "calibrate").sum())
    assert parity["sides"] == {"calibrate": calibrate, "synthetic": min(calibrate, 32 - calibrate)}
    assert parity["span"]["score"] > 0
    said = (run / "bundle" / "MODEL_CARD.md").read_text()
    assert f"on {calibrate} calibrate and {parity['sides']['synthetic']} synthetic images" in said


def test_nothing_that_was_learned_is_compared(bundle, tmp_path):
    work = bundle.parent / "work" / "run"
    table = pd.read_parquet(work / "split" / "split.parquet").set_index("image_id")
    chosen = _sample(work / "split", tmp_path, work / "synthetic", 10**6)
    held = chosen[chosen["split"] != "synthetic"]
    assert set(table.loc[held["image_id"], "split"]) == {"calibrate", "test"}
    assert all(path.exists() for path in chosen[chosen["split"] == "synthetic"]["path"])
    assert "synthetic" not in set(_sample(work / "split", tmp_path, work / "synthetic", len(held))["split"])


@pytest.fixture
def graph(tmp_path):
    """A graph that answers the mean and the picture itself, times *factor*."""

    def written(factor):
        class Mean(torch.nn.Module):
            def forward(self, image):
                shown = factor * image.mean(1, keepdim=True)
                return factor * image.mean((1, 2, 3)), shown, shown.mean((2, 3))

        path = tmp_path / "model.onnx"
        dims = {0: torch.export.Dim("batch", min=1, max=8)}
        torch.onnx.export(
            Mean(),
            (torch.rand(2, 3, 32, 32),),
            dynamo=True,
            verbose=False,
            external_data=False,
            input_names=["image"],
            output_names=["score", "map", "embedding"],
            dynamic_shapes=(dims,),
        ).save(path)
        return path

    return written


def answer(paths, size):
    images = load_batch(paths, size[:1])[0]
    return Scores(images.mean((1, 2, 3)), images.mean(1, keepdim=True))


@pytest.mark.parametrize(("factor", "passes"), [(1 + 1e-6, True), (1.001, False)])
def test_pictures_of_one_grey_pass_with_rounding_and_fail_with_another_graph(graph, factor, passes, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(np.full((32, 32), 180, np.uint8)).save(path)
    names, groups = [path.name for path in paths], [""] * 3
    parity = compare(answer, graph(factor), paths, names, lambda s, _: ["normal"] * len(s), groups, 1e-3)
    assert parity["span"]["score"] == pytest.approx(0.01 * 180 / 255, rel=1e-3)
    if passes:
        _gate(parity, ExportSettings(), tmp_path / "bundle")
    else:
        with pytest.raises(ParityError, match="differs from the detector"):
            _gate(parity, ExportSettings(), tmp_path / "bundle")


def through_another_size(paths, size):
    """A detector whose calibration resizes twice, where its graph resizes once."""
    images = resize(load_batch(paths, (48,))[0], size[0])
    return Scores(images.mean((1, 2, 3)), images.mean(1, keepdim=True))


@pytest.mark.parametrize(("scorer", "passes"), [(answer, True), (through_another_size, False)])
def test_the_gate_begins_with_the_file(graph, scorer, passes, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    named = [path.name for path in paths]
    parity = compare(scorer, graph(1), paths, named, lambda s, _: ["normal"] * len(s), [""] * 3, 1e-3)
    assert (parity["map_error"] <= 1e-3) is passes
    assert parity["score_error"] <= 1e-1


class Torn:
    """A detector that takes one of two things where a picture is this very grey, to the last bit: a tie."""

    def __init__(self, jump, tie=True):
        self.jump, self.tie, self.seen = jump, tie, []

    def prepare(self, pictures):
        return pictures[0]

    def answer(self, paths, size):
        self.seen.append(paths[0].name)
        images = self.prepare(load_batch(paths, size[:1]))
        shown = images.mean(1, keepdim=True)
        other = (images[:, 0, 0, 0] == 180 / 255) if self.tie else torch.ones(len(images))
        return Scores(images.mean((1, 2, 3)), shown + self.jump * other[:, None, None, None])


@pytest.mark.parametrize("tie", [True, False])
def test_a_jump_that_the_detector_makes_itself_is_not_the_graphs(graph, tie, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for grey, path in zip((100, 180, 120, 180), paths, strict=True):
        Image.fromarray(np.full((32, 32), grey, np.uint8)).save(path)
    detector, names = Torn(0.1, tie), [path.name for path in paths]
    given = graph(1), paths, names, lambda s, _: ["normal"] * len(s), [""] * 4, 1e-3
    assert compare(detector.answer, *given)["map_error"] > 0.1
    detector.seen.clear()
    parity = compare(detector.answer, *given, shaken=shaken(detector, detector.answer))
    again = detector.seen[5:]  # behind each picture, and the batch of two
    assert "prepare" not in vars(detector)
    if tie:
        assert (parity["undecided"], parity["decision_agreement"]) == (
            2,
            1.0,
        )  # the batch is of these
        assert max(parity["map_error"], parity["score_error"]) < 1e-3
        assert set(again) == {"1.png", "3.png", "0.png"}
        assert len(again) == 3 * 2  # as it is, and with the least noise
    else:
        assert parity["map_error"] > 0.1
        assert again == ["0.png"] * 25  # no other one is looked at once more


def test_the_gate_runs_with_the_provider_asked_for(graph, tmp_path):
    pytest.importorskip("openvino", reason="needs OpenVINO")
    path = tmp_path / "0.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(path)
    given = [path], [path.name], lambda s, _: ["normal"] * len(s), [""], 1e-3
    parity = compare(answer, graph(1), *given, provider="openvino")
    assert parity["provider"] == "openvino"
    assert parity["map_error"] <= 1e-3
    with pytest.raises(SettingsError, match="provider 'gpu': is none"):
        compare(answer, graph(1), *given, provider="gpu")


def test_the_floor_binds_for_flat_products_only():
    scores = np.random.default_rng(0).normal(23, 1, 106)  # as those of PatchCore on solar cells: 20 to 26
    assert span(scores) == np.ptp(scores)
    flat = 5 + 1e-7 * np.arange(30)
    known = summary(flat, CalibrationSettings(0.1))
    assert known["resolution"] == pytest.approx(1e-4 * 0.01 * flat.max())
    assert decisions(Table.of(known), flat * (1 + 5e-7)) == ["normal"] * 30


def parts(bundle):
    work = bundle.parent / "work" / "run"
    return work / "patchcore", [work / "split", work / "synthetic"]


def of_another_model(source, target):
    """A copy of calibration.json or of a graph that says it is of another model."""
    if source.suffix == ".json":
        write_json(target, {**read_json(source), "model": "f" * 64})
        return
    changed = onnx.load(source)
    next(entry for entry in changed.metadata_props if entry.key == "model").value = "f" * 64
    onnx.save(changed, target)


def test_a_calibration_of_another_model_is_not_exported(bundle, product, tmp_path):
    made, given = parts(bundle)
    other = tmp_path / "calibration"
    other.mkdir()
    of_another_model(made / "calibration" / "calibration.json", other / "calibration.json")
    with pytest.raises(BundleError, match="is of another model"):
        export(made / "model", other, *given, product, tmp_path / "bundle", ExportSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["calibration"]


def altered(bundle, name, change, tmp_path):
    """A copy of *bundle* with one part changed, and a manifest that knows its bytes."""
    folder = shutil.copytree(bundle, tmp_path / "altered")
    change(bundle / name, folder / name)
    manifest = read_json(folder / "manifest.json")
    manifest["files"][name] = file_hash(folder / name)
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.mark.parametrize("name", ["calibration.json", "model.onnx"])
def test_a_bundle_of_two_models_is_refused(bundle, name, tmp_path):
    with pytest.raises(BundleError, match=f"{name}: is of model ffffffffffff, manifest.json of"):
        Bundle.open(altered(bundle, name, of_another_model, tmp_path))


def test_a_bundle_whose_parts_do_not_say_their_model_opens(bundle, tmp_path):
    def silent(source, target):
        write_json(target, {key: value for key, value in read_json(source).items() if key != "model"})

    opened = Bundle.open(altered(bundle, "calibration.json", silent, tmp_path))
    assert opened.calibration.model is None
    assert opened.calibration.threshold == Bundle.open(bundle).calibration.threshold


def test_a_changed_weight_fails_the_gate(bundle, product, tmp_path, monkeypatch):
    made, given = parts(bundle)

    def damaged(_, path, *__):
        changed = onnx.load(bundle / path.name)
        bank = max(changed.graph.initializer, key=lambda weights: int(np.prod(weights.dims)))
        bank.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bank) * 1.01, bank.name))
        onnx.save(changed, path)

    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path / "cache"))
    graphs_folder().mkdir(parents=True)
    monkeypatch.setattr("components.export.export.write_graph", damaged)
    with pytest.raises(ParityError, match="differs from the detector"):
        export(made / "model", made / "calibration", *given, product, tmp_path / "bundle", ExportSettings())
    assert not graphs_folder().exists(), "the next try takes no graph that was reused"
