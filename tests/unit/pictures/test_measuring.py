"""What is measured of an image's pixels."""

import numpy as np
import pytest

from components.pictures.measuring import ROWS, is_grey, laplacian, statistics


def test_a_dot_differs_from_all_its_neighbours():
    dot = np.zeros((4, 5), np.float32)
    dot[1, 2] = 1
    around = np.zeros((4, 5), np.float32)
    around[1, 2] = -4
    around[0, 2] = around[2, 2] = around[1, 1] = around[1, 3] = 1
    assert laplacian(dot).tolist() == around.tolist()


def test_the_border_is_mirrored_so_that_a_ramp_ends_flat():
    ramp = np.repeat(np.arange(5, dtype=np.float32)[None] / 8, 3, 0)
    assert laplacian(ramp).tolist() == [[0.125, 0, 0, 0, -0.125]] * 3
    assert laplacian(ramp.T).tolist() == np.array([[0.125, 0, 0, 0, -0.125]] * 3).T.tolist()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (6, 7), (ROWS, 3), (2 * ROWS + 1, 5)])
def test_it_is_what_the_definition_gives_to_the_last_bit(shape):
    shade = np.random.default_rng(0).random(shape, np.float32)
    wide = np.pad(shade, 1, mode="symmetric").astype(np.float64)
    down = wide[:-2, 1:-1] + wide[2:, 1:-1] - 2 * wide[1:-1, 1:-1]
    across = wide[1:-1, :-2] + wide[1:-1, 2:] - 2 * wide[1:-1, 1:-1]
    assert np.array_equal(laplacian(shade), down.astype(np.float32) + across.astype(np.float32))


def test_a_flat_picture_has_neither_contrast_nor_edges():
    told = statistics(np.full((3, 4), 0.25, np.float32))
    assert told == {"width": 4, "height": 3, "brightness": 0.25, "contrast": 0.0, "sharpness": 0.0}


@pytest.mark.parametrize("channel", [None, 0, 1, 2])
def test_a_picture_is_grey_where_no_channel_differs_anywhere(channel):
    picture = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=-1)
    if channel is not None:
        picture[2, 3, channel] += 1
    assert is_grey(picture) == (channel is None)
