"""Bundles of other versions are opened and score as they did, or are refused with what to do (docs/upgrading.md)."""

import json
import shutil

import numpy as np
import onnx
import pytest

from components.core.artefacts import file_hash
from components.core.errors import BundleError, CalibrationError
from components.decision.bundle import Bundle
from tests.conftest import tile


@pytest.fixture
def old(bundle, tmp_path):
    """A copy that ``rewritten`` makes older, and what it answered before."""
    shutil.copytree(bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def rewritten(folder, name, change):
    """Change a JSON file of a bundle as an older version would have written it, hash and all."""
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))
    if name != "manifest.json":
        rehashed(folder, name)


def rehashed(folder, name):
    rewritten(folder, "manifest.json", lambda values: values["files"].update({name: file_hash(folder / name)}))


def test_what_older_versions_did_not_say_is_as_it_was_then(old):
    answer = Bundle.open(old).answer(tile(100))
    for key in ("model", "map", "rule", "folds", "resolution", "groups"):
        rewritten(old, "calibration.json", lambda values, key=key: values.pop(key, None))
    assert Bundle.open(old).answer(tile(100)).score == answer.score
    rewritten(old, "manifest.json", lambda values: values.pop("decoding"))
    opened = Bundle.open(old)
    assert opened.decoding.roi is None
    assert opened.answer(tile(100)).decided.threshold == answer.decided.threshold
    assert np.array_equal(opened.answer(tile(100)).map, answer.map)


@pytest.mark.parametrize("key", ["model", "data", "groups"])
def test_a_manifest_that_says_too_little_is_refused(old, key):
    rewritten(old, "manifest.json", lambda values: values.pop(key))
    with pytest.raises(BundleError, match=f"says nothing of '{key}'; export the bundle again"):
        Bundle.open(old)


@pytest.mark.parametrize("key", ["false_alarm_interval", "scores", "n"])
def test_a_calibration_that_says_too_little_is_refused(old, key):
    rewritten(old, "calibration.json", lambda values: values.pop(key))
    with pytest.raises(CalibrationError, match=f"says nothing of '{key}'; calibrate again"):
        Bundle.open(old)


def test_a_bundle_of_a_newer_version_is_refused(old):
    rewritten(old, "manifest.json", lambda values: values["decoding"].update(lens="fisheye"))
    with pytest.raises(BundleError, match=r"lens is not a setting.*: a newer Loupe made the bundle; install that one"):
        Bundle.open(old)


def test_a_graph_without_embedding_is_refused(old):
    graph = onnx.load(old / "model.onnx")
    (left,) = [output for output in graph.graph.output if output.name == "embedding"]
    graph.graph.output.remove(left)
    onnx.save(graph, old / "model.onnx")
    rehashed(old, "model.onnx")
    with pytest.raises(BundleError, match="an older Loupe made it, without embedding; fit or export it again"):
        Bundle.open(old)
