"""What fuzzing shares: how many cases, and damaged copies of what is whole.

LOUPE_FUZZ=10000 python -m pytest tests/unit/test_fuzz.py    # the cheap decoders take minutes
"""

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from components.core.errors import LoupeError

CASES = int(os.environ.get("LOUPE_FUZZ", "200"))
SECONDS = 5.0  # of a core, for one case
FUZZ = settings(
    max_examples=CASES, deadline=None, database=None, derandomize=CASES <= 1000, suppress_health_check=list(HealthCheck)
)
SLOW = settings(FUZZ, max_examples=max(20, CASES // 10))

TEXTS = st.text(max_size=12) | st.sampled_from(["../x", "/etc/passwd", "\0", "NaN", "1e999", "é", "\ud800", "a" * 5000])
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 2**1100, float("inf")])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@contextmanager
def bounded() -> Iterator[None]:
    """Nothing but an error of ours comes out, and no case takes long."""
    started = time.process_time()
    said = "told"
    try:
        yield
    except LoupeError as error:
        said = str(error).strip()
    assert 0 < len(said) < 5000, "a message that nobody reads to its end"
    assert time.process_time() - started < SECONDS


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


@st.composite
def documents(draw: Callable[..., Any], whole: Any) -> Any:
    """*whole* with one to three places replaced, taken out or added to."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        if not (found := [path for path in places(value) if path]):
            return draw(VALUES)
        *above, last = draw(st.sampled_from(found))
        part = value
        for key in above:
            part = part[key]
        if not isinstance(part, dict | list):
            return draw(VALUES)
        if draw(st.integers(0, 3)) == 0:
            del part[last]
        else:
            part[last] = draw(VALUES)
    return draw(VALUES) if draw(st.integers(0, 9)) == 0 else value


@st.composite
def damaged(draw: Callable[..., Any], whole: bytes, most: int = 6) -> bytes:
    """The bytes *whole* with some changed, put in or taken out, and often cut off."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            content[place:place] = draw(st.binary(max_size=8))
        elif kind == 1:
            del content[place : place + draw(st.integers(1, 40))]
        else:
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def texts(whole: Any) -> st.SearchStrategy[bytes]:
    """A JSON document, damaged in its values or in its bytes."""
    written = documents(whole).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
    deep = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xff\xfe", b"\0" * 64])
    return written | damaged(json.dumps(whole).encode()) | deep
