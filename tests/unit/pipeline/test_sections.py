"""What fit takes from --set and --params besides settings of the detector."""

from pathlib import Path

import pytest

from components.core.errors import SettingsError
from components.pipeline.fit import FitRequest, stages_of
from components.pipeline.sections import put, sections_of


def params(sections, **more):
    return stages_of(FitRequest("patchcore", Path("photos"), sections=sections, **more), Path("work")).params


def test_keys_of_a_section_are_told_from_settings_of_the_detector():
    sections = {}
    for key, value in (
        ("validation.max_side", 30_000),
        ("validation.brightness", [0, 1]),
        ("data.max_pixels", 10**9),
        ("split.calibrate_share", 0.3),
        ("synthesis.area", [0.01, 0.05]),
        ("export.tolerance", 0.01),
        ("export.cascade.share", 0.5),
        ("evaluation.map_size", 128),
        ("train.preset", "tiny"),
        ("calibration.alpha", 0.1),
    ):
        assert put(sections, key, value)
    assert not put(sections, "bank_size", 10)
    assert not put(sections, "backbone.size", 128)
    assert sections.pop("export") == {"tolerance": 0.01, "cascade": {"share": 0.5}}
    made = params(sections)
    assert made.validation["photos"].max_side == 30_000
    assert made.validation["photos"].brightness == (0.0, 1.0)
    assert made.data["photos"].max_pixels == 10**9
    assert made.split.calibrate_share == 0.3
    assert made.synthesis.area == (0.01, 0.05)
    assert made.evaluation.map_size == 128
    assert (made.train.preset, made.calibration.alpha) == ("tiny", 0.1)
    assert params(sections, preset="paper", alpha=0.2).train.preset == "paper"  # options of their own go first


def test_slips_are_told():
    with pytest.raises(SettingsError, match=r"validation\.max_sise is not a setting; did you mean max_side"):
        params({"validation": {"max_sise": 3}})
    with pytest.raises(SettingsError, match=r"data\.adapter: is told by other options"):
        put({}, "data.adapter", "mtd")


def test_a_params_file_is_read_by_the_data_set_s_name_or_as_the_contract_itself(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(
        "data: {photos: {adapter: folder, name: photos, good: [good, OK]}, other: {adapter: mtd, name: other}}\n"
        "validation: {photos: {max_side: 30000}, other: {max_side: 1}}\n"
        "train: {preset: tiny, detectors: {patchcore: {bank_size: 7}}}\nservice: {port: 1}\n"
    )
    sections, methods = sections_of(file, "photos", "patchcore")
    assert sections == {
        "data": {"good": ["good", "OK"]},
        "validation": {"max_side": 30000},
        "train": {"preset": "tiny"},
    }
    assert methods == {"patchcore": {"bank_size": 7}}
    assert sections_of(file, "third", "fastflow") == ({"train": {"preset": "tiny"}}, {})
    file.write_text("validation: {max_side: 30000}\n")
    assert sections_of(file, "photos", "patchcore") == ({"validation": {"max_side": 30000}}, {})
    for text, said in (("- 1", "holds no sections"), ("a: [", "is no YAML"), ("split: 3", "split is 3")):
        file.write_text(text)
        with pytest.raises(SettingsError, match=said):
            sections_of(file, "photos", "patchcore")
    with pytest.raises(SettingsError, match="not found"):
        sections_of(tmp_path / "nowhere", "photos", "patchcore")


def test_the_project_s_own_file_is_taken():
    sections, methods = sections_of(Path("params.yaml"), "mtd", "patchcore")
    assert params(sections).validation["photos"].expect_masks
    assert methods == {}


def test_settings_of_a_size_come_with_those_of_the_detector(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(
        "train: {detectors: {patchcore: {bank_size: 7, blur: 1.0}, patchcore@384: {blur: 2.0}, padim@384: {dims: 3}}}\n"
    )
    for detector in ("patchcore", "patchcore@384"):
        sections, methods = sections_of(file, "photos", detector)
        assert methods == {"patchcore": {"bank_size": 7, "blur": 1.0}, "patchcore@384": {"blur": 2.0}}
    asked = FitRequest("patchcore@384", Path("photos"), sections=sections, methods=methods, overrides={"bank_size": 9})
    method = stages_of(asked, Path("work")).params.train.method
    assert (method("patchcore@384").bank_size, method("patchcore@384").blur) == (9, 2.0)
    assert method("patchcore").bank_size == 7
