"""The coreset and the search for the nearest row: block by block, and as one pass over everything would have it."""

import pytest
import torch

from components.detectors.parts import blocks, coreset
from components.detectors.parts.blocks import beyond, distance, nearest
from components.detectors.parts.coreset import CHUNK, Coreset


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(0)
    return torch.randn(2 * CHUNK + 300, 5)


def literally(rows, radius):
    """Each row is kept that lies farther than the radius from all rows kept before it."""
    kept = []
    for number, row in enumerate(rows):
        if not kept or (rows[kept] - row).norm(dim=1).min() > radius:
            kept.append(number)
    return kept


def test_a_cover_in_blocks_is_that_of_one_pass(rows):
    kept = coreset._cover(rows, 1.2)
    assert kept.tolist() == literally(rows, 1.2)
    assert kept[-1] >= 2 * CHUNK  # rows of the last block are among them


def test_no_more_than_a_chunk_of_rows_is_compared_at_once(rows, monkeypatch):
    """A bank of 100,000 rows would be compared with itself in 40 GB else."""
    shapes, search = [], blocks.products

    def watched(queries, bank):
        shapes.append((len(queries), len(bank)))
        return search(queries, bank)

    monkeypatch.setattr(blocks, "products", watched)
    bank = Coreset(2 * CHUNK, 5, 1.08)
    bank.offer(rows)
    assert CHUNK < int(bank.count) <= 2 * CHUNK
    assert max(n for n, _ in shapes) <= CHUNK
    assert max(m for _, m in shapes) <= CHUNK


def test_distances_in_blocks_are_those_of_one_search(rows):
    for count in (1, blocks.SEARCHED, 2 * blocks.SEARCHED + 7):
        assert torch.allclose(distance(rows, rows[:count] + 0.1), nearest(rows, rows[:count] + 0.1)[0], atol=1e-5)


def test_what_one_block_covers_is_not_compared_with_the_next(rows, monkeypatch):
    compared, search = [], blocks.products

    def watched(queries, bank):
        compared.append(len(queries))
        return search(queries, bank)

    bank = rows[: 3 * blocks.SEARCHED] + 0.1
    monkeypatch.setattr(blocks, "products", watched)
    for radius in (0.0, 0.9, 100.0):
        compared.clear()
        assert torch.equal(beyond(rows, bank, radius), distance_of(rows, bank) > radius)
        assert compared[0] == len(rows)
        assert (compared[1] < len(rows)) == (radius > 0)
    assert compared == [len(rows), 0, 0]


def distance_of(rows, bank):
    return torch.stack([(bank - row).norm(dim=1).min() for row in rows])
