"""What a split does with copies: none lies on two sides, and training learns from each exposure once."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from components.datasets.duplicates import Copies, complete_groups

LISTED = 100  # pairs that split.json names


def leave_out(table: pd.DataFrame, copies: Copies) -> None:
    """The test side keeps its protocol: copies of its pictures leave training. Of other copies the first stays."""
    notes = _of_test_images(table, copies)
    notes.update(_repeats(table, copies, notes))
    rows = list(notes)
    table.loc[rows, "split"] = "excluded"
    table.loc[rows, "note"] = list(notes.values())


def _of_test_images(table: pd.DataFrame, copies: Copies) -> dict[int, str]:
    """Training rows that show a test image."""
    tested: dict[int, int] = {}
    for row in reversed(table.index[table["role"] == "test"]):
        tested[copies.same[row]] = row  # the first one stays
    linked, notes = _linked(copies), {}
    for row in table.index[table["role"] == "train"]:
        seen = [tested[first] for first in (copies.same[row], *linked[copies.same[row]]) if first in tested]
        if seen:
            notes[row] = f"copy of test image {table.at[min(seen), 'image_id']}"
    return notes


def _repeats(table: pd.DataFrame, copies: Copies, left_out: Mapping[int, str]) -> dict[int, str]:
    """Training rows that show what another training row, which stays, shows."""
    members, trained = _members(copies), set(table.index[table["role"] == "train"]) - set(left_out)
    notes: dict[int, str] = {}
    for group in [*complete_groups(copies.pairs), *([first] for first in members)]:
        kept = sorted(row for first in group for row in members[first] if row in trained and row not in notes)
        for row in kept[1:]:
            notes[row] = f"copy of {table.at[kept[0], 'image_id']}"
    return notes


def _members(copies: Copies) -> dict[int, list[int]]:
    """All pictures by the first one with the same pixels."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, first in enumerate(copies.same):
        members[first].append(row)
    return members


def _linked(copies: Copies) -> dict[int, set[int]]:
    linked: dict[int, set[int]] = defaultdict(set)
    for i, j, _ in copies.pairs:
        linked[i].add(j)
        linked[j].add(i)
    return linked


def copied(copies: Copies) -> set[int]:
    """Rows that have a copy, on whichever side."""
    members = _members(copies)
    firsts = {first for i, j, _ in copies.pairs for first in (i, j)} | {f for f in members if len(members[f]) > 1}
    return {row for first in firsts for row in members[first]}


def told(table: pd.DataFrame, copies: Copies) -> dict[str, Any]:
    """What was found and done, for split.json; ``said`` is for the log too."""
    names, notes = table["image_id"], table["note"].fillna("")
    counts = {
        "pairs": len(copies.pairs),
        "equal": sum(first != row for row, first in enumerate(copies.same)),
        "of_test_images": int(notes.str.startswith("copy of test image").sum()),
        "repeats": int((notes.str.startswith("copy of ") & ~notes.str.startswith("copy of test image")).sum()),
        "without_noise": len(copies.silent),
    }
    listed = [[names[i], names[j], likeness] for i, j, likeness in copies.pairs[:LISTED]]
    return {**counts, "listed": listed, "said": [*_sentences(counts), *_contradictions(table, copies)]}


SENTENCES = {
    "of_test_images": "training images are copies of test images and are left out",
    "repeats": "training images are copies of other training images and are left out",
    "without_noise": "images carry no noise of a sensor; copies among them are found where every pixel is equal",
}


def _sentences(counts: Mapping[str, int]) -> list[str]:
    return [f"{counts[key]} {sentence}" for key, sentence in SENTENCES.items() if counts[key]]


def _contradictions(table: pd.DataFrame, copies: Copies) -> list[str]:
    """Copies with two labels: one of them is wrong."""
    pairs = [(first, row) for row, first in enumerate(copies.same) if first != row] + [p[:2] for p in copies.pairs]
    twice = [(table.iloc[i], table.iloc[j]) for i, j in pairs if table.at[i, "label"] != table.at[j, "label"]]
    said = "{} ({}) and {} ({}) are one picture with two labels; remove the wrong one"
    return [said.format(a["image_id"], a["label"], b["image_id"], b["label"]) for a, b in twice[:LISTED]]
