"""The benchmark of work pools: its project is one that Loupe takes, and its page says what differs."""

import yaml

from benchmarks.production import pools
from components.pipeline.params import load_params, matrix


def test_its_params_are_taken_and_have_the_matrix_of_dvc(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(pools.values(["alps", "patchcore"], "tiny", {"one": {}, "two": {}})))
    params = load_params(file)
    assert list(params.pipeline.pools) == list(pools.POOLS.values())
    assert params.benchmark.runs == matrix(params.benchmark)
    assert params.train.preset == "tiny"


def test_the_page_has_the_ratio_and_what_differs():
    found = {
        "detectors": ["alps", "patchcore"],
        "preset": "tiny",
        "pictures": "screw",
        "commit": "abc",
        "seconds": {"here": 40.0, "pools": 60.0},
        "differ": [],
    }
    assert "| pools | 60 | 1.50 |" in pools.page(found)
    assert "are the same, byte for byte" in " ".join(pools.page(found).split())
    assert "differ for alps" in " ".join(pools.page(found | {"differ": ["alps"]}).split())


def test_metrics_are_compared_by_their_bytes(tmp_path):
    file = tmp_path / "artefacts/product/alps/evaluation/metrics.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}\n")
    assert pools._metrics(tmp_path, "alps") == b"{}\n"
