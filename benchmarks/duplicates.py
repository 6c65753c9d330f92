"""What the near-duplicate test tells apart: ``python -m benchmarks.duplicates``.

For each set of normals: pairs of different pictures that the hash proposes (up to 1,500 drawn with seed 0), and copies
made of 25 pictures. Written to benchmarks/results/duplicates.md. No labels beyond normal are read.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from components.datasets.duplicates import Likeness, _grey, compare, proposals
from components.datasets.manifest import DataSettings, make_manifest
from components.datasets.splits import SplitSettings
from components.decoding import decode

SETS = (("elpv", "elpv", "mono"), ("elpv", "elpv", "poly"), ("mtd", "mtd", "mtd"), ("mvtec_ad_screw", "folder", None))
COPIES = ("JPEG 95", "JPEG 80", "JPEG 60", "JPEG 40", "resized to 80 %", "shifted by 4 and 3 pixels")
OUT = Path(__file__).parent / "results" / "duplicates.md"


def main() -> None:
    lines = ["| set | pairs | detail | difference in grey levels | found |", "| --- | --- | --- | --- | --- |"]
    for name, adapter, group in SETS:
        lines += [f"| {name} {group or ''} | {line}" for line in rows(name, adapter, group)]
        sys.stderr.write(f"{name} done\n")
    OUT.write_text("\n".join(lines) + "\n")


def rows(name: str, adapter: str, group: str | None) -> list[str]:
    data = Path("data") / name
    with tempfile.TemporaryDirectory() as folder:
        made = make_manifest(data, Path(folder) / name, DataSettings(adapter, name))
        table = pd.read_parquet(made / "manifest.parquet")
        chosen = table[(table["label"] == "normal") & ((table["group"] == group) | (group is None))]
        paths = [data / i for i in chosen["image_id"]]
        pairs = proposals(list(chosen["phash"]), SplitSettings().hash_distance)
        drawn = np.random.default_rng(0).permutation(len(pairs))[:1500]
        greys = {k: _grey(paths[k]) for k in {k for i in drawn for k in pairs[i]}}
        found = [compare(greys[pairs[i][0]], greys[pairs[i][1]]) for i in drawn]
        lines = [line(f"different pictures ({len(found)} of {len(pairs)} proposed)", found, True)]
        return lines + [line(kind, [copied(p, kind, Path(folder)) for p in paths[:25]], False) for kind in COPIES]


def copied(path: Path, kind: str, folder: Path) -> Likeness:
    image, target = Image.fromarray(decode(path)), folder / "copy.png"
    if kind.startswith("JPEG"):
        target = folder / "copy.jpg"
        image.save(target, quality=int(kind.split()[1]))
    elif kind.startswith("resized"):
        image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.BICUBIC).save(target)
    else:
        Image.fromarray(np.roll(np.asarray(image), (4, 3), (0, 1))).save(target)
    return compare(_grey(path), _grey(target))


def line(kind: str, found: list[Likeness], different: bool) -> str:
    """The nearest miss: the most alike of different pictures, the least alike of copies."""
    settings = SplitSettings()
    detail = (max if different else min)(x.detail for x in found)
    difference = (min if different else max)(x.difference for x in found)
    share = np.mean([x.same(settings.detail, settings.difference) for x in found])
    sign = ("≤", "≥") if different else ("≥", "≤")
    return f"{kind} | {sign[0]} {detail:.3f} | {sign[1]} {difference:.2f} | {share:.1%} |"


if __name__ == "__main__":
    main()
