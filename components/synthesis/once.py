"""What is drawn again and again at other strengths, with the same generator on the same picture: made once.

A strength is the first number that an anomaly draws, so the state of the generator behind it is the same at each.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_kept: dict[tuple[Any, ...], tuple[np.ndarray, Any]] | None = None


@contextmanager
def drawn_once() -> Iterator[None]:
    """Within it ``once`` keeps what it makes, for all threads: a map of a picture's square each."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def once(
    draw: Callable[[np.ndarray, np.random.Generator, float], np.ndarray],
    image: np.ndarray,
    rng: np.random.Generator,
    size: float = 0.0,
) -> np.ndarray:
    """``draw(image, rng, size)``, or what it made before of the same; *rng* then is where that left it."""
    kept = _kept
    if kept is None:
        return draw(image, rng, size)
    key = (draw, hash(image.tobytes()), image.shape, str(rng.bit_generator.state), size)
    if key not in kept:
        kept[key] = draw(image, rng, size), rng.bit_generator.state
    made, rng.bit_generator.state = kept[key]
    return made
