"""What the search for copies finds, misses and costs.

Of each set up to 150 good pictures are drawn evenly by name. Found among them: *false* copies. Of 50 of them copies are
made, five of a kind, one kind at a time beside the others: *missed* ones are counted by kind. Made sets are shots with
noise of their own of one scene. No label beyond normal is read. Results: benchmarks/results/duplicates.md and .json.
"""

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter1d, shift

from benchmarks.common.results import RESULTS, stored
from benchmarks.common.runner import asking, command, options, peak_mb, tell, told
from benchmarks.common.tables import markdown, stacked
from components.core.artefacts import write_json
from components.datasets.adapters import adapter
from components.datasets.duplicates import Copies, Pictures, find_copies
from components.datasets.manifest import measure
from components.datasets.settings import SplitSettings
from components.pictures.decoding import decode

DRAWN, PER_KIND, SCALES = 150, 5, (1000, 5000, 20_000)
OUT = RESULTS / "duplicates.md"
Pixels = Image.Image
SETS = {
    "elpv mono": ("elpv", "elpv", "mono"),
    "elpv poly": ("elpv", "elpv", "poly"),
    "mtd": ("mtd", "mtd", None),
    "screw": ("mvtec_ad_screw", "folder", None),
    "bsdata": ("bsdata", "bsdata", None),
    "bottle": ("mvtec_ad_bottle", "folder", None),
    "kolektor_sdd": ("kolektor_sdd", "folder", None),
}


def encoded(quality: int) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        stream = io.BytesIO()
        image.save(stream, "jpeg", quality=quality)
        return Image.open(io.BytesIO(stream.getvalue()))

    return change


def resized(share: float) -> Callable[[Pixels], Pixels]:
    return lambda image: image.resize((int(image.width * share), int(image.height * share)), Image.Resampling.BICUBIC)


KINDS: dict[str, Callable[[Pixels], Pixels]] = {
    "JPEG 95": encoded(95),
    "JPEG 80": encoded(80),
    "JPEG 60": encoded(60),
    "JPEG 40": encoded(40),
    "resized to 80 %": resized(0.8),
    "resized to 50 %": resized(0.5),
    "moved by 4 and 3": lambda image: Image.fromarray(np.roll(np.asarray(image), (4, 3), (0, 1))),
    "cropped by 4 and 5": lambda image: image.crop((3, 2, image.width - 1, image.height - 3)),
    "cropped by 12 and 7": lambda image: image.crop((8, 5, image.width - 4, image.height - 2)),
}


