"""What the surveys say of families, in our words, and what our figures say to it.

Verdicts: agree, in part, disagree, not measured.

Each comes from the stored results by the comparison that stands with it, so that a new measurement may turn it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean, median

from benchmarks.report.gather import Results, title
from benchmarks.report.taxonomy import CUI, PLACES, place
from components.detectors.catalogue import detector_class
from components.detectors.contract import PixelDetector
from components.report.blocks import Entries, Entry

AGREE, PART, DISAGREE, OPEN = "agree", "in part", "disagree", "not measured"
RECONSTRUCTION, FLOW, REPRESENTATION, AUGMENTATION, _ = CUI
HIGH, LOW = 0.9, 0.1  # a pixel AUROC that looks good, a pixel AP that is not
SOLVED = 0.99  # an image AUROC above which a view tells methods apart no more
NEAR = 0.02  # of image AUROC: differences of single trainings below this say little


@dataclass(frozen=True)
class Claim:
    """What is said, by whom, and how our figures are asked."""

    title: str
    says: str
    source: str
    ask: Callable[[Results], tuple[str, str]]  # -> verdict, evidence


def rebuilds(found: Results) -> tuple[str, str]:
    """Pixel reconstruction beside the distance from the mean picture, which learns nothing."""
    names = [name for name in of(found, RECONSTRUCTION) if pixels(name)]
    floors = {
        n: e["pixel_mean"]["difference"][0] for n, e in found.files["floor"].items() if n.partition("/")[2] in names
    }
    if not floors:
        return OPEN, ""
    below = [n for n, low in floors.items() if low <= 0]
    said = f"{len(below)} of {len(floors)} trainings of {len(names)} methods do not clearly beat the pixel-mean image"
    return (AGREE if len(below) > len(floors) / 4 else PART), f"{said} ([floors](../../benchmarks/results/floor.md))."


def features(found: Results) -> tuple[str, str]:
    """Features beside pixels within the reconstruction family."""
    names = of(found, RECONSTRUCTION)
    inside = {"features": [n for n in names if not pixels(n)], "pixels": [n for n in names if pixels(n)]}
    if not all(inside.values()):
        return OPEN, ""
    means = {what: mean(found.mean[n] for n in own) for what, own in inside.items()}
    gap = means["features"] - means["pixels"]
    said = f"Mean image AUROC: over frozen features {means['features']:.3f}, from pixels {means['pixels']:.3f}."
    return (AGREE if gap > NEAR else DISAGREE if gap < -NEAR else PART), said


def flows(found: Results) -> tuple[str, str]:
    """The flow: good where parts lie alike, and at what cost."""
    if "fastflow" not in found.mean:
        return OPEN, ""
    own = {view: found.auroc[view]["fastflow"] for view in found.main}
    worst, best = min(own, key=lambda v: own[v]), max(own, key=lambda v: own[v])
    cost = found.cost("fastflow")
    others = median(found.cost(n).ratio for n in found.mean)
    place_ = list(found.ranking.ranks).index("fastflow") + 1
    said = (
        f"{title('fastflow')} is number {place_} by mean rank: {own[best]:.3f} on {best}, {own[worst]:.3f} on {worst}. "
        f"Its graph takes {cost.ratio:.1f} times the bare backbone, the median of all methods is {others:.1f}."
    )
    return (AGREE if place_ <= 5 and own[worst] > 0.9 else PART), said


def banks(found: Results) -> tuple[str, str]:
    """Frozen features and a distance: best without training, at the price of a search."""
    names = of(found, REPRESENTATION)
    if not names:
        return OPEN, ""
    first = list(found.ranking.ranks)[:2]
    top = max(found.cost(n).ratio for n in names)
    others = [found.cost(n).ratio for n in found.mean if n not in names]
    said = (
        f"First by mean rank: {', '.join(title(n) for n in first)}. The slowest graph of this family takes {top:.1f} "
        f"times the bare backbone, the median of the other methods {median(others):.1f}."
    )
    return (AGREE if first[0] in names and top > median(others) else PART), said


def synthetic(found: Results) -> tuple[str, str]:
    """Made anomalies: sharp maps where they are like the real ones, blind where they are not."""
    names = of(found, AUGMENTATION)
    if not names:
        return OPEN, ""
    spread = [found.auroc[v][n] for v in found.main for n in names]
    sharp = [v for v in found.main if (best := best_ap(found, v)) and best[0] in names]
    tops = ", ".join(
        f"{title(best[0])} on {v} ({best[1]:.3f}{told(found, v, best[0])})"
        for v in sharp
        if (best := best_ap(found, v))
    )
    said = f"Image AUROC from {min(spread):.3f} to {max(spread):.3f} over methods and views. "
    said += f"Highest pixel AP of all: {tops}." if tops else "No highest pixel AP."
    return (AGREE if sharp and max(spread) - min(spread) > 0.2 else PART), said


def saturated(found: Results) -> tuple[str, str]:
    """A view of the public benchmark beside the others."""
    if "bottle" not in found.auroc:
        return OPEN, ""
    easy = found.auroc["bottle"]
    hard = {v: found.auroc[v][found.ranked(v)[0]] for v in found.auroc if v != "bottle"}
    said = f"On bottle {', '.join(f'{title(n)} {a:.3f}' for n, a in easy.items())}; the best elsewhere: " + ", ".join(
        f"{v} {a:.3f}" for v, a in hard.items()
    )
    return (AGREE if min(easy.values()) > SOLVED > max(hard.values()) else PART), said + "."


def pixel_ap(found: Results) -> tuple[str, str]:
    """Pixel AUROC beside pixel AP where defects are small."""
    both = [
        (v, n, auroc, ap)
        for v in found.main
        for n in found.auroc[v]
        if (auroc := found.pixel(v, n, "auroc")) is not None and (ap := found.pixel(v, n)) is not None
    ]
    flattered = [(v, n) for v, n, auroc, ap in both if auroc > HIGH and ap < LOW]
    if not both:
        return OPEN, ""
    said = (
        f"{len(flattered)} of {len(both)} trainings have a pixel AUROC above {HIGH} and a pixel AP below {LOW}: "
        f"the map looks right by one figure and is of no use by the other."
    )
    return (AGREE if flattered else DISAGREE), said


CLAIMS = (
    Claim(
        "Pixels that are rebuilt",
        "Reconstruction from pixels is simple and shows its reasons, but a network that generalises well rebuilds the "
        "defect too, and fine structure is blurred.",
        "Cui et al., category 1; Tao et al., image reconstruction",
        rebuilds,
    ),
    Claim(
        "Features instead of pixels",
        "Students and reconstructions over features of a pre-trained network do better than over pixels.",
        "Cui et al., category 1; Tao et al., feature embedding",
        features,
    ),
    Claim(
        "Normalizing flows",
        "Normalizing flows are exact densities and accurate, and they are heavy.",
        "Cui et al., category 2",
        flows,
    ),
    Claim(
        "Memory banks and Gaussians",
        "Distances between frozen features are accurate without training; their memory and search cost at inference.",
        "Cui et al., category 3; Tao et al., feature embedding",
        banks,
    ),
    Claim(
        "Synthetic anomalies",
        "Synthetic anomalies give sharp maps, as far as they resemble the real defects.",
        "Cui et al., category 4",
        synthetic,
    ),
    Claim(
        "Public sets are nearly solved",
        "Nearly full AUROC on public sets says little of a plant.",
        "Cui et al., outlook",
        saturated,
    ),
    Claim(
        "Figures of pixels",
        "Pixel AP is a fairer figure of localisation than pixel AUROC.",
        "Tao et al., metrics",
        pixel_ap,
    ),
)
ABOUT = (
    "What the two surveys and their fields hold of whole families, in our words. Their full texts were not at hand, "
    "only abstracts and reading notes: check the originals before you quote them. Beside each statement stands what "
    "our figures say; a verdict is computed from the stored results."
)


def told(found: Results, view: str, name: str) -> str:
    """The marks of a figure, behind it."""
    marks = found.marks(view, name)
    return f", marks {marks}" if marks else ""


def of(found: Results, category: str) -> list[str]:
    """Methods of a category of Cui et al. that all main views have."""
    return [name for name in found.mean if name in PLACES and place(name).cui == category]


def pixels(name: str) -> bool:
    """Whether a method learns from pixels."""
    return issubclass(detector_class(name), PixelDetector)


def best_ap(found: Results, view: str) -> tuple[str, float] | None:
    """The method with the highest pixel AP of a view, and that."""
    known = {n: ap for n in found.auroc[view] if (ap := found.pixel(view, n)) is not None}
    return max(known.items(), key=lambda pair: pair[1]) if known else None


def block(found: Results, claims: Iterable[Claim] = CLAIMS) -> Entries:
    """Each claim with its verdict as an entry of a page."""
    items = []
    for claim in claims:
        verdict, evidence = claim.ask(found)
        items.append(
            Entry(
                claim.title,
                (
                    ("surveys", claim.says),
                    ("after", claim.source),
                    ("our figures", f"**{verdict}**. {evidence}".strip()),
                ),
            )
        )
    return Entries(tuple(items))
