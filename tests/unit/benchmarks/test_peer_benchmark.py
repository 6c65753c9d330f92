"""The peer: what it is asked, how its environment is named, our figures of its scores. anomalib itself is not here."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from benchmarks.peer import peer, race, train
from components.backbones.weights import entry
from components.core.errors import SettingsError
from components.pipeline.fit import FitRequest, stages_of
from tests.conftest import tile


class Bright(torch.nn.Module):
    """A model of the peer's kind, whose score tells from how many pictures it learned."""

    def __init__(self, learned):
        super().__init__()
        self.learned = learned

    def forward(self, images):
        scores = torch.full((len(images),), float(self.learned))
        return SimpleNamespace(pred_score=scores, anomaly_map=images.mean(1, keepdim=True))


def test_without_its_environment_one_sentence_says_how_to_make_it(tmp_path):
    with pytest.raises(SettingsError, match=r"make it with `python3 -m venv .* -r benchmarks/peer/requirements.txt`"):
        peer.require(tmp_path / "bin/python")
    with pytest.raises(SettingsError, match="the model one of patchcore"):
        peer.measured("mtd/winclip", tmp_path, 1)
    assert set(peer.MODELS) == set(train.MODELS)


@pytest.fixture
def view(tmp_path):
    """A split of eight pictures, two of them held out by Loupe for its threshold."""
    sides = ["fit"] * 3 + ["calibrate"] * 2 + ["excluded"] + ["test"] * 2
    names = [f"{number}.png" for number in range(len(sides))]
    for number, name in enumerate(names):
        Image.fromarray(tile(number)).save(tmp_path / name)
    labels = ["normal"] * 7 + ["anomalous"]
    pd.DataFrame({"image_id": names, "split": sides, "label": labels}).to_parquet(tmp_path / "split.parquet")
    return SimpleNamespace(split=tmp_path, stages=SimpleNamespace(data=tmp_path), test_ids=lambda: names[6:])


def test_the_peer_learns_from_all_training_normals(view, tmp_path):
    asked = peer.request(view, "padim", tmp_path / "out.npz", 12)
    assert [path.rpartition("/")[2] for path in asked["train"]] == [f"{number}.png" for number in range(5)]
    assert [path.rpartition("/")[2] for path in asked["test"]] == ["6.png", "7.png"]
    assert (asked["size"], asked["epochs"], asked["mean"]) == (256, 12, [0.5] * 3)
    (shown,) = train.batches({**asked, "size": 64}, "test")
    assert shown.shape == (2, 3, 64, 64)
    assert -1 <= shown.min() < shown.max() <= 1


def test_an_answer_is_raw_scores_and_maps(view, tmp_path, monkeypatch):
    """Through the file that runs in the peer's environment, with a model of its kind in place of anomalib's."""

    class Brightness(torch.nn.Module):
        def forward(self, images):
            return SimpleNamespace(pred_score=images.mean((1, 2, 3)), anomaly_map=images.mean(1, keepdim=True))

    monkeypatch.setitem(train.MODELS, "padim", lambda asked: Brightness())  # noqa: ARG005
    monkeypatch.setattr(train, "use_backbone", lambda name, weights: None)  # noqa: ARG005
    path = tmp_path / "request.json"
    path.write_text(json.dumps(peer.request(view, "padim", tmp_path / "out.npz", 1)))
    train.answer(path)
    with np.load(tmp_path / "out.npz") as found:
        assert found["scores"].shape == (2,)
        assert found["maps"].shape == (2, 256, 256)
        np.testing.assert_allclose(found["maps"].mean((1, 2)), found["scores"], rtol=1e-4)
        assert set(json.loads(str(found["seconds"]))) == {"fit", "score"}


def test_every_backbone_is_ours_with_its_weights(monkeypatch):
    known, make = entry("tf_efficientnet_lite0"), timm.create_model
    monkeypatch.setattr(timm, "create_model", make)  # put back afterwards
    train.use_backbone("tf_efficientnet_lite0", known["path"])
    taps = timm.create_model("resnet18", pretrained=True, features_only=True, out_indices=[1, 2, 3])
    assert taps.feature_info.channels() == [24, 40, 112]
    state = torch.load(known["path"], weights_only=True)
    torch.testing.assert_close(taps.state_dict()["conv_stem.weight"], next(iter(state.values())))
    student = timm.create_model("resnet18", features_only=True).state_dict()
    assert not torch.equal(student["conv_stem.weight"], next(iter(state.values())))


def test_figures_and_page_of_both():
    rng, labels = np.random.default_rng(0), np.repeat([False, True], 6)
    masks = np.zeros((12, 16, 16), bool)
    masks[6:, 4:8, 4:8] = True
    maps = (masks + rng.normal(0, 0.1, masks.shape)).astype(np.float32)
    found = peer.figured(labels, (np.arange(12), masks), labels + rng.normal(0, 0.1, 12), maps)
    assert found["image"]["auroc"] == 1
    assert found["pixel"]["auroc"] > 0.99
    assert "curve" not in found["pixel"]
    bare = peer.figured(labels, (np.arange(12), np.zeros_like(masks)), labels + 0.0, maps)
    assert bare["pixel"] == {}  # a view without masks
    ours = {"overall": {"image": {"auroc": 0.8}, "pixel": {}}, "seconds": {"train": 9.0}, "commit": "abcdefabcdef"}
    more = {"seconds": {"fit": 3.0, "score": 1.0}, "how": "-", "commit": "0123456789"}
    text = peer.page({"mtd/padim": {**found, **more}}, {"mtd/padim": ours, "mtd/patchcore": ours})
    lines = [line for line in text.splitlines() if line.startswith("| mtd |")]
    assert lines[0].startswith("| mtd | padim | anomalib | 1.000 |")
    assert lines[1] == "| mtd | padim | Loupe | 0.800 | - | - | - | - | - | preset cpu | abcdefa |"
    assert len(lines) == 2
    assert "Nothing is measured yet" in peer.page({}, {})