def printed(side: int) -> np.ndarray:
    """A printed label: sharp print that every shot repeats."""
    image = Image.new("L", (side, side), 205)
    pen = ImageDraw.Draw(image)
    for line in range(side // 16):
        pen.text((8, 6 + 16 * line), f"LOT 24{line:02d}  REF 88-{line * 7:03d}  STERILE", fill=25)
    return np.asarray(image, float)


def brushed() -> np.ndarray:
    """A brushed surface: fine texture that every shot repeats."""
    return 130 + 2.5 * gaussian_filter1d(np.random.default_rng(99).normal(0, 12, (260, 300)), 6, axis=1)


def shot(scene: np.ndarray, seed: int, noise: float, jitter: float = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    placed = shift(scene, rng.uniform(-jitter, jitter, 2), order=1, mode="nearest") if jitter else scene
    grey = placed * rng.normal(1, 0.01) + rng.normal(0, noise, scene.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))


MADE: dict[str, Callable[[int], Pixels]] = {
    "label in a fixture, noise 3": lambda seed: shot(printed(200), seed, 3),
    "label by hand, noise 3": lambda seed: shot(printed(200), seed, 3, 4),
    "label by hand, noise 1": lambda seed: shot(printed(200), seed, 1, 1),
    "one brushed part, noise 3": lambda seed: shot(brushed(), seed, 3),
    "clean film, noise 0.8": lambda seed: shot(np.full((200, 200), 180.0), seed, 0.8),
    "rendering without noise": lambda seed: shot(printed(200), seed, 0, 2),
}


def main(arguments: list[str]) -> None:
    parser = options("duplicates", __doc__, report=True)
    parser.add_argument("--scale", type=int, metavar="N", help="only time a search among N shots")
    parser.add_argument("names", nargs="*", metavar="SET")
    asked = parser.parse_args(arguments)
    if asked.scale:
        tell(scale(asked.scale))
        return
    if not asked.report:
        search(asked.names)
    OUT.write_text(report(stored(OUT.with_suffix(".json"))))


def search(names: list[str]) -> None:
    """Count what is found in the sets of *names*; without names in all, and time it as well."""
    known = stored(OUT.with_suffix(".json"))
    found = known.get("sets", {})
    for name in names or [*SETS, *MADE]:
        if name in MADE or (Path("data") / SETS[name][0]).is_dir():
            found[name] = row(originals(name))
            sys.stderr.write(f"{name}: {found[name]}\n")
    # Each scale is a process of its own, so that its memory is its own.
    scales = (told(asking(command("duplicates", "--scale", count))) for count in SCALES)
    write_json(OUT.with_suffix(".json"), {"sets": found, "scale": known.get("scale", []) if names else list(scales)})


def originals(name: str) -> list[Pixels]:
    if name in MADE:
        return [MADE[name](seed) for seed in range(DRAWN)]
    folder, kind, group = SETS[name]
    rows = adapter(kind).rows(Path("data") / folder)
    names = sorted(r.image_id for r in rows if r.label == "normal" and group in (None, r.group))
    drawn = np.unique(np.linspace(0, len(names) - 1, min(DRAWN, len(names))).astype(int))
    return [Image.fromarray(decode(Path("data") / folder / names[i])) for i in drawn]


def row(images: list[Pixels]) -> dict[str, int]:
    """Pictures, false copies among them, silent ones; and per kind how many of PER_KIND copies are found."""
    with tempfile.TemporaryDirectory() as folder:
        alone = searched(images, Path(folder))
        counts = {"pictures": len(images), "false": len(pairs(alone)), "without noise": len(alone.silent)}
        for at, (kind, change) in enumerate(KINDS.items()):
            chosen = [(PER_KIND * at + k) % len(images) for k in range(PER_KIND)]
            found = pairs(searched([*images, *(change(images[i]) for i in chosen)], Path(folder)))
            counts[kind] = sum((i, len(images) + k) in found for k, i in enumerate(chosen))
        return counts


def pairs(found: Copies) -> set[tuple[int, int]]:
    return {(i, j) for i, j, _ in found.pairs} | {(one, k) for k, one in enumerate(found.same) if one < k}


def searched(images: Iterable[Pixels], folder: Path) -> Copies:
    paths, sizes, hashes = [], [], []
    for number, image in enumerate(images):
        paths.append(folder / f"{number:05d}.png")
        if not paths[-1].exists() or number >= DRAWN:
            image.save(paths[-1], compress_level=1)
        measures = measure(np.asarray(image.convert("RGB")))
        sizes.append((measures["height"], measures["width"]))
        hashes.append(measures["phash"])
    return find_copies(Pictures(paths, np.array(sizes), hashes), SplitSettings().likeness)


def scale(count: int) -> dict[str, float]:
    """Seconds and peak memory of the search among *count* shots of a fixed camera, 320 x 320."""
    scene = printed(320)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed:05d}.png" for seed in range(count)]
        for seed, path in enumerate(paths):
            shot(scene, seed, 3).save(path, compress_level=1)
        print_hash = measure(np.repeat(np.asarray(Image.open(paths[0]))[..., None], 3, 2))["phash"]
        before = time.perf_counter()
        found = find_copies(Pictures(paths, np.full((count, 2), 320), [print_hash] * count), SplitSettings().likeness)
        seconds = time.perf_counter() - before
    return {"pictures": count, "seconds": round(seconds, 1), "memory_mb": peak_mb(), "false": len(pairs(found))}


def report(result: dict[str, Any]) -> str:
    """results/duplicates.md."""
    head = ("set", "pictures", "false", "without noise", *KINDS)
    # Sets in the order of this file: those of a stored result are sorted.
    sets = {name: result["sets"][name] for name in (*SETS, *MADE) if name in result["sets"]}
    found = ([name, *(str(counts[key]) for key in head[1:])] for name, counts in sets.items())
    scales = ([str(s[key]) for key in ("pictures", "seconds", "memory_mb", "false")] for s in result["scale"])
    return (
        "\n\n".join(
            (
                "# Copies",
                f"Copies found of {PER_KIND} made of a kind; *false*: pairs found among different pictures.",
                stacked(head, list(found), 1, "resized to 80 %"),
                "Shots of one fixed camera, 320 x 320, two cores:",
                markdown(("pictures", "seconds", "peak memory, MB", "false"), scales),
            )
        )
        + "\n"
    )
