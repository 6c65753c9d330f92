"""Every detector of the catalogue keeps the contract."""

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.metrics import roc_auc_score

from components.backbones import runtime
from components.backbones.extractor import Backbone
from components.backbones.features import FeatureStore
from components.backbones.runtime import graph_of, through_graphs
from components.core.errors import SettingsError
from components.core.runtime import session
from components.core.settings import build, plain
from components.detectors.catalogue import CATALOGUE, create, describe, detector_class, settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.facts import facts
from components.export import runner
from components.export.embedding import Described
from components.export.export import write_runner
from components.export.graph import write_graph
from components.pictures.decoding import Decoding, decode
from components.pictures.imaging import to_tensor
from components.pictures.tiles import pieces
from components.synthesis.synthesise import write_png
from components.training.data import CheckImages, FileImages, FitImages, StoredImages
from components.training.descriptors import descriptor, tensors
from components.training.loop import Loop
from components.training.model import inputs_of, load_model, save_model, score_files, score_pictures
from components.training.select import SyntheticAUROC, scores_of
from tests.contract.conftest import CASES, NAMES, looped, trained
from tests.given import OfOneSize, assert_blind_outside

GOLDEN = Path(__file__).parent / "golden"
# By how much the rates of a golden training are divided. What learning moves and what other vector instructions move
# go together: with these scores move by 5 % and more, on another kind of processor by less than 0.7 %.
GENTLE = {"cma_ae": 200, "dsr": 200, "msfi": 30, "nln": 30, "rstpm": 60}


def test_every_method_is_in_the_catalogue_and_has_its_own_test_golden_numbers_and_page():
    methods = {p.stem for p in Path("components/detectors/methods").glob("*.py")} - {"__init__"}
    assert methods == set(NAMES)
    assert methods - {p.stem.removeprefix("test_") for p in Path("tests/unit/detectors/methods").glob("*.py")} == set()
    assert methods == {p.stem for p in GOLDEN.glob("*.json")}, "make golden NAME=... writes the numbers"
    assert methods == {p.stem for p in Path("docs/methods").glob("*.md")}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_of_a_method_without_running_its_file_is_what_its_class_has(name):
    kind = detector_class(name)
    info, presets = facts(*CATALOGUE[name].split(":"))
    assert (info, plain(presets)) == (kind.info, plain(kind.presets))


@pytest.mark.parametrize("name", NAMES)
def test_catalogue_entry_is_complete(name):
    entry = describe(name)
    assert set(entry["presets"]) >= {"paper", "cpu", "tiny"}
    assert entry["paper"]
    assert entry["year"] > 2010
    for preset in entry["presets"]:
        settings = settings_for(name, preset)
        assert dataclasses.is_dataclass(settings)
        assert build(type(settings), plain(settings), name) == settings


def test_shapes_and_finiteness(fitted, batch):
    with torch.inference_mode():
        scores = fitted(batch[:, :, :80])
    assert scores.image.shape == (4,)
    assert scores.map.shape == (4, 1, 80, 96)
    assert torch.isfinite(scores.image).all()
    assert torch.isfinite(scores.map).all()


def test_pasted_square_raises_the_score_there(fitted, batch):
    pasted = batch.clone()
    pasted[:, :, 32:56, 40:64] = torch.tensor([0.9, 0.1, 0.2]).view(1, 3, 1, 1)
    with torch.inference_mode():
        before, after = fitted(batch), fitted(pasted)
    assert (after.image > before.image).all()
    inside = (after.map - before.map)[:, :, 36:52, 44:60].mean()
    outside = (after.map - before.map)[:, :, :16, :16].mean()
    assert inside > outside


