"""Copies: pictures of one exposure, re-encoded, resized, shifted or cropped by a few pixels.

Products of one kind look alike and a fixed camera repeats print and fixture to the pixel, so likeness proves nothing.
Two pictures are copies when their noise agrees (``exposure``) after what the set has in common is taken away: its mean
and what varies in many pictures at once. Such a pair must stand out among all others, show the same light to a grey
level, and stand out again beside pictures that look the same. Pictures without noise are copies only when every pixel
is equal. docs/data.md has the limits, docs/adr/0021-one-exposure.md the reasons.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.core.progress import progress
from components.core.runtime import side_by_side
from components.datasets.exposure import COUNT, SIDE, apart, fingerprint, looked, working
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.kept import decode

COPIES = 6  # what more pictures than this share is taken for the product's, not for an exposure's
APART = 0.15  # by how much a pair must be more alike than either of it and its next look-alikes
SPREADS = 5.0  # standard deviations of unrelated pictures that a pair must exceed
WEAKENED = 0.8  # share of the likeness asked for that must be left then; the look-alikes bring noise of their own
LEVELS = 0.5  # grey levels up to which two smoothed pictures are of one exposure; no light is as steady as a copy
CONTROLS = 8  # look-alikes beside which a pair is looked at again
KEPT = 96  # of the squares that are compared, a megabyte each
SAMPLE = 800  # pictures from which common variation is learned
BROAD = 12  # pictures that a common variation is spread over at least
STRICT = 0.5  # likeness that is asked for among few pictures, whose copies are part of the spread
STRONG = 3.0  # variance of a common variation: more than pairs of copies have, which mix where there are many
BLOCK = 512  # rows compared at once
CROPPED = 0.1  # logarithm of the ratio of sides up to which one picture may be cropped from another
LARGEST = 3.0  # times that a small picture is enlarged for comparison


@dataclass(frozen=True)
class Pictures:
    """Files with their sizes (N, 2) as (height, width) in pixels and their 64-bit perceptual hashes in hex."""

    paths: Sequence[Path]
    sizes: np.ndarray
    hashes: Sequence[str]
    rules: Decoding = DEFAULT

    def pixels(self, number: int) -> np.ndarray:
        return decode(self.paths[number], rules=self.rules)

    def scales(self) -> np.ndarray:
        """(N, 2): how each is scaled if a copy of it was resized, and if it was cropped."""
        shorter = self.sizes.min(1)
        target = min(SIDE, np.median(shorter))
        resized, cropped = target / shorter, np.full(len(shorter), target / np.median(shorter))
        cropped = np.where(abs(resized / cropped - 1) < 1e-3, resized, cropped)
        return np.minimum(LARGEST, np.stack([resized, cropped], 1))


class Copies(NamedTuple):
    """What was found, by number.

    *same*: for each picture the first one with the same pixels, often itself. *pairs*: (i, j, correlation of the
    noise), i < j, both first ones. *silent*: pictures that carry no noise to judge by.
    """

    same: list[int]
    pairs: list[tuple[int, int, float]]
    silent: list[int]


def find_copies(pictures: Pictures, likeness: float) -> Copies:
    """The copies among *pictures* whose noise correlates by *likeness* at least; each is read once, a few again."""
    if not len(pictures.paths):
        return Copies([], [], [])
    prints, same = _traces(pictures)
    first = [number for number, one in enumerate(same) if one == number]  # equal ones would hide each other
    proposed = [(first[i], first[j], r) for i, j, r in _standing_out(prints[:, first], likeness)]
    pairs = sorted(_standing(Check(pictures, prints, proposed), proposed, likeness)) if proposed else []
    return Copies(same, pairs, np.flatnonzero(~prints[0].any(1)).tolist())


def _standing(check: "Check", pairs: list[tuple[int, int, float]], likeness: float) -> list[tuple[int, int, float]]:
    """Those of *pairs* that stand a second look."""
    ordered = _neighbours(pairs, len(check.heard))
    stood = side_by_side(lambda pair: check.stands(*pair[:2], likeness), ordered)
    known = zip(ordered, progress(stood, "looking again at copies", len(ordered)), strict=True)
    return [pair for pair, stands in known if stands]


def _neighbours(pairs: list[tuple[int, int, float]], count: int) -> list[tuple[int, int, float]]:
    """The same pairs, those of pictures that hang together behind one another: what was read for one serves the next.

    *count* is that of all pictures."""
    rows, columns = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    _, part = connected_components(coo_array((np.ones(len(pairs)), (rows, columns)), (count, count)), directed=False)
    return sorted(pairs, key=lambda pair: (part[pair[0]], pair))


def _traces(pictures: Pictures) -> tuple[np.ndarray, list[int]]:
    """Fingerprints as if resized and, where that differs, as if cropped (1 or 2, N, COUNT); and ``Copies.same``."""
    scales, count = pictures.scales(), len(pictures.paths)
    layers = 1 if (scales[:, 0] == scales[:, 1]).all() else 2

    def trace(number: int) -> tuple[list[np.ndarray], bytes]:
        pixels = pictures.pixels(number)
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).digest()
        shade, ways = _shade(pixels), scales[number, :layers]
        return [_print(shade, scale) for scale in dict.fromkeys(ways.tolist())], digest

    prints, seen, same = np.empty((layers, count, COUNT), np.float16), dict[bytes, int](), []
    traced = side_by_side(trace, range(count))
    for number, (found, digest) in enumerate(progress(traced, "looking for copies", count)):
        prints[:, number] = found
        same.append(seen.setdefault(digest, number))
    return prints, same


def _shade(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _print(shade: np.ndarray, scale: float) -> np.ndarray:
    """The fingerprint; zeros where there is no noise."""
    found = fingerprint(shade, scale)
    return np.zeros(COUNT, np.float32) if found is None else found


def _standing_out(prints: np.ndarray, likeness: float) -> list[tuple[int, int, float]]:
    """Pairs more alike than *likeness*, than unrelated ones, and than either picture's next look-alikes."""
    own = [_own(layer) for layer in prints]
    count = prints.shape[1]
    last = count - 1 - min(COPIES, (count - 1) // 2)
    nexts, spreads = np.empty(count, np.float32), []
    for rows, alike in _blocks(own):
        nexts[rows] = np.partition(alike, last, axis=1)[:, last]
        spreads.append(np.median(np.abs(alike - np.median(alike))) * 1.4826)  # of a normal distribution
    least = max(likeness, SPREADS * float(np.median(spreads)) if count >= 4 * COPIES else STRICT)
    found = []
    for rows, alike in _blocks(own):
        for i, j in np.argwhere(alike >= least):
            at = rows.start + i
            if at < j and alike[i, j] >= APART + max(nexts[at], nexts[j]):
                found.append((int(at), int(j), round(float(alike[i, j]), 4)))
    return found


def _blocks(own: list[np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
    """Correlations of BLOCK pictures with all, in the better of both ways of scaling; with themselves 0."""
    count = len(own[0])
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        alike = own[0][rows] @ own[0].T
        for layer in own[1:]:
            np.maximum(alike, layer[rows] @ layer.T, out=alike)
        alike[np.arange(rows.stop - start), np.arange(start, rows.stop)] = 0
        yield rows, alike


def _own(prints: np.ndarray) -> np.ndarray:
    """What each fingerprint (N, COUNT) has for itself, as unit vectors float32; zeros stay zeros."""
    own = prints.astype(np.float32)
    heard = own.any(1)
    if heard.sum() < 2:
        return np.zeros_like(own)
    own -= own[heard].mean(0) * (heard.sum() / (heard.sum() + 1))
    own /= _spread(own[heard])
    _to_unit(own)
    own[~heard] = 0
    common = _common(own[heard])
    if len(common):
        own -= (own @ common.T) @ common
        _to_unit(own)
    return own


def _spread(rest: np.ndarray) -> np.ndarray:
    """The standard deviation of each frequency, drawn towards that of all where there are few pictures."""
    each = rest.var(0)
    return np.sqrt((len(rest) * each + 16 * each.mean() + 1e-12) / (len(rest) + 16)).astype(np.float32)


def _to_unit(rest: np.ndarray) -> None:
    rest -= rest.mean(1, keepdims=True)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True) + 1e-9


def _common(rest: np.ndarray) -> np.ndarray:
    """Directions (D, COUNT) in which many pictures vary together: light, focus, place, kinds of product.

    A direction that few pictures share may be their exposure; it stays.
    """
    if len(rest) < 4 * BROAD:
        return np.zeros((0, rest.shape[1]), np.float32)
    sample = rest[np.linspace(0, len(rest) - 1, min(len(rest), SAMPLE)).astype(int)]
    strength, shares = np.linalg.eigh(sample @ sample.T)
    broad = (1 / (shares**4).sum(0) >= BROAD) & (strength > STRONG)
    return np.asarray((shares[:, broad] / np.sqrt(strength[broad])).T @ sample, np.float32)


class Check:
    """A second look at proposed pairs, beside pictures that look the same and are read as the pair is."""

    def __init__(self, pictures: Pictures, prints: np.ndarray, proposed: Sequence[tuple[int, int, float]]) -> None:
        self.pictures, self.prints, self.scales = pictures, prints, pictures.scales()
        self.partners: dict[int, set[int]] = defaultdict(set)
        for i, j, _ in proposed:
            self.partners[i].add(j)
            self.partners[j].add(i)
        codes = np.array([list(bytes.fromhex(code)) for code in pictures.hashes], np.uint8).reshape(-1, 8)
        self.signs = np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
        self.heard = prints[0].any(1)
        self.spread = _spread(prints[0, np.flatnonzero(self.heard)[:SAMPLE]].astype(np.float32))
        # A picture is in several pairs, one behind the other.
        self.shade = lru_cache(maxsize=32)(lambda number: _shade(pictures.pixels(number)))
        self.worked = lru_cache(maxsize=KEPT)(lambda number, scale: working(self.shade(number), scale))
        self.looked = lru_cache(maxsize=KEPT)(lambda n, scale, *shape: looked(self.worked(n, scale), *shape))

    def stands(self, one: int, two: int, likeness: float) -> bool:
        """Whether both show the same light, and still agree without what their look-alikes, read as they are, share."""
        layers = [layer for layer in self._layers(one, two) if self._apart(one, two, layer) <= LEVELS]
        near = self._look_alikes(one, two)
        if not layers or len(near) < CONTROLS // 2:
            return bool(layers)
        return max(self._alike(one, two, near, layer) for layer in layers) >= WEAKENED * likeness

    def _apart(self, one: int, two: int, layer: int) -> float:
        """How far the two are apart, in grey levels."""
        scales = [float(self.scales[number, layer]) for number in (one, two)]
        seen = [self.worked(number, scale) for number, scale in zip((one, two), scales, strict=True)]
        height, width = (min(sides) for sides in zip(*(picture.shape for picture in seen), strict=True))
        return apart(*(self.looked(n, scale, height, width) for n, scale in zip((one, two), scales, strict=True)))

    def _layers(self, one: int, two: int) -> range:
        """As if resized; as if cropped too, where the sizes differ by little."""
        ratio = self.pictures.sizes[one] / self.pictures.sizes[two]
        cropped = (ratio != 1).any() and abs(np.log(ratio)).max() < CROPPED
        return range(len(self.prints) if cropped else 1)

    def _look_alikes(self, one: int, two: int) -> list[int]:
        apart = {one, two, *self.partners[one], *self.partners[two]}
        order = np.argsort(-(self.signs @ (self.signs[one] + self.signs[two])), kind="stable")
        heard = (int(number) for number in order if int(number) not in apart and self.heard[number])
        return list(islice(heard, CONTROLS))

    def _alike(self, one: int, two: int, near: list[int], layer: int) -> float:
        # Each has look-alikes of its own, so that their noise is not what both have in common.
        rests = np.stack([self._rest(one, near[::2], layer), self._rest(two, near[1::2], layer)])
        _to_unit(rests)
        return float(rests[0] @ rests[1])

    def _rest(self, number: int, others: list[int], layer: int) -> np.ndarray:
        shared = np.mean([self._seen_as(other, number, layer) for other in others], 0)
        return np.asarray((self.prints[layer, number].astype(np.float32) - shared) / self.spread)

    def _seen_as(self, other: int, number: int, layer: int) -> np.ndarray:
        """The fingerprint of *other* as if it had the size of *number*."""
        height, width = (int(side) for side in self.pictures.sizes[number])
        if (self.pictures.sizes[other] == (height, width)).all():
            return self.prints[layer, other].astype(np.float32)
        shade = self.shade(other)
        if layer:
            top, left = (max(0, (has - wanted) // 2) for has, wanted in zip(shade.shape, (height, width), strict=True))
            shade = shade[top : top + height, left : left + width]
        else:
            shade = np.asarray(Image.fromarray(shade).resize((width, height), Image.Resampling.BICUBIC))
        return _print(shade, self.scales[number, layer])


def complete_groups(pairs: Sequence[tuple[int, int, float]]) -> list[list[int]]:
    """Groups in which every picture is a copy of every other, the most alike first; no chains."""
    linked = {(i, j) for i, j, _ in pairs}
    groups: dict[int, list[int]] = {}
    for i, j, _ in sorted(pairs, key=lambda pair: -pair[2]):
        one, two = groups.get(i, [i]), groups.get(j, [j])
        if one is not two and all((min(a, b), max(a, b)) in linked for a in one for b in two):
            joined = sorted(one + two)
            groups.update(dict.fromkeys(joined, joined))
    return sorted({id(g): g for g in groups.values()}.values())
