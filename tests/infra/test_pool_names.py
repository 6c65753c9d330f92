"""The pools that docs/several-machines.md names are those that the files of infra/ have workers for."""

import re

from components.core.settings import build
from components.pipeline.params import Pipeline
from tests.infra.reading import PROJECT, UNITS, commands, told

PAGE = (PROJECT / "docs/several-machines.md").read_text()


def pools_by_place():
    """Where a worker is started, and of which pool."""
    found = [(place, words) for place, words in commands() if words[:3] == ["prefect", "worker", "start"]]
    return {place: words[words.index("--pool") + 1].rstrip(",") for place, words in found}


def test_containers_and_cluster_have_a_worker_of_the_pool_that_the_page_names():
    known = pools_by_place()
    for way, place in (("containers", "trainer.Dockerfile"), ("Kubernetes", "worker")):
        (row,) = re.findall(rf"^\| {way} \| `([\w-]+)` \|", PAGE, re.MULTILINE)
        assert known[place] == row


def test_the_unit_on_the_page_is_there_and_takes_its_pool_from_its_name():
    (named,) = set(re.findall(r"`(?:systemctl enable --now )?(loupe-worker@)[\w-]+`", PAGE))
    (unit,) = [unit for unit in UNITS if unit.stem == named]
    assert pools_by_place()[unit.name] == "%i"
    assert not any("loupe-prefect" in line for line in told(unit, "After"))  # the server is on another machine


def test_the_example_of_the_page_is_one_that_params_yaml_takes():
    import yaml

    block = re.search(r"^ +store: s3.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)[0]
    given = yaml.safe_load(re.sub(r"^ {7}", "", block, flags=re.MULTILINE))
    pools = build(Pipeline, given["pipeline"], "the page").pools
    assert pools["loupe-gpu"].device == "h100"
    assert pools["loupe-cpu"].takes("patchcore@384")
    assert not pools["loupe-cpu"].takes("uniad")