def test_batch_size_does_not_change_scores(fitted, batch):
    with torch.inference_mode():
        together, alone = fitted(batch), [fitted(image[None]) for image in batch]
    torch.testing.assert_close(together.image, torch.cat([s.image for s in alone]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.map, torch.cat([s.map for s in alone]), rtol=1e-3, atol=1e-3)


def files(paths: list[Path]) -> FileImages:
    return FileImages(tuple(paths), tuple(p.name for p in paths))


def test_clean_copies_cannot_be_told_from_their_pictures(fitted, pairs, store):
    """In the choice of epochs, and in calibration and evaluation."""
    check = CheckImages(StoredImages(files([*pairs[0], *pairs[1]]), store), np.arange(32) >= 16)
    assert SyntheticAUROC(check)(fitted) == 0.5
    scores = [np.concatenate([s for s, _ in score_files(fitted, side)]) for side in pairs]
    assert roc_auc_score(check.anomalous, np.concatenate(scores)) == 0.5


def test_a_frozen_network_answers_by_its_graph_as_by_itself(fitted, tiles, tmp_path, monkeypatch):
    """Where graphs are kept good pictures are scored by them, as they may come; at every size that is looked at."""
    seen = [np.stack([pixels] * fitted.frames) if fitted.clips else pixels for pixels in tiles[20:]]
    before = score_pictures(fitted, seen)
    for part in fitted.modules():
        if isinstance(part, Backbone):
            graph_of(tmp_path, part.key()).touch()
    monkeypatch.setattr(runtime, "FastBackbone", OfOneSize)
    with through_graphs(fitted, tmp_path):
        inside = score_pictures(fitted, seen)
    np.testing.assert_array_equal(inside, before)


def test_what_lies_outside_the_region_changes_nothing(fitted, pairs, tmp_path):
    assert_blind_outside(fitted, pairs[0][:2], tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_clean_copies_score_as_their_pictures_at_larger_sizes(name, pairs):
    key = "size" if hasattr(settings_for(name, "tiny"), "size") else "backbone.size"
    for size in (128, 256):
        torch.manual_seed(0)
        detector = create(name, settings_for(name, "tiny", {key: size}), pretrained=False).eval()
        ours, copies = (next(score_files(detector, side[:2])) for side in pairs)
        np.testing.assert_array_equal(ours[0], copies[0])
        np.testing.assert_array_equal(ours[1], copies[1])


@pytest.mark.parametrize("name", NAMES)
def test_files_are_seen_alike_in_training_and_calibration_and_by_the_graph(name, pairs):
    """Tables, what ``score_files`` sees, and what ``forward`` makes of whole images."""
    torch.manual_seed(0)
    detector, paths = create(name, settings_for(name, "tiny"), pretrained=False).eval(), pairs[0][:3]
    with torch.inference_mode():
        seen = list(tensors(inputs_of(detector, paths)))
        drawn = list(tensors(detector.inputs(StoredImages(files(paths), FeatureStore(None))).take(range(3))))
        whole = list(tensors(detector.prepared(torch.stack([to_tensor(decode(path)) for path in paths]))))
    for ours, learned, graphs in zip(seen, drawn, whole, strict=True):
        # As tables keep them: pictures (B, 3, s, s) and frames (B, T, 3, s, s) to a level, features by their size.
        rounded = 0.5 / 255 if ours.shape[-3] == 3 else 2e-3 * float(ours.abs().max())
        torch.testing.assert_close(learned, ours, rtol=0, atol=1.01 * rounded)
        torch.testing.assert_close(graphs, ours, rtol=1e-4, atol=1e-5 * float(ours.abs().max()))


def a_few_steps(case: str) -> dict:
    """Settings of *case* with every gradient phase short and gentle; what would cut maps at a limit is off."""
    name, overrides = CASES[case]
    gentle = GENTLE.get(name, 10)
    changes = {"threshold": 0.0} if name == "paedid" else {}
    for key, value in vars(settings_for(name, "tiny", overrides)).items():
        if key.endswith("epochs") and value:
            changes[key] = (1,) * len(value) if isinstance(value, tuple) else 1
        elif key.endswith("rate") and value:
            changes[key] = tuple(v / gentle for v in value) if isinstance(value, tuple) else value / gentle
    return changes


def golden(case: str) -> dict:
    """The stored numbers of a case's method; none of a new one."""
    path = GOLDEN / f"{CASES[case][0]}.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.fixture(scope="session")
def begun(case, images, store, tmp_path_factory):
    """The loop behind a few steps of each of its phases."""
    return looped(case, images, store, tmp_path_factory.mktemp("begun"), **a_few_steps(case))


def test_golden_numbers(case, begun, batch, pytestconfig):
    """Stored losses and scores of the tiny model behind a few steps; a change that moves them is in CHANGELOG.md.

    The losses say whether all parts of them are there, the scores what was learned by them.

    `make golden NAME=patchcore` stores those of today.

    Training multiplies what processors round differently: a whole one ends elsewhere on each kind. To be another kind:
    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 pytest tests/contract -k golden
    """
    with torch.inference_mode():
        scores = begun.detector.eval()(batch)
    losses = [record[key] for record in begun.history for key in sorted(record) if key.endswith("loss")]
    found = {"image": scores.image.tolist(), "map_mean": scores.map.mean((1, 2, 3)).tolist(), "losses": losses}
    known = golden(case)
    if pytestconfig.getoption("--golden"):
        path = GOLDEN / f"{CASES[case][0]}.json"
        path.write_text(json.dumps(known | {case: found}, indent=1) + "\n")
        return
    assert case in known, f"run `make golden NAME={CASES[case][0]}` once the method is as it should be"
    stored = known[case]
    assert losses == pytest.approx(stored["losses"], rel=0.01), json.dumps({case: found})
    for key in ("image", "map_mean"):
        values, tolerance = found[key], 0.01 * max(map(abs, stored[key]))
        assert values == pytest.approx(stored[key], rel=0, abs=tolerance), json.dumps({case: found})


def test_saved_model_scores_the_same(fitted, batch, tmp_path):
    save_model(fitted, tmp_path)
    loaded = load_model(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(batch).image, fitted(batch).image, rtol=0, atol=0)


def test_exported_graph_scores_the_same(fitted, batch, pairs, tmp_path, monkeypatch):
    """The parity gate in small: another batch and another image size than the one it was traced with; and files."""
    write_runner(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # the decoder beside the runner
    with torch.inference_mode():
        known = descriptor(fitted.prepared(batch))
        write_graph(Described(fitted, known), tmp_path / "model.onnx", 20, {})
        opened = session(tmp_path / "model.onnx")
        for images in (batch[:3], batch[:1, :, :80]):
            scores = fitted(images)
            given = seen_as_clips(fitted, images).numpy()
            image, maps, embedding = opened.run(["score", "map", "embedding"], {"image": given})
            tolerance = 1e-3 * float(fitted(batch).map.max() - fitted(batch).map.min())
            np.testing.assert_allclose(maps, scores.map, rtol=1e-3, atol=tolerance)
            np.testing.assert_allclose(image, scores.image, rtol=1e-3, atol=tolerance)
            assert embedding.shape == (len(images), 16)
        _assert_runner_scores_files(opened, fitted, pairs, tolerance)


def seen_as_clips(fitted, images: torch.Tensor) -> torch.Tensor:
    """Pictures as the graph takes them: of a detector of clips, clips in which nothing moves."""
    return images[:, None].repeat(1, fitted.frames, 1, 1, 1) if fitted.frames > 1 else images


def _assert_runner_scores_files(opened, fitted, pairs, tolerance):
    """From the file on, without torch, as calibration does with it; a clean copy as its picture to the last bit."""
    rules = fitted.rules(Decoding()).kept
    ours, copies = (
        np.concatenate([opened.run(["score"], {"image": next(runner.squares(path, rules))})[0] for path in side[:4]])
        for side in pairs
    )
    np.testing.assert_array_equal(ours, copies)
    theirs = np.concatenate([scores for scores, _ in score_files(fitted, pairs[0][:4])])
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=tolerance)


def test_a_long_picture_is_the_worst_of_its_squares(fitted, tiles, tmp_path):
    """In every detector, and where epochs are chosen as where scores are given."""
    long = np.concatenate(list(tiles[20:23]), 1)
    path, parts = tmp_path / "long.png", pieces(long, 1)
    squares, rules = [tmp_path / f"{i}.png" for i in range(len(parts))], Decoding(tiles=1)
    for image, name in zip((long, *parts), (path, *squares), strict=True):
        write_png(image, name)
    if fitted.frames > 1:
        with pytest.raises(SettingsError, match="sees frames whole"):
            next(score_files(fitted, [path], rules=rules))
        return
    ((whole,), (heat,)) = next(score_files(fitted, [path], rules=rules))
    alone = np.concatenate([scores for scores, _ in score_files(fitted, squares)])
    assert len(alone) == 4
    assert whole == pytest.approx(alone.max(), rel=1e-4)
    assert heat.shape == (fitted.size, fitted.size)
    assert np.isfinite(heat).all()
    known, store = FileImages((path, squares[0]), ("long", "one"), rules), FeatureStore(None)
    checked = SyntheticAUROC(CheckImages(StoredImages(known, store), np.array([True, False])))
    rows = StoredImages(FileImages(tuple(squares), tuple(path.name for path in squares)), store)
    each = scores_of(fitted, fitted.inputs(rows))
    np.testing.assert_allclose(checked.scores(fitted), [each.max(), each[0]], rtol=1e-4)


def test_backbone_stays_frozen_in_training_mode(fitted, batch):
    frozen = [part for part in fitted.modules() if isinstance(part, Backbone)]
    before, whole = [copy.deepcopy(part.state_dict()) for part in frozen], copy.deepcopy(fitted.state_dict())
    fitted.train()
    fitted(batch)
    fitted.eval()
    for part, state in zip(frozen, before, strict=True):
        for key, value in part.state_dict().items():
            torch.testing.assert_close(value, state[key], rtol=0, atol=0)
        assert not any(p.requires_grad for p in part.parameters())
    fitted.load_state_dict(whole)  # a student's own statistics may have moved


class Kept(Loop):
    """Keeps the checkpoint behind the first batch of each phase, as a process that dies then leaves it.

    ``moved`` names what moved although it rests: a buffer of a block without a parameter that the phase learns, and
    running statistics in a closed-form phase.
    """

    def __init__(self, *given) -> None:
        super().__init__(*given)
        self.kept: dict[int, Path] = {}
        self.moved: list[str] = []
        self.begun = 0  # phases

    def _due(self) -> bool:
        return self.position["phase"] not in self.kept

    def _save(self, extra=None) -> None:
        due = self._due()
        super()._save(extra)
        if due and self.position["step"]:
            folder = self.checkpoint.folder
            self.kept[self.position["phase"]] = folder.with_name(f"{folder.name}-{self.position['phase']}")
            shutil.copytree(folder, self.kept[self.position["phase"]])

    def _fit(self, phase) -> None:
        statistics = {name for name, part in self.detector.named_modules() if hasattr(part, "running_mean")}
        self._watch(phase, super()._fit, statistics)

    def _optimise(self, phase) -> None:
        learned = {id(p) for player in phase.players for p in player.parameters}
        parts = {name: [id(p) for p in part.parameters()] for name, part in self.detector.named_modules()}
        self._watch(phase, super()._optimise, {n for n, own in parts.items() if own and learned.isdisjoint(own)})

    def _watch(self, phase, run, resting: set[str]) -> None:
        def buffers():
            named = self.detector.named_buffers()
            return {n: b.clone() for n, b in named if any(n.startswith(f"{part}.") for part in resting)}

        assert len(phase.table) > phase.batch_size, "the first batch is to be the middle of the phase"
        self.begun, before = self.begun + 1, buffers()
        run(phase)
        self.moved += [f"{phase.name}: {n}" for n, b in buffers().items() if not torch.equal(b, before[n])]


@pytest.fixture(scope="session")
def kept(case, images, store, tmp_path_factory):
    """The training of ``begun`` once more, with a checkpoint in each of its phases."""
    folder = tmp_path_factory.mktemp("kept") / "checkpoint"
    return looped(case, images, store, folder, Kept, **a_few_steps(case))


def test_same_seed_gives_the_same_weights(begun, kept):
    for key, value in begun.detector.state_dict().items():
        torch.testing.assert_close(kept.detector.state_dict()[key], value, rtol=0, atol=0)


def test_what_does_not_learn_in_a_phase_does_not_move_in_it(kept):
    assert not kept.moved


def test_a_training_killed_in_any_phase_resumes_as_if_it_had_not_been(case, kept, images, store, batch):
    """What the new process starts from is of another seed: all of it must come from the checkpoint."""
    assert sorted(kept.kept) == list(range(kept.begun))
    whole, scores = kept.detector.state_dict(), scored(kept.detector, batch)
    for folder in kept.kept.values():
        resumed = looped(case, images, store, folder, seed=1, **a_few_steps(case))
        assert resumed.history == kept.history
        for key, value in resumed.detector.state_dict().items():
            torch.testing.assert_close(value, whole[key], rtol=0, atol=0, msg=f"{folder.name}: {key}")
        for one, other in zip(scored(resumed.detector, batch), scores, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@torch.inference_mode()
def scored(detector, batch: torch.Tensor):
    return detector(batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_killed_training_resumes_on_a_gpu_and_scores_as_on_the_cpu(
    case, precision, images, store, batch, tmp_path, monkeypatch
):
    fabric = Fabric(accelerator="gpu", devices=1, precision=precision)
    cut = looped(case, images, store, tmp_path / "cut", Kept, fabric=fabric).kept[0]
    detector = trained(case, images, store, cut, fabric=fabric)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # float32 here is float32 there
    with torch.inference_mode():
        there, here = detector(batch.cuda()), detector.cpu()(batch)
    for one, other in zip(there, here, strict=True):
        assert torch.isfinite(other).all()
        torch.testing.assert_close(one.cpu(), other, rtol=1e-2, atol=1e-2 * float(here.map.max() - here.map.min()))


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_of_the_two_kinds(name, images, store):
    phases = list(create(name, settings_for(name, "tiny")).phases(FitImages(images, store)))
    assert {isinstance(s, OnePass | Optimise) for s in phases} == {True}


@pytest.mark.parametrize("name", [n for n in NAMES if hasattr(settings_for(n, "cpu"), "draws")])
def test_few_images_get_more_epochs(name, images, store):
    def longest(draws: int) -> int:
        made = create(name, settings_for(name, "tiny", {"draws": draws}))
        return max(s.epochs for s in made.phases(FitImages(images, store)) if isinstance(s, Optimise))

    assert settings_for(name, "cpu").draws == 600 * settings_for(name, "cpu").epochs
    assert longest(0) == settings_for(name, "tiny").epochs
    assert longest(191) == 10  # 20 images
