"""``loupe parts``: p-values of good parts out of the score log, as the service's rule for parts reads them."""

import json

import pytest

from components.core.errors import DataError, SettingsError
from components.decision.parts import Rule
from components.pipeline.parts import write_parts
from components.scorelog import table
from components.storage import open_store

VIEWS = ("top", "side")


def row(number, model="b" * 64, day="2026-11-03", values=(0.5, 0.25), decision="normal"):
    views = [
        {"id": f"{number}-{name}", "source": name, "p_value": p}
        for name, p in zip(VIEWS[::-1], values[::-1], strict=True)
    ]
    return {
        "record_id": f"part-{number}",
        "scored_at": f"{day}T10:00:{number:02d}.000000+00:00",
        "source": "top+side",
        "decision": decision,
        "p_value": None if decision == "error" else 0.5,
        "views": json.dumps(views),
        "model_version": model,
    }


@pytest.fixture
def address(tmp_path):
    """Two parts of an older model, then twenty of one model: one late, one with a view labelled a defect."""
    store, address = open_store(str(tmp_path / "log")), str(tmp_path / "log")
    old = [row(number, model="a" * 64, day="2026-11-01") for number in range(2)]
    new = [row(number, values=(0.5, number / 40)) for number in range(2, 22)]
    table.write(store, table.PARTS, "one", [*old, *new, row(30, decision="error")])
    said = {"record_id": "5-side", "labelled_at": "2026-11-03T11:00:00+00:00", "source": "side", "label": "defect"}
    table.write(store, table.LABELS, "one", [said])
    return address


def test_good_parts_of_the_newest_model_in_the_order_of_views(address, tmp_path):
    said = write_parts(address, VIEWS, tmp_path / "good.json")
    assert json.loads((tmp_path / "good.json").read_text()) == [[0.5, n / 40] for n in range(2, 22) if n != 5]
    assert said[:2] == [
        "2 parts were decided by another model and are left out",
        "1 parts have a picture labelled a defect and are left out",
    ]
    assert "19 good parts of model bbbbbbbbbbbb" in said[2]
    assert "an alpha of 0.05 or more" in said[2]
    rule = Rule.of(2, 1, 0.05, tmp_path / "good.json")
    assert rule.p_value([0.5, 0.01]) == 1 / 20  # below all good parts


def test_days_before_since_do_not_count(address, tmp_path):
    with pytest.raises(DataError, match="no decided part of top, side"):
        write_parts(address, VIEWS, tmp_path / "good.json", "2026-11-04")
    assert not (tmp_path / "good.json").exists()


def test_without_views_it_is_said_which_key_is_missing(address, tmp_path):
    with pytest.raises(SettingsError, match=r"service\.line\.part\.views"):
        write_parts(address, (), tmp_path / "good.json")


def test_another_file_is_not_lost(address, tmp_path):
    (tmp_path / "notes.txt").write_text("of a person")
    with pytest.raises(SettingsError, match=r"notes\.txt: is no file of p-values and would be lost"):
        write_parts(address, VIEWS, tmp_path / "notes.txt")
    for _ in range(2):  # its own file is written again for a new model
        write_parts(address, VIEWS, tmp_path / "good.json")
