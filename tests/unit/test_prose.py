"""What `make check` says of lines and sentences of the documents; and licences as their sources tell them."""

import json
import re
from pathlib import Path

import pytest

from components.datasets.adapters import ADAPTERS
from tests import prose


@pytest.mark.parametrize("page", prose.pages(), ids=str)
def test_lines_and_sentences_are_short_enough_to_read(page):
    assert prose.faults(page) == []


def page(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_long_sentence_is_found_and_what_is_none_is_not(tmp_path):
    long = " ".join(["a"] * 41)
    assert prose.faults(page(tmp_path, "a.md", f"Short. {long}.\n"))[-1].endswith(f"a.md: 41 words: {long}")
    assert prose.faults(page(tmp_path, "faq.md", " ".join(["a"] * 26))) != []
    for none in (f"    {long}", f"```\n{long}\n```", f"| {long} |", f"# {long}", f"<!-- {long} -->"):
        assert prose.faults(page(tmp_path, "a.md", none)) == []
    half = " ".join(["a"] * 21)
    for apart in (
        f"{half}. {half}",
        f"- {half}\n- {half}",
        f"{half}\n\n{half}",
        f"{half}; {half}",
        f"{half}:\n\n{half}",
    ):
        assert prose.faults(page(tmp_path, "a.md", apart)) == []
    assert prose.faults(page(tmp_path, "a.md", f"{half}, i.e. {half}")) != []


def test_a_long_line_is_found_wherever_it_stands(tmp_path):
    assert prose.faults(page(tmp_path, "a.md", f"| {'x' * 120} |\n")) == [f"{tmp_path / 'a.md'}:1: 124 characters"]


def row(text: str, *words: str) -> list[str]:
    """The cells of the row of a table that holds all *words*."""
    lines = [line for line in text.splitlines() if line.startswith("|") and all(word in line for word in words)]
    assert lines, words
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_the_licences_of_the_readme_are_those_of_weights_and_data_sets():
    readme, sets = Path("README.md").read_text(), Path("docs/data.md").read_text()
    for name, item in json.loads(Path("components/backbones/manifest.json").read_text()).items():
        told = row(readme, "weights", f"Lite{name[-1]}" if name.endswith("1") else "Lite0")[1]
        assert told == f"{item['licence']}; {item['trained_on']}", name
    stated = re.findall(r"^\| `(\w+)`[^|]*\| `\w+` \| ([^|;]+)", sets, re.MULTILINE)
    for name, licence in stated:
        if licence.strip() != "the same":
            assert licence.strip().split(" ")[0] in row(readme, f"`{name}`")[1], name
    for name in ("elpv", "mtd", "bsdata", "kolektor_sdd", "ucsd_ped2", "digits"):
        assert row(readme, f"`{name}`")[1].split(";")[0] == ADAPTERS[name].licence.split(";")[0]
