"""Channel by channel as all at once, to the bit; and of a grey picture once."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from components.synthesis.blending import made
from components.synthesis.channels import by_channel, smoothed
from components.synthesis.placing import on_picture
from tests.conftest import tile

COLOURED = np.stack([tile(7, 90)[..., 0], tile(8, 90)[..., 0], tile(9, 90)[..., 0]], axis=-1)
GREY = np.repeat(tile(7, 90)[..., :1], 3, axis=-1)


@pytest.mark.parametrize("image", [COLOURED, GREY])
def test_a_picture_is_smoothed_as_in_one_piece(image):
    whole = gaussian_filter(image.astype(np.float32), (2.5, 2.5, 0), truncate=2.0)
    found = smoothed(image, 2.5)
    assert found.dtype == whole.dtype
    np.testing.assert_array_equal(found, whole)


def test_a_grey_picture_is_changed_once():
    asked = []
    by_channel(GREY, lambda one: asked.append(1) or one)
    assert len(asked) == 1
    by_channel(COLOURED, lambda one: asked.append(1) or one)
    assert len(asked) == 4


def spot(tone):
    """What draws a rectangle of *tone*, three levels."""

    def draw(square):
        result = square.copy()
        result[10:20, 10:30] = tone
        return made(square, result, 1.0)

    return draw


@pytest.mark.parametrize("image", [COLOURED, GREY])
@pytest.mark.parametrize("tone", [(90, 90, 90), (90, 10, 200)])
def test_what_is_drawn_on_a_reduced_copy_is_enlarged_in_each_channel(image, tone):
    """Each channel is as that of a grey picture of it, with a spot of its own level."""
    drawn = on_picture(image, spot(tone), 40, np.random.default_rng(0))
    assert drawn.mask.any()
    for channel in range(3):
        alone = np.repeat(image[..., channel : channel + 1], 3, axis=-1)
        each = on_picture(alone, spot(tone[channel]), 40, np.random.default_rng(0))
        np.testing.assert_array_equal(each.image[..., 0], drawn.image[..., channel])
