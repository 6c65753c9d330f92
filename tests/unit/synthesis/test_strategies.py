"""What defines each published strategy."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt, label

from components.core.errors import DataError
from components.synthesis import blending, extended, masks, natural, saliency, simulated, sources
from components.synthesis.foreground import foreground, grown, standing_out
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import STRATEGIES
from components.synthesis.synthesise import make
from tests.conftest import tile

SETTINGS = SynthesisSettings(size=128)
TEXTURE = tile(3, 128)
DARK = np.zeros((128, 128, 3), np.uint8)


def thing() -> np.ndarray:
    """A dark plate on a light, slightly noisy table."""
    image = np.random.default_rng(0).normal(200, 3, (128, 128, 1)).repeat(3, 2)
    image[40:100, 30:90] -= 120
    return image.clip(0, 255).astype(np.uint8)


PLATE = np.zeros((128, 128), bool)
PLATE[40:100, 30:90] = True


def drawn(name, image, seeds=range(10), settings=SETTINGS):
    return [make(name, image, np.random.default_rng(seed), settings) for seed in seeds]


# What all share


def test_blend_is_the_formula():
    rng = np.random.default_rng(0)
    image, source = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    mask = rng.random((16, 16)) < 0.4
    made = blending.blend(image, source, mask, 0.3)
    expected = np.rint(np.float32(0.3) * source + np.float32(0.7) * image)
    np.testing.assert_allclose(made.image, np.where(mask[..., None], expected, image), atol=1)
    np.testing.assert_array_equal(made.image[~mask], image[~mask])


def test_foreground_is_the_product():
    overlap = foreground(thing()) & PLATE
    assert overlap.sum() > 0.9 * PLATE.sum()
    assert foreground(thing()).sum() < 1.2 * PLATE.sum()
    ring = thing()
    ring[60:80, 50:70] = 200  # a hole shows the table, yet belongs to the outline
    assert foreground(ring)[70, 60]


@pytest.mark.parametrize("image", [TEXTURE, DARK], ids=["texture", "flat"])
def test_foreground_is_everything_where_nothing_stands_out(image):
    assert not standing_out(image).any()
    assert foreground(image).all()


# saliency (SGSF)


def test_saliency_threshold_grows_with_the_salient_share():
    half = np.zeros((8, 8))
    half[:4] = 1
    for salience, share in ((np.zeros((8, 8)), 0.0), (half, 0.5), (np.ones((8, 8)), 1.0)):
        below, above = 0.4 + 0.2 * share - 0.01, 0.4 + 0.2 * share + 0.01
        assert not saliency.forged(salience, np.full((8, 8), below)).any()
        expected = salience > 0 if share else np.ones((8, 8), bool)
        np.testing.assert_array_equal(saliency.forged(salience, np.full((8, 8), above)), expected)


def test_saliency_weights_the_noise():
    salience = np.array([[1.0, 0.5, 0.0, 0.0]])
    np.testing.assert_array_equal(saliency.forged(salience, np.full((1, 4), 0.9)), [[True, False, False, False]])


def test_salient_map_is_soft_with_maximum_one():
    level = saliency.salient(thing())
    assert level.max() == pytest.approx(1)
    assert level.min() >= 0
    assert level[PLATE].mean() > 0.9
    assert level[~PLATE].mean() < 0.1
    bare = grown(standing_out(thing()), (128, 128))  # enlarging alone softens a little
    assert soft_share(level) > 1.5 * soft_share(bare)


def soft_share(level):
    return ((level > 0.05) & (level < 0.95)).mean()


def test_saliency_keeps_to_the_object():
    reach = distance_transform_edt(~PLATE) < 6  # the blur carries a little beyond the outline
    assert all(reach[made.mask].all() for made in drawn("saliency", thing()))


def test_saliency_without_an_object_is_plain_noise(monkeypatch):
    monkeypatch.setattr(saliency, "foreign", lambda *_: DARK)
    noise = np.full((128, 128), 0.39)
    noise[60:70, 40:60] = 0.41
    monkeypatch.setattr(masks, "turned_noise", lambda *_: noise)
    assert not saliency.salient(TEXTURE).any()
    np.testing.assert_array_equal(drawn("saliency", TEXTURE, [0])[0].mask, noise > 0.4)
    assert not saliency.saliency(thing(), np.random.default_rng(0), SETTINGS).mask.any()  # its threshold is higher


def test_saliency_alpha_is_the_weight_of_a_foreign_texture(monkeypatch):
    monkeypatch.setattr(saliency, "foreign", lambda *_: DARK)
    made = drawn("saliency", TEXTURE, range(60))
    for m in made[:5]:
        expected = m.strength * DARK + (1 - m.strength) * TEXTURE
        assert np.abs(m.image - expected)[m.mask].max() <= 0.501
    assert 0.1 <= min(m.strength for m in made) < 0.2
    assert 0.9 < max(m.strength for m in made) <= 1


@pytest.mark.parametrize("name", ["saliency", "natural", "natural_blended", "heterologous", "homologous", "smudge"])
def test_an_empty_mask_is_no_anomaly(name, monkeypatch):
    monkeypatch.setattr(masks, "turned_noise", lambda shape, *_: np.full(shape, -1.0))
    made = STRATEGIES[name](TEXTURE, np.random.default_rng(0), SETTINGS)
    assert made.area == 0
    assert not made.mask.any()
    np.testing.assert_array_equal(made.image, TEXTURE)
    with pytest.raises(DataError, match="no anomaly"):
        make(name, TEXTURE, np.random.default_rng(0), SETTINGS)


# natural, natural_blended (CMA-AE)


def test_natural_pastes_a_photograph_opaquely(monkeypatch):
    monkeypatch.setattr(natural, "_photograph", lambda *_: DARK)
    for made in drawn("natural", TEXTURE):
        assert made.strength == 1
        assert (made.image[made.mask] == DARK[0, 0]).all()


def test_natural_source_is_augmented_after_it_was_resized(monkeypatch):
    seen = []
    monkeypatch.setattr(sources, "augment", lambda image, _: seen.append(image.size) or Image.fromarray(DARK))
    assert all((m.image[m.mask] == DARK[0, 0]).all() for m in drawn("natural", TEXTURE))
    assert set(seen) == {(128, 128)}


def test_augment_is_three_different_changes():
    asked = []

    class Watched:
        def __init__(self, rng):
            self.rng = rng

        def __getattr__(self, name):
            return getattr(self.rng, name)

        def choice(self, *arguments, **options):
            asked.append((arguments, options))
            return self.rng.choice(*arguments, **options)

    sources.augment(Image.fromarray(TEXTURE), Watched(np.random.default_rng(0)))
    assert asked == [((8, 3), {"replace": False})]


def test_photographs_are_whole_and_of_several_kinds(tmp_path):
    rng = np.random.default_rng(0)
    drawn_ones = {sources.photograph(32, None, rng).tobytes() for _ in range(60)}
    assert len(drawn_ones) == len(sources.photographs()) >= 5
    Image.fromarray(np.hstack([DARK, TEXTURE])).save(tmp_path / "wide.png")
    both = sources.photograph(64, tmp_path, rng)
    assert both[:, :30, 1].max() < 20
    assert both[:, 34:, 1].min() > 50


def test_natural_blended_mixes_photographs_and_own_tiles(monkeypatch):
    monkeypatch.setattr(natural, "_photograph", lambda *_: DARK)
    made = drawn("natural_blended", TEXTURE, range(20))
    expected = [m.strength * DARK + (1 - m.strength) * TEXTURE for m in made]
    dark = [np.abs(m.image - e)[m.mask].max() <= 0.501 for m, e in zip(made, expected, strict=True)]
    assert 0 < sum(dark) < len(made)
    assert min(m.strength for m in made) < 0.5


# heterologous, homologous (PRN)


@pytest.mark.parametrize("name", ["heterologous", "homologous"])
def test_simulated_anomalies_lie_on_the_product(name):
    assert all(foreground(thing())[made.mask].all() for made in drawn(name, thing()))
    beyond = np.zeros((128, 128), bool)
    for made in drawn(name, TEXTURE):
        beyond |= made.mask
    assert beyond[~PLATE].any()  # nothing stands out: anywhere


def test_heterologous_holds_a_foreign_texture(monkeypatch):
    monkeypatch.setattr(simulated, "foreign", lambda *_: DARK)
    for m in drawn("heterologous", thing()):
        expected = m.strength * DARK + (1 - m.strength) * thing()
        assert np.abs(m.image - expected)[m.mask].max() <= 0.501


def test_homologous_holds_the_same_image_moved_and_augmented(monkeypatch):
    assert all((m.image == m.image[..., :1]).all() for m in drawn("homologous", TEXTURE))  # grey stays grey
    given = []
    monkeypatch.setattr(sources, "augment", lambda image, _: given.append(np.asarray(image)) or image)
    position = np.arange(128 * 128).reshape(128, 128)
    coded = np.stack([position % 128, position // 128, np.zeros_like(position)], -1).astype(np.uint8)
    made = drawn("homologous", coded, [0], SynthesisSettings(size=128, strength=(1, 1)))[0]
    assert sorted(map(bytes, given[-1].reshape(-1, 3))) == sorted(map(bytes, coded.reshape(-1, 3)))
    np.testing.assert_array_equal(made.image[made.mask], given[-1][made.mask])
    assert (given[-1] != coded).any(-1).mean() > 0.95


# extended (PRN)


def defective():
    """A texture with an unmistakable blot, and its mask."""
    mask = np.zeros((128, 128), bool)
    mask[60:72, 50:70] = True
    return np.where(mask[..., None], np.uint8([250, 60, 30]), tile(8, 128)), mask


def extend(image, seed, defect=None):
    return extended.extended(image, *(defect or defective()), np.random.default_rng(seed), SETTINGS)


def test_extended_pastes_the_real_region():
    for seed in range(15):
        made = extend(TEXTURE, seed)
        np.testing.assert_array_equal(made.mask, (made.image != TEXTURE).any(-1))
        assert 0.5 < made.area / defective()[1].mean() < 2
        assert (made.image == made.image[..., :1]).all()  # none of the blot's colour on a grey image
        assert made.strength == 1
    assert (extend(TEXTURE, 1).image == extend(TEXTURE, 1).image).all()
    assert (extend(TEXTURE, 1).image != extend(TEXTURE, 2).image).any()


@pytest.mark.parametrize("change", extended.ALL, ids=lambda c: c.__name__)
def test_extended_changes_move_region_and_content_together(change):
    defect, mask = defective()
    rng = np.random.default_rng(1)
    content, region = change(defect, mask, rng)
    assert content.shape == defect.shape
    assert content.dtype == np.uint8
    assert region.dtype == bool
    assert (content != defect).any()
    coloured = np.ptp(content.astype(int), axis=2) > 80
    assert (coloured & region).sum() > 0.85 * max(coloured.sum(), region.sum())


def test_extended_draws_three_different_changes(monkeypatch):
    calls = []
    counted = [lambda d, m, _, k=k: calls.append(k) or (d, m) for k in range(10)]
    monkeypatch.setattr(extended, "ALL", tuple(counted))
    for seed in range(20):
        extended.changed(*defective(), np.random.default_rng(seed))
        assert len(set(calls[-3:])) == 3
    assert len(calls) == 60
    assert set(calls) == set(range(10))


def test_extended_region_stays_if_two_thirds_lie_on_the_product():
    defect, region = defective()
    where = np.zeros((128, 128), bool)
    where[60:68, 50:70] = True  # 2/3 of the region's rows
    _, kept = extended.placed(defect, region, where, np.random.default_rng(0))
    np.testing.assert_array_equal(kept, region)
    where[67] = False
    _, left = extended.placed(defect, region, where, np.random.default_rng(0))
    assert (left != region).any()


def test_extended_parts_move_to_the_product_one_by_one():
    defect, region = defective()
    region[10:14, 100:104] = True
    where = np.zeros((128, 128), bool)
    where[90:110, 20:40] = True
    content, moved = extended.placed(defect, region, where, np.random.default_rng(3))
    parts, number = label(moved)
    assert number == 2
    for part in (1, 2):
        middle = np.argwhere(parts == part).mean(0)
        assert where[tuple(middle.astype(int))]
    assert sorted(content[moved].tolist()) == sorted(defect[region].tolist())


def test_extended_lies_on_the_product():
    corner = np.zeros((128, 128), bool)
    corner[6:16, 100:118] = True
    blot = np.where(corner[..., None], np.uint8([250, 60, 30]), tile(8, 128)), corner
    centres = [np.argwhere(extend(thing(), seed, blot).mask).mean(0).astype(int) for seed in range(15)]
    assert all(foreground(thing())[tuple(c)] for c in centres)


def test_extended_without_a_region_is_an_error():
    with pytest.raises(DataError, match="mask is empty"):
        extend(TEXTURE, 0, (TEXTURE, np.zeros((128, 128), bool)))


# smudge (DSR)


def test_smudge_is_one_colour():
    solid = drawn("smudge", TEXTURE, settings=SynthesisSettings(size=128, strength=(1, 1)))
    colours = [np.unique(m.image[m.mask], axis=0) for m in solid]
    assert all(len(c) == 1 for c in colours)
    assert len({tuple(c[0]) for c in colours}) > len(colours) / 2  # on a grey image: some greys meet
    for m in drawn("smudge", TEXTURE):
        paint = (m.image - (1 - m.strength) * TEXTURE.astype(float))[m.mask] / m.strength
        assert np.ptp(paint, axis=0).max() <= 1.01 / m.strength


# shade


def change(made, image):
    return (made.image.astype(float) - image)[made.mask]


def test_shade_is_wide_and_can_be_seen():
    wide = drawn("shade", TEXTURE, range(40))
    assert np.median([m.area for m in wide]) > 0.1
    assert max(m.area for m in wide) > 0.3
    assert min(np.abs(change(m, TEXTURE)).mean() for m in wide) > 5
    assert max(label(m.mask)[0].max() for m in drawn("shade", np.full((128, 128, 3), 128, np.uint8))) <= 6


def test_shade_is_brighter_or_darker_rougher_or_smoother():
    made = drawn("shade", TEXTURE, range(40))
    tones = [change(m, TEXTURE).mean() for m in made]
    assert min(tones) < -10 < 10 < max(tones)
    inner = [m.mask & (distance_transform_edt(m.mask) > 4) for m in made]
    rough = [np.abs(np.diff(m.image.astype(float), axis=0))[i[1:]].mean() for m, i in zip(made, inner, strict=True)]
    own = [np.abs(np.diff(TEXTURE.astype(float), axis=0))[i[1:]].mean() for i in inner]
    factors = np.array(rough) / own
    assert factors.min() < 0.8
    assert factors.max() > 1.3


def test_shade_leaves_out_the_faint_part_of_its_edge():
    flat = np.full((128, 128, 3), 128, np.uint8)  # no detail: the change is tone x weight
    for m in drawn("shade", flat, range(20)):
        change_in_levels = np.abs(change(m, flat))
        assert change_in_levels.min() >= 0.3 * change_in_levels.max() - 1


def test_shade_has_detail_from_elsewhere():
    half = np.full((128, 128, 3), 128, np.uint8)
    half[:, 64:] += np.random.default_rng(0).integers(0, 60, (128, 64, 1), np.uint8)
    plain = [m.image[:, 8:48][m.mask[:, 8:48]] for m in drawn("shade", half, range(40))]
    rough = [part.std() > 8 for part in plain if len(part) > 200]  # a tone with soft edges alone is smoother
    assert 0.1 < np.mean(rough) < 0.9


def test_shade_lies_on_the_product():
    far = distance_transform_edt(~foreground(thing())) > 6  # an edge's sigma at most, which is 3 pixels here, twice
    assert not any((m.mask & far).any() for m in drawn("shade", thing(), range(20)))


def test_shade_of_a_small_product_is_anywhere():
    small = np.full((128, 128, 3), 200, np.uint8)
    small[58:74, 58:74] = 90
    assert 0 < foreground(small).mean() < 0.05
    assert np.median([m.area for m in drawn("shade", small, range(20))]) > 0.1
