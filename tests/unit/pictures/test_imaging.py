"""From decoded pixels to what a detector sees."""

import numpy as np
import pytest
import torch

from components.pictures import imaging
from components.pictures.imaging import at_sizes, seen_at, to_tensor
from components.training.memory import Living

SIZES = (64, 96)


@pytest.mark.parametrize("shape", [(61, 83, 3), (4, 50, 70, 3)])
@pytest.mark.parametrize("grey", [True, False])
def test_a_large_picture_is_seen_to_the_same_bits(shape, grey, monkeypatch):
    """Channel by channel, a window of frames too; and of a grey one a single channel stands for all."""
    piece = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    piece = np.repeat(piece[..., :1], 3, axis=-1) if grey else piece
    monkeypatch.setattr(imaging, "LARGE", 1000)
    for found, expected in zip(seen_at([piece, piece], SIZES), at_sizes(to_tensor(piece)[None], SIZES), strict=True):
        assert torch.equal(found, torch.cat([expected] * 2))


def test_a_large_picture_is_never_in_floats_as_a_whole():
    piece = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    with Living() as living:
        seen_at([piece], SIZES)
    assert living.peak < 2.5 * piece.nbytes  # a channel in bytes and in floats; all of them took five times