def test_the_command_measures_nothing_for_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(peer, "FOUND", tmp_path / "peer.json")
    monkeypatch.setattr(peer, "PAGE", tmp_path / "peer.md")
    peer.main(["--report", "--python", sys.executable])
    assert peer.PAGE.read_text().startswith("# Beside anomalib")


def test_a_request_may_ask_for_the_graph_too(view, tmp_path, monkeypatch):
    """As ``race`` asks: trained, exported and scored, each with its seconds of the processor."""
    monkeypatch.setitem(train.MODELS, "padim", lambda asked: Bright(len(asked["train"])))
    monkeypatch.setattr(train, "use_backbone", lambda name, weights: None)  # noqa: ARG005
    monkeypatch.setattr(train, "exported", lambda model, asked: Path(asked["graph"]).write_text(str(model.learned)))
    path, graph, out = (tmp_path / name for name in ("request.json", "model.onnx", "out.npz"))
    known = {**peer.request(view, "padim", out, 1), "graph": str(graph)}
    for test, scores in ((known["test"], [5, 5]), ([], [])):
        path.write_text(json.dumps({**known, "test": test}))
        train.answer(path)
        with np.load(out) as found:
            assert found["scores"].tolist() == scores
            assert set(json.loads(str(found["processor"]))) == {"fit", "graph", "score"}
        assert graph.read_text() == "5"


def test_both_sides_of_a_race_see_the_same_pictures_and_are_told_apart(view, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "prepared", lambda stages, synthetic: None)  # noqa: ARG005
    view.labels = lambda: np.array([False, True])
    pictures = race.Pictures.of(view, tmp_path / "race")
    assert [Path(path).name for path in pictures.good] == [f"{i:05d}.png" for i in range(5)]
    assert [Path(path).read_bytes() for path in pictures.test] == [
        (tmp_path / name).read_bytes() for name in ("6.png", "7.png")
    ]
    (tmp_path / "scores.json").write_text("[0.1, 0.9]")
    assert race.auroc(pictures, tmp_path / "scores.json") == 1
    rounds = {
        "anomalib": [{"training": 40.0}] * 3,
        "Loupe": [{"training": 4.0}, {"training": 5.0}, {"training": 8.0}],
        "fixed": [{"s": 2.0}, {"s": 3.0}, {"s": 2.5}],
    }
    entry = {"commit": "0123456789", "pictures": [5, 2], "auroc": {"Loupe": 1.0, "anomalib": 0.5}, "rounds": rounds}
    text = race.page({"mtd/patchcore": entry})
    assert "| mtd | patchcore | training | 40.0 | 5.0 | 8.00 (5.00 to 10.00) | 0123456 |" in text
    assert "| mtd/patchcore | 5 | 2 | 3 | 2.0 to 3.0 | 0.500 | 1.000 |" in text
    assert "| mtd/patchcore | 5 | 2 | 3 | 2.0 to 3.0 | - | - |" in race.page({"mtd/patchcore": {**entry, "auroc": {}}})
    assert "Nothing is measured yet" in race.page({})


def test_a_plain_race_does_with_pictures_what_the_peer_does(tmp_path, monkeypatch):
    """Neither squares nor turned copies, as ``loupe fit`` reads it."""
    words: list[str] = []
    monkeypatch.setattr(race, "staged", lambda folder, asked, *rest, **more: words.extend(asked) or {})  # noqa: ARG005
    pictures = SimpleNamespace(folder=tmp_path)
    race.fitted(pictures, "patchcore", tmp_path / "run", race.PLAIN, epochs=2)
    detector, data, _, _, overrides, sections = words
    assert (detector, data, json.loads(overrides)) == ("patchcore", str(tmp_path / "data"), {"epochs": 2})
    params = stages_of(FitRequest(detector, Path(data), sections=json.loads(sections)), tmp_path).params
    assert (params.data["data"].tiles, params.train.moves) == (0, "none")
    race.fitted(pictures, "patchcore", tmp_path / "run")
    assert words[-1] == "{}"


def test_a_side_that_leaves_nothing_is_told(tmp_path):
    with pytest.raises(SettingsError, match="ended without made"):
        race.left(["false"], tmp_path, tmp_path / "made")
    assert tuple(race.RACES) == race.MODELS


def test_scores_of_another_model_are_no_part_of_a_race(view, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "WORK", tmp_path)
    monkeypatch.setattr(race, "View", SimpleNamespace(of=lambda name: view))  # noqa: ARG005
    monkeypatch.setattr(race, "prepared", lambda stages, synthetic: None)  # noqa: ARG005
    monkeypatch.setattr(race, "fixed", lambda: {"s": 1.0})
    monkeypatch.setattr(race, "RACES", {"fastflow": race.Race(*2 * [lambda *_: {"an epoch": 1.0}])})
    view.labels = lambda: np.array([False, True])
    (tmp_path / "race/mtd").mkdir(parents=True)
    (tmp_path / "race/mtd/Loupe.json").write_text("[0.1, 0.9]")  # left by a race of PatchCore
    assert race.measured("mtd/fastflow", tmp_path, 1)["auroc"] == {}
