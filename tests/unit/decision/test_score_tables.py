"""Score records as files and as lines."""

import json
from pathlib import Path

import pandas as pd
import pytest

from components.core.errors import DataError
from components.decision.tables import PROBLEM, WORST, require_form, told, write_records


def record(name, score, problem=None, **more):
    known = {"image_id": name, "score": score, "threshold": 2.0, "p_value": 0.01, "embedding": [0.5, 0.25], **more}
    return {"decision": "anomalous" if score > 2 else "normal", PROBLEM: problem} | known


def test_the_least_likely_pictures_come_first_and_the_rest_is_counted():
    many = [record(f"{number}.png", 3.0 + number) for number in range(WORST + 2)]
    lines = told([*many, record("good.png", 1.0), record("broken.png", 9.0, "no picture")])
    assert lines[0] == f"{WORST + 2} of {WORST + 3} pictures are anomalous, worst first:"
    assert lines[1] == f"  {WORST + 1}.png: score 14 above 2, p 0.01"
    assert lines[-1] == "  and 2 more"
    assert "broken" not in "".join(lines)


def test_a_group_with_a_low_threshold_is_judged_by_its_own():
    near, far = record("near.png", 9.0, threshold=8.5), record("far.png", 3.0, threshold=1.0)
    assert [line.split(":")[0].strip() for line in told([near, far])[1:]] == ["far.png", "near.png"]


def test_nothing_anomalous_is_one_line():
    assert told([record("good.png", 1.0)]) == ["0 of 1 pictures are anomalous"]


def test_absent_values_are_empty_in_every_form(tmp_path):
    records, columns = [record("a.png", 3.0), {"image_id": "b.png", PROBLEM: "broken"}], ("image_id", "score", PROBLEM)
    sheet = pd.read_csv(write_records(records, tmp_path / "out.csv", columns))
    assert sheet["score"].isna().tolist() == [False, True]
    listed = json.loads(write_records(records, tmp_path / "out.json", columns).read_text())
    assert listed[1] == {"image_id": "b.png", "score": None, PROBLEM: "broken"}
    assert pd.read_parquet(write_records(records, tmp_path / "out.parquet", columns))["score"].isna().sum() == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out.csv", "out.json", "out.parquet"}


def test_another_suffix_is_refused():
    with pytest.raises(DataError, match="its suffix says how it is written"):
        require_form(Path("scores.xls"))
