"""Which mask belongs to which picture, from names alone; whole folders are in test_masks.py."""

import pytest

from components.core.errors import DataError
from components.datasets.truth import Index, Matches, beside, from_table, is_truth, match, truth_folders

PICTURES = ("good/a.png", "hole/a.png", "hole/b_1.png", "cut/c.png", "cut/A.PNG.png")


@pytest.fixture
def index():
    return Index([(f"test/{path}", path) for path in PICTURES], {"good"})


@pytest.mark.parametrize(
    ("mask", "picture"),
    [
        ("hole/a.png", "hole/a.png"),
        ("test/hole/a_mask.png", "hole/a.png"),
        ("HOLE/A.png", "hole/a.png"),
        ("hole/b_1.png", "hole/b_1.png"),
        ("hole/b_1_mask_2.png", "hole/b_1.png"),
        ("c_gt.png", "cut/c.png"),
        ("mask_c.png", "cut/c.png"),
        ("cut/c/0.png", "cut/c.png"),
        ("hole/c_mask.png", None),  # of another defect
        ("z.png", None),
    ],
)
def test_a_mask_finds_its_picture_or_none(index, mask, picture):
    assert list(match(index, [mask])) == [picture and f"test/{picture}"]


def test_a_name_that_two_anomalous_pictures_have_is_nobodys():
    index = Index([("x/hole/a.png", "hole/a.png"), ("x/cut/a.png", "cut/a.png")], set())
    assert list(match(index, ["a_mask.png"])) == [None]


def test_a_good_picture_of_the_name_does_not_compete():
    index = Index([("x/good/a.png", "good/a.png"), ("x/cut/a.png", "cut/a.png")], {"good"})
    assert list(match(index, ["a_mask.png"])) == ["x/cut/a.png"]


def test_files_without_a_picture_or_with_an_impossible_name_are_kept_apart():
    matches = Matches()
    for picture, mask in (("p", "b"), ("p", "a"), ("p", "a"), (None, "c"), ("p", "d|e")):
        matches.add(picture, mask)
    assert matches.mask("p") == "a|b"
    assert matches.mask("q") is None
    assert matches.unmatched == ["c", "d|e"]


def test_folders_of_masks_are_told_by_their_names(tmp_path):
    assert is_truth("Ground Truth")
    assert not is_truth("label")  # the name of a defect too
    for name in ("Labels", "train", "gt"):
        (tmp_path / name).mkdir()
    (tmp_path / "masks").write_text("")
    assert [path.name for path in truth_folders(tmp_path)] == ["Labels", "gt"]


def test_masks_between_pictures(tmp_path):
    names = ("a/x.png", "a/x_mask.png", "a/y_mask.png", "b/z_mask.png")
    x, x_mask, y_mask, z_mask = (tmp_path / name for name in names)
    pictures, masks = beside([x, x_mask, y_mask, z_mask])
    assert pictures == [x, z_mask]  # in its folder nothing has a mask: it may be a picture of this name
    assert masks == [(x_mask, x), (y_mask, None)]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_table_of_any_tool_is_read(index, sign, tmp_path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/m1.png").write_text("")
    table = tmp_path / "truth/masks.csv"
    table.write_text(f"\ufeffMask{sign} Image\nm1.png{sign}test\\hole\\a.png\ntruth/m1.png{sign}c\n", encoding="utf-8")
    found = [("test/hole/a.png", "truth/m1.png"), ("test/cut/c.png", "truth/m1.png")]
    assert from_table(table, tmp_path, index) == found


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("nowhere.png,m.png", "line 2: there is no test picture nowhere.png"),
        ("hole/a.png,other.png", "line 2: there is no file other.png"),
        ("hole/a.png,../outside.png", r"line 2: there is no file \.\./outside.png"),
        ("hole/a.png,", "line 2: there is no file"),
    ],
)
def test_a_table_that_names_nothing_says_in_which_line(index, row, sentence, tmp_path):
    root, table = tmp_path / "set", tmp_path / "set/masks.csv"
    root.mkdir()
    (tmp_path / "outside.png").write_text("")
    (root / "m.png").write_text("")
    table.write_text(f"image,mask\n{row}\n")
    with pytest.raises(DataError, match=sentence):
        from_table(table, root, index)
    table.write_text("picture,mask\n")
    with pytest.raises(DataError, match="no columns image and mask"):
        from_table(table, root, index)
