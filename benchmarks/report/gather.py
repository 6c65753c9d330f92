"""What the stored results say, as one record that every section of the report reads."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.common.results import RESULTS, stored
from benchmarks.common.tables import sections
from benchmarks.common.views import ALL, VIEWS, named
from benchmarks.quality.table import apart, marks
from benchmarks.report.ranks import Ranking, ranking
from components.detectors.catalogue import CATALOGUE, detector_class

UNIFIED = "unified"
Entry = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Of one method, medians over the views it was measured on: training in CPU seconds, peak memory in MiB, the
    exported graph in milliseconds and in times of the bare backbone, learned weights in millions, model file in MB."""

    train: float | None
    memory: float
    ms: float
    ratio: float
    learned: float
    state: float


@dataclass(frozen=True)
class Results:
    """Files of benchmarks/results/ by stem, and the text of defects.md."""

    files: Mapping[str, Any]
    defects: str = ""

    @classmethod
    def read(cls, folder: Path = RESULTS) -> "Results":
        names = ("fit", "choice", "floor", "mechanisms", "labelled", "average", "pose")
        found = {name: stored(folder / f"{name}.json") for name in names}
        path = folder / "defects.md"
        return cls(found, path.read_text() if path.exists() else "")

    @cached_property
    def entries(self) -> dict[str, dict[str, Entry]]:
        """View -> method -> entry of fit.json, seed 0."""
        found: dict[str, dict[str, Entry]] = {}
        for name, entry in sorted(self.files["fit"].items()):
            view, detector, seed = named(name)
            if not seed and view != UNIFIED and detector in CATALOGUE:
                found.setdefault(view, {})[detector] = entry
        return {view: found[view] for view in (*ALL, *sorted(set(found) - set(ALL))) if view in found}

    @cached_property
    def auroc(self) -> dict[str, dict[str, float]]:
        """View -> method -> image AUROC."""
        return {
            view: {n: e["overall"]["image"]["auroc"] for n, e in own.items() if "auroc" in e["overall"]["image"]}
            for view, own in self.entries.items()
        }

    @cached_property
    def main(self) -> tuple[str, ...]:
        """The views that all but a few methods were measured on."""
        return tuple(view for view in VIEWS if view in self.auroc)

    @cached_property
    def ranking(self) -> Ranking:
        return ranking(self.auroc, self.main)

    @cached_property
    def mean(self) -> dict[str, float]:
        """Mean image AUROC over the main views, of the methods that all of them have."""
        return {name: mean(self.auroc[view][name] for view in self.main) for name in self.ranking.ranks}

    def entry(self, view: str, name: str) -> Entry:
        return self.entries[view][name]

    def interval(self, view: str, name: str) -> tuple[float, float]:
        """The 95 % interval of an image AUROC."""
        low, high = self.entry(view, name)["overall"]["image"]["interval"]["auroc"]
        return low, high

    def pixel(self, view: str, name: str, key: str = "ap") -> float | None:
        value: float | None = self.entry(view, name)["overall"]["pixel"].get(key)
        return value

    def marks(self, view: str, name: str) -> str:
        """Those of the tables of results/fit.md."""
        return marks(view, name, self.entry(view, name)) + "A" * self.apart(view, name)

    def apart(self, view: str, name: str) -> bool:
        """Whether the figure tells of how the good test pictures were taken, too: mark A."""
        return apart(self.entry(view, name), self.files.get("choice", {}).get(f"{view}/{name}"))

    def ranked(self, view: str) -> list[str]:
        """The methods of a view, best first."""
        own = self.auroc.get(view, {})
        return sorted(own, key=lambda name: (-own[name], name))

    def fair(self, view: str) -> list[str]:
        """The methods of a view, best first, whose figure tells of defects alone."""
        return [name for name in self.ranked(view) if not self.apart(view, name)]

    def cost(self, name: str) -> Cost:
        own = [found[name] for found in self.entries.values() if name in found]
        cpu = [e["seconds"]["train CPU"] for e in own if "train CPU" in e["seconds"]]
        return Cost(
            median(cpu) if cpu else None,
            median(e["peak_memory_mb"] for e in own),
            median(e["onnx"]["ms"] for e in own),
            median(e["onnx"]["ratio"] for e in own),
            median(e["parameters"]["learned"] for e in own),
            median(e["state_mb"] for e in own),
        )

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """Methods of the catalogue that have been measured somewhere."""
        return tuple(name for name in CATALOGUE if any(name in own for own in self.entries.values()))

    @cached_property
    def unmeasured(self) -> tuple[str, ...]:
        return tuple(name for name in CATALOGUE if name not in self.measured)

    @cached_property
    def commits(self) -> Counter[str]:
        """How many figures of fit.json are of which commit; ``+``: of a changed tree."""
        return Counter(
            str(entry.get("commit"))[:8] + ("+" if str(entry.get("commit")).endswith("+") else "")
            for entry in self.files["fit"].values()
        )

    @cached_property
    def by_kind(self) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        """View -> head and rows of the first table of defects.md: image AUROC by kind of defect."""
        return {view: parsed(text) for view, text in sections(self.defects).items()}


def parsed(text: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the first Markdown table in *text*."""
    block = re.search(r"^\|.*(?:\n\|.*)+", text, re.MULTILINE)
    lines = (
        [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in block[0].splitlines()] if block else []
    )
    return (lines[0], lines[2:]) if lines else ((), [])


def short(name: str) -> str:
    """The name that people type, with its page: for tables."""
    return f"[{name}](../methods/{name}.md)"


def title(name: str) -> str:
    """A method's name with its page."""
    return f"[{detector_class(name).info.title}](../methods/{name}.md)"
