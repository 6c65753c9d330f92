"""Which rows a bank under a cap keeps."""

import torch

from components.detectors.contract import scratch_keys
from components.detectors.parts.draw import Draw


def kept(offered: int, size: int = 20, seed: int = 0, name: str = "bank", batches: int = 16) -> list[int]:
    """The numbers of the rows that are kept, and that each goes to the next free row of the bank."""
    torch.manual_seed(seed)
    draw, found = Draw(size, name), list[int]()
    draw.expect(offered)
    for first in range(0, offered, batches):
        chosen, at = draw.among(first, min(batches, offered - first))
        assert at == len(found)
        found += (first + chosen).tolist()
    return found


def test_all_rows_are_kept_where_there_is_room_and_the_bank_is_full_where_there_is_not():
    assert kept(7) == list(range(7))
    assert kept(20) == list(range(20))
    assert len(kept(21)) == len(kept(1000)) == 20  # a stride of two would leave half of it empty


def test_every_row_has_the_same_chance():
    counts = torch.zeros(60)
    for seed in range(300):
        counts[kept(60, seed=seed)] += 1
    assert counts.min() > 60  # 100 expected, deviation 8
    assert counts.max() < 140


def test_the_draw_is_a_function_of_seed_and_name_alone():
    assert kept(500) == kept(500, batches=33)
    assert kept(500) != kept(500, seed=1)
    assert kept(500) != kept(500, name="another")


def test_a_resumed_phase_keeps_the_same_rows_whatever_the_process_was_seeded_with():
    torch.manual_seed(3)
    first = Draw(20, "bank")
    torch.manual_seed(4)
    resumed = Draw(20, "bank")
    assert resumed.seed != first.seed
    resumed.load_state_dict(first.state_dict())  # a checkpoint holds it, a finished model does not
    assert scratch_keys(first) == {"seed"}
    for draw in (first, resumed):
        draw.expect(100)
    assert torch.equal(first.kept, resumed.kept)


def test_making_a_draw_moves_no_other_randomness():
    torch.manual_seed(0)
    plain = torch.rand(3)
    torch.manual_seed(0)
    Draw(5, "bank").expect(50)
    assert torch.equal(torch.rand(3), plain)
