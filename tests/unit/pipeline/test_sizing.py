"""Sizes by the pictures, as asked for and within a budget; what the pipeline makes of its list. Nothing is trained."""

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from components.core.artefacts import write_json
from components.core.errors import SettingsError
from components.core.settings import plain
from components.datasets.settings import DataSettings
from components.detectors.catalogue import CATALOGUE
from components.pictures.decoding import Decoding
from components.pipeline.params import Params, Pipeline, View, load_params
from components.pipeline.retraining import Retraining
from components.pipeline.sizing import (
    Asked,
    Sized,
    agree,
    forward_ms,
    members_file,
    plan,
    plans,
    reference_of,
    sizes_by_pictures,
    suited,
    with_overrides,
)
from components.pipeline.stages import Stages
from components.training.settings import TrainSettings

NEVER = None  # in place of a measure: calling it fails


def viewed(tmp_path, width=2000, height=2000, good=200, pipeline=None, **train):
    """Stages of a view that is split; a tenth of its pictures is twice as large."""
    params = Params(
        {"photos": DataSettings("folder", "photos")},
        {"run": View("photos")},
        artefacts=str(tmp_path / "artefacts"),
        pipeline=pipeline or Pipeline(("run",)),
        train=TrainSettings(**train),
    )
    large = [2 if i < good // 10 else 1 for i in range(good)]
    table = pd.DataFrame({"width": width, "height": height, "label": "normal", "split": "fit"}, index=range(good))
    table[["width", "height"]] = table[["width", "height"]].mul(large, axis=0)
    table.loc[table.index % 5 == 0, "split"] = "calibrate"
    defects = pd.DataFrame({"width": 64, "height": 64, "label": "anomalous", "split": "test"}, index=range(3 * good))
    (folder := tmp_path / "artefacts/run/split").mkdir(parents=True)
    pd.concat([table, defects], ignore_index=True).to_parquet(folder / "split.parquet")
    return Stages(params, "run", tmp_path)


def test_all_is_what_can_learn_single_pictures(tmp_path):
    stages = viewed(tmp_path)
    found = suited(stages, ["all"])
    assert set(CATALOGUE) - set(found) == {"stm_ae"}
    assert [sized.detector for sized in plans(stages, found, Asked(256))] == found
    assert suited(stages, ["patchcore"]) == ["patchcore"]
    named = suited(stages, ["all", "stm_ae"])  # who names it is told what it needs
    with pytest.raises(SettingsError, match="stm_ae looks at clips"):
        plans(stages, named, Asked(256))


def test_all_has_the_detector_of_clips_where_there_are_clips(tmp_path):
    stages = viewed(tmp_path)
    stages = replace(stages, params=replace(stages.params, data={"photos": DataSettings("clips", "photos")}))
    assert set(suited(stages, ["all"])) == set(CATALOGUE)


@pytest.mark.parametrize(
    ("width", "height", "members"),
    [
        (300, 300, ("patchcore",)),
        (64, 64, ("patchcore",)),
        (383, 383, ("patchcore",)),
        (384, 900, ("patchcore@256", "patchcore@384")),
        (1250, 500, ("patchcore@256", "patchcore@384")),
        (500, 1250, ("patchcore@256", "patchcore@384")),
        (6000, 4000, ("patchcore@256", "patchcore@384", "patchcore@512")),
    ],
)
def test_auto_enlarges_no_picture(width, height, members, tmp_path):
    found = plan(viewed(tmp_path, width, height), "patchcore", Asked(), NEVER)
    assert found.members == members
    assert f"seen at a time has {min(width, height)} pixels on the shorter side" in found.why
    assert found.names == (members if len(members) == 1 else (*members, "-".join(members)))


@pytest.mark.parametrize(
    ("width", "height", "size", "smallest", "advice"),
    [
        (6000, 4000, "auto", 31.2, "--tiles 5 (data.tiles) sees defects from 8 pixels, in 40 squares"),
        (6000, 4000, 256, 62.5, "--tiles 11 (data.tiles) sees defects from 7 pixels"),
        (2000, 2000, 256, 31.2, "--tiles 5 (data.tiles) sees defects from 8 pixels, in 25 squares"),
        (2000, 2000, "auto", 15.6, ""),
        (300, 300, "auto", 4.7, ""),
    ],
)
def test_what_is_too_small_to_be_seen_is_said_before_the_training(
    width, height, size, smallest, advice, tmp_path, caplog
):
    caplog.set_level(logging.WARNING, "loupe")
    found = plan(viewed(tmp_path, width, height), "patchcore", Asked(size), NEVER)
    assert found.told["smallest_defect"] == pytest.approx(smallest, abs=0.05)
    assert (advice in caplog.text) if advice else not caplog.text


@pytest.mark.parametrize(("tiles", "sizes", "squares"), [(1, 2, 3), (2, 1, 12)])
def test_what_counts_is_the_square_that_is_seen(tmp_path, tiles, sizes, squares):
    """500 x 1250: three squares of 500, or twelve of 286; a picture takes as long as all of its squares."""
    stages = viewed(tmp_path, 1250, 500)
    write_json(stages.folder / "split" / "decoding.json", Decoding(tiles=tiles).kept)
    assert len(plan(stages, "patchcore", Asked(), NEVER).members) == sizes
    found = plan(stages, "patchcore", Asked(latency_ms=1000), lambda *_: 10)
    assert f"{10 * sizes * squares} ms a picture" in found.why


def test_sizes_go_by_that_of_the_preset(tmp_path):
    assert sizes_by_pictures(224, 4000) == (224, 336, 448)
    stages = viewed(tmp_path, preset="paper")
    assert plan(stages, "padim", Asked(), NEVER).members == ("padim@224", "padim@336", "padim@448")


def test_what_has_one_size_keeps_it(tmp_path):
    stages = viewed(tmp_path)
    found = plan(stages, "fastflow", Asked(), NEVER)
    assert (found.members, found.overrides) == (("fastflow",), {})
    assert "each size more would be another training of fastflow" in found.why
    tiny = viewed(tmp_path / "tiny", preset="tiny")
    assert plan(tiny, "patchcore", Asked(), NEVER).members == ("patchcore",)
    for number, given in enumerate(({"backbone.size": 320}, {"backbone": {"size": 320}})):
        stages = viewed(tmp_path / str(number), detectors={"patchcore": given})
        assert plan(stages, "patchcore", Asked(), NEVER).members == ("patchcore",)
    assert plan(viewed(tmp_path / "named"), "patchcore@320", Asked(), NEVER).members == ("patchcore@320",)


def test_where_folds_calibrate_sizes_are_averaged_too(tmp_path):
    stages = viewed(tmp_path, good=40)
    assert stages.folds == 5
    assert plan(stages, "patchcore", Asked(), NEVER).members == ("patchcore@256", "patchcore@384", "patchcore@512")
    assert plan(stages, "patchcore", Asked("256,384"), NEVER).members == ("patchcore@256", "patchcore@384")


def test_minutes_are_those_of_all_trainings_of_the_folds(tmp_path):
    """40 pictures in eight passes of 10 ms, and 20 s for what does not grow: .39 minutes a training."""
    for good, minutes in ((40, 6 * 23.2 / 60), (400, 52 / 60)):
        stages = viewed(tmp_path / str(good), good=good)
        found = plan(stages, "patchcore@256", Asked(minutes=60), lambda *_: 10)
        assert f"about {minutes:.1f} minutes to fit" in found.why


def test_sizes_that_are_asked_for_are_taken_whatever_the_pictures(tmp_path):
    stages = viewed(tmp_path, 64, 64)
    assert plan(stages, "fastflow", Asked("512, 256"), NEVER).members == ("fastflow@256", "fastflow@512")
    assert plan(stages, "patchcore", Asked((384,)), NEVER).members == ("patchcore@384",)
    assert plan(stages, "patchcore", Asked("256"), NEVER).members == ("patchcore",)  # that is its size


def test_a_bank_is_shared_out(tmp_path):
    given = {"patchcore": {"bank_size": 1000}, "patchcore@512": {"bank_size": 70, "blur": 2.0}}
    stages = viewed(tmp_path, detectors=given)
    found = plan(stages, "patchcore", Asked(), NEVER)
    method = with_overrides(stages, [found]).params.train.method
    assert [method(name).bank_size for name in found.members] == [333, 333, 70]
    assert [method(name).blur for name in found.members] == [4.0, 4.0, 2.0]
    assert method("patchcore").bank_size == 1000
    assert plan(stages, "patchcore@512", Asked(), NEVER).overrides == {}


def by_rows(_name, settings):
    """A made-up machine: a millisecond for a thousand rows and for ten thousand pixels."""
    return settings.bank_size / 1000 + settings.backbone.size**2 / 10_000


@pytest.mark.parametrize(
    ("budget", "sizes"),
    [
        ({"latency_ms": 58.0}, (256, 384, 512)),  # 6.6 + 14.7 + 26.2 of the pixels, 10 of the bank
        ({"latency_ms": 57.0}, (256, 384)),
        ({"latency_ms": 31.2}, (256,)),
        ({"minutes": 2.6}, (256, 384, 512)),  # 8 x 200 x 57.5 ms + 3 x 20 s
        ({"minutes": 2.4}, (256, 384)),
        ({"minutes": 2.6, "latency_ms": 32.0}, (256, 384)),
    ],
)
def test_the_largest_sizes_are_left_out_until_the_rest_fits(budget, sizes, tmp_path):
    found = plan(viewed(tmp_path), "patchcore", Asked(**budget), by_rows)
    assert found.members == (tuple(f"patchcore@{size}" for size in sizes) if len(sizes) > 1 else ("patchcore",))
    assert "ms a picture, about" in found.why


def test_what_no_size_can_keep_is_refused_with_the_number(tmp_path):
    stages = viewed(tmp_path)
    with pytest.raises(SettingsError, match="patchcore at 256 pixels needs 17 ms a picture where 5 may be"):
        plan(stages, "patchcore", Asked(latency_ms=5.0), by_rows)
    with pytest.raises(SettingsError, match=r"at 256 pixels needs about 0\.8 minutes where 0\.5 may be"):
        plan(stages, "patchcore", Asked(minutes=0.5), by_rows)
    with pytest.raises(SettingsError, match="at 256/512 pixels needs 43 ms a picture where 42 may be; raise the limit"):
        plan(stages, "patchcore", Asked("256,512", latency_ms=42.0), by_rows)  # what is typed is not thinned out


def test_minutes_refuse_nothing_that_learns_by_gradients_as_its_epochs_are_cut(tmp_path):
    found = plan(viewed(tmp_path), "fastflow", Asked(minutes=0.01), lambda *_: 1.0)
    assert found.members == ("fastflow",)
    assert "minutes" not in found.why


def test_a_pass_is_measured_at_its_full_size():
    tiny = TrainSettings("tiny").method
    assert forward_ms("patchcore", tiny("patchcore")) > 0
    large = {name: forward_ms(name, tiny(name)) for name in ("padim@64", "padim@256")}
    assert large["padim@256"] > large["padim@64"] > 0


@pytest.mark.parametrize(
    ("name", "given", "size"),
    [
        ("patchcore@384", {}, "512"),
        ("patchcore@384", {"backbone.size": 512}, "auto"),
        ("patchcore", {"backbone": {"size": 512}}, 384),
        ("patchcore@256", {}, "256,384"),
        ("alps", {"size": 128}, (256,)),
    ],
)
def test_different_sizes_for_one_detector_are_told_in_one_sentence(name, given, size):
    with pytest.raises(SettingsError, match=r"is asked for at different sizes: .*; leave all but one out"):
        agree(name, given, size)
    agree("patchcore@384", {"backbone.size": 384}, "384")
    agree("patchcore@384", {"bank_size": 3}, "auto")


def listed(tmp_path, *names, ensembles=(), size="auto", **train):
    pipeline = Pipeline(("run",), names, ensembles, size)
    stages = viewed(tmp_path, pipeline=pipeline, **train)
    return stages, plans(stages, names, Asked(size), [name for members in ensembles for name in members], NEVER)


def test_the_pipeline_makes_one_candidate_of_a_bank_detector(tmp_path):
    stages, (flow, patchcore) = listed(tmp_path, "fastflow", "patchcore")
    assert flow.names == ("fastflow",)
    assert patchcore.names == (*patchcore.members, "patchcore@256-patchcore@384-patchcore@512")
    assert reference_of([flow, patchcore]) == patchcore.name
    file = members_file(stages, [flow, patchcore], Path("params.yaml"), tmp_path / "params.yaml")
    read, known = load_params(file), with_overrides(stages, [flow, patchcore]).params
    assert (read.train, read.data, read.artefacts) == (known.train, known.data, known.artefacts)
    assert read.settings_of("patchcore@512").bank_size == 3333


def test_what_the_list_spells_out_is_taken_as_it_is_written(tmp_path):
    stages, found = listed(tmp_path / "a", "patchcore", "patchcore@384", "padim")
    assert [sized.members[0] for sized in found] == ["patchcore", "patchcore@384", "padim@256"]
    assert reference_of(found) == "patchcore"
    assert reference_of(found[1:]) == "patchcore@384"
    assert members_file(stages, found[:2], Path("params.yaml"), tmp_path / "params.yaml") == Path("params.yaml")
    _, found = listed(tmp_path / "b", "fastflow", "patchcore", ensembles=(("fastflow", "patchcore"),))
    assert [sized.members for sized in found] == [("fastflow",), ("patchcore",)]
    _, found = listed(tmp_path / "c", "fastflow", "patchcore", size=384)
    assert [sized.members for sized in found] == [("fastflow@384",), ("patchcore@384",)]
    with pytest.raises(SettingsError, match="at different sizes: its settings 320, size 384"):
        listed(tmp_path / "d", "patchcore", size=384, detectors={"patchcore": {"backbone.size": 320}})


def test_the_pipeline_as_it_is_shipped_stays_as_it_was(tmp_path):
    params = load_params(Path("params.yaml"))
    stages = viewed(tmp_path, 300, 300, pipeline=params.pipeline)
    found = plans(stages, params.pipeline.detectors, Asked(params.pipeline.size), (), NEVER)
    assert [sized.names for sized in found] == [("padim",), ("patchcore",)]
    assert reference_of(found) == "patchcore"
    assert members_file(stages, found, Path("params.yaml"), tmp_path / "params.yaml") == Path("params.yaml")


def test_the_flow_trains_members_and_puts_them_together_once(tmp_path, monkeypatch):
    import flows.train as flow

    stages, _ = listed(tmp_path, "fastflow", "patchcore")
    file = tmp_path / "params.yaml"
    values = plain(stages.params)
    file.write_text(yaml.safe_dump({key: values[key] for key in ("data", "views", "artefacts", "pipeline", "train")}))
    done = []

    def noted(name):
        return lambda *given: done.append((name, *given[1:]))

    for name in ("bring_data", "check_data", "prepare", "combine", "fit", "register", "rank", "evaluate"):
        monkeypatch.setattr(flow, name, noted(name))
    monkeypatch.setattr(flow, "choose_sizes", flow.choose_sizes.fn)
    monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("loupe"))
    flow.train.fn(file, None, None, tmp_path)
    members = ("patchcore@256", "patchcore@384", "patchcore@512")
    ensemble, derived = "-".join(members), tmp_path / "artefacts/run/params.yaml"
    trained = [entry for entry in done if entry[0] in ("fit", "combine")]
    assert trained == [*(("fit", name, derived) for name in ("fastflow", *members)), ("combine", ensemble)]
    (registered,) = [entry[1:] for entry in done if entry[0] == "register"]
    assert registered[1:] == (["fastflow", *members, ensemble], ensemble)


def test_a_retraining_takes_sizes_by_its_own_pictures(tmp_path):
    stages, _ = listed(tmp_path, "fastflow", "patchcore", ensembles=(("fastflow", "patchcore"),))
    job = Retraining(stages.params, SimpleNamespace(id="verdict", model="run"))
    job.folder.mkdir(parents=True)
    job.__dict__["stages"] = stages  # behind write_version, which needs a registry
    (challenger,) = job.plan()
    assert challenger.names == ("patchcore@256", "patchcore@384", "patchcore@512", challenger.name)
    assert load_params(job.derived).train.method("patchcore@384").bank_size == 3333


def test_keys_of_prefect_take_every_name():
    from flows.train import artifact_key

    assert artifact_key("gallery", "kolektor_sdd", "cma_ae@384") == "gallery-kolektor-sdd-cma-ae-384"


def test_a_candidate_of_one_member_is_that_member():
    assert Sized("patchcore", ("patchcore@384",), "").names == ("patchcore@384",)
