"""The rows of the video benchmark: variants of one detector, and detectors that see single frames."""

import pytest
import yaml

from benchmarks.quality import video
from components.detectors.catalogue import detector_class, settings_for

TEST = {"auroc": 0.8, "interval": [0.7, 0.9], "micro": 0.8, "macro": 0.8, "macro_clips": 4}
TRAINED = {
    "test": TEST,
    "beyond difference": [-0.1, 0.1],
    "pixel": {"auroc": 0.9, "ap": 0.2, "aupro": 0.6},
    "false alarms": 0.1,
    "misses": 0.2,
    "synthetic": 0.9,
    "seconds": {"train": 60.0, "train CPU": 50.0},
    "onnx": {"fps": 30.0, "cpu_ms": 20.0},
}


@pytest.mark.parametrize("name", video.VARIANTS)
def test_variants_are_settings_that_the_detector_has(name):
    assert video.detector_of(name) == video.DETECTOR
    settings_for(video.DETECTOR, "cpu", video.VARIANTS[name])


@pytest.mark.parametrize("name", video.FRAME_BY_FRAME)
def test_frame_by_frame_are_detectors_of_pictures(name):
    assert not detector_class(video.detector_of(name)).clips


def test_each_row_is_trained_in_a_folder_of_its_own_with_its_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(video, "WORK", tmp_path / "work")
    params = {name: yaml.safe_load(video.variant_params(name).read_text()) for name in video.ROWS}
    assert len({values["artefacts"] for values in params.values()}) == len(video.ROWS)
    plain = params[video.PLAIN]["train"]["detectors"]
    assert plain[video.DETECTOR]["memories"] == "none"
    assert params[video.FULL]["train"]["detectors"] == plain | {video.DETECTOR: {}}


def test_an_anomaly_of_clips_alone_has_no_figure_of_a_detector_of_pictures():
    name = next(iter(video.FRAME_BY_FRAME))
    found = {
        video.DIFFERENCE: {"test": TEST},
        video.FULL: TRAINED | {"kinds": {"fast": 0.9, "graded_small": 0.8}},
        name: TRAINED | {"kinds": {"graded_small": 0.7}},
    }
    said = video.report(found)
    assert f"| {name} | - | 0.700 |" in said
    assert f"| {video.FULL} | 0.900 | 0.800 |" in said
    assert f"| {video.DIFFERENCE} | 0.800 (0.700 to 0.900) |  | 0.800 |" in said
