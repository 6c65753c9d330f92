"""Features for a training of several processes: each computes its share of the pictures, the first one stores them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.backbones import features as stored
from components.backbones.extractor import Backbone
from components.backbones.features import Features, FeatureStore, ImageSource
from components.training.ranks import ALONE, Ranks

END = None  # in place of rows: the first process needs no more of them


@dataclass(frozen=True)
class SharedStore(FeatureStore):
    """A store that *ranks* fill together; all of them ask it for the same, in the same order."""

    ranks: Ranks = ALONE

    def features(self, backbone: Backbone, images: ImageSource) -> Features:
        """As of every store. The others compute what the first asks them for, and then find what it has written."""
        if self.root is None or self.ranks.count == 1:
            return super().features(backbone, images)
        if self.ranks.writes:
            with self._ended():
                found = super().features(backbone, images)
        else:
            self._serve(backbone, images)
        self.usage.unusable = self.ranks.first(self.usage.unusable)
        return found if self.ranks.writes else super().features(backbone, images)

    @contextmanager
    def _ended(self) -> Iterator[None]:
        """Whatever happens here, nobody waits for rows that do not come."""
        try:
            yield
        finally:
            self.ranks.first(END)

    def extract(self, backbone: Backbone, images: ImageSource, rows: Sequence[int]) -> Iterator[stored.Extracted]:
        """Rows and their features, batch by batch."""
        if self.ranks.count == 1 or not self.ranks.writes:
            yield from super().extract(backbone, images, rows)
            return
        assert self.root is not None
        compute, step = stored.extractor(backbone, self.root), stored.batch_of(backbone) * self.ranks.count
        for start in range(0, len(rows), step):
            yield from self._computed(compute, images, backbone, list(rows[start : start + step]))

    def _computed(
        self, compute: stored.Extract, images: ImageSource, backbone: Backbone, rows: list[int]
    ) -> list[stored.Extracted]:
        """What all processes make of *rows*, each of its part; asked for by the first, once its graph is made."""
        own = self.ranks.share(self.ranks.first(rows))
        found = compute(images.pixels(own, backbone.settings.size)) if own else []
        return [(part, values) for part, values in self.ranks.all((own, found)) if part]

    def _serve(self, backbone: Backbone, images: ImageSource) -> None:
        compute: stored.Extract | None = None
        while (rows := self.ranks.first(END)) is not END:
            compute = compute or stored.extractor(backbone, Path(str(self.root)))
            own = self.ranks.share(rows)
            self.ranks.all((own, compute(images.pixels(own, backbone.settings.size)) if own else []))
