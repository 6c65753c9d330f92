"""``loupe bench sizes``: its cases are settings that exist, one slip is one sentence, and the page has a row a case."""

import pytest

from benchmarks.production import sizes
from components.core.errors import DataError, SettingsError
from components.detectors.catalogue import settings_for


def entry(seconds):
    fitted = {"seconds": seconds, "features": 2.4, "peak_mb": 1234, "pictures": 64}
    return {"fit": fitted, "score": {"ms": 56.4, "peak_mb": 789, "pictures": 32}}


def test_the_cases_are_what_their_names_say():
    for name, case in sizes.CASES.items():
        settings = settings_for(sizes.DETECTOR, "cpu", case.settings)  # raises where there is no such setting
        side, _, squares = name.partition(" in ")
        assert settings.backbone.size == int(side)
        assert squares == (f"{case.tiles} x {case.tiles} squares" if case.tiles else "")


def test_the_page_has_a_row_for_each_case_in_their_order_and_those_of_older_files_behind():
    found = {"older": entry(9.0), "512": entry(40.0), "256": entry(10.6)}
    rows = [line for line in sizes.page(found).splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == ["| 256", "| 512", "| older"]
    assert rows[0] == "| 256 | 11 | 2 | 1,234 | 56 | 789 |"
    assert "64 pictures fitted, 32 scored" in sizes.page(found)


def test_a_slip_in_a_name_or_a_folder_without_pictures_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="did you mean 256"):
        sizes.main(["265"])
    monkeypatch.setattr(sizes, "PICTURES", tmp_path)
    with pytest.raises(DataError, match="has 0 of 48 pictures"):
        sizes.pictures()
