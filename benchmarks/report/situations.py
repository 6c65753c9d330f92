"""Which method to take in six situations, by one rule from the stored figures; what no figure says is said to be so.

The rule: on the views that stand for the situation a method is a *candidate* where its image AUROC reaches into the
95 % interval of the best one, on every one of them. Of the candidates that with the highest mean is taken. The fastest
candidate, by the exported graph, is named beside it. Figures that are marked A stay out.
"""

from dataclasses import dataclass
from statistics import mean

from benchmarks.common.views import named
from benchmarks.report.gather import UNIFIED, Results, short, title
from components.report.blocks import Block, Entries, Entry, Table, Text

MEASURED, DESIGN = "measured", "design"
RULE = (
    "On the views that stand for a situation, a method is a candidate where its image AUROC reaches into the 95 % "
    "interval of the best one, on each of these views. Of the candidates the one with the highest mean is taken, and "
    "the one with the fastest exported graph is named beside it where it is another. A figure with mark A is no "
    "evidence: it tells of how the good test pictures were taken, too. Labels of test pictures made this "
    "page; they chose no setting of any method. Grounds: what figures say is measured; what follows from how a method "
    "works is design."
)


@dataclass(frozen=True)
class Advice:
    """An answer to one situation: what to take, on what grounds, and what the figures do not cover."""

    situation: str
    take: str
    grounds: str  # MEASURED, DESIGN, or both in words
    evidence: str
    beyond: str
    faster: str = ""


def candidates(found: Results, views: tuple[str, ...]) -> list[str]:
    """By the rule, highest mean first; empty where a view is not measured."""
    fair = {view: found.fair(view) for view in views}
    if not views or not all(fair.values()):
        return []
    lows = {view: found.interval(view, names[0])[0] for view, names in fair.items()}
    names = set.intersection(*map(set, fair.values()))
    kept = [name for name in names if all(found.auroc[view][name] >= lows[view] for view in views)]
    return sorted(kept, key=lambda name: (-mean(found.auroc[view][name] for view in views), name))


def advise(found: Results) -> list[Advice]:
    """The six situations, in the order in which they are asked for."""
    return [few(found), pose(found), texture(found), big(found), many(found), known(found)]


def few(found: Results) -> Advice:
    """Few good pictures: the views with the fewest of them."""
    counts = {view: entry["fit"] for view, entry in found.files["pose"].items()}
    views = tuple(sorted((view for view in counts if found.auroc.get(view)), key=lambda view: counts[view])[:2])
    said = ", ".join(f"{view} has {counts[view]}" for view in views)
    return Advice(
        "Few good pictures",
        _taken(found, views),
        f"{MEASURED} to {min((counts[v] for v in views), default=0)} pictures; fewer: {DESIGN}",
        f"{_figures(found, views)}. Pictures to learn from: {said}.",
        "Nothing was measured with fewer. A memory bank and a Gaussian take no gradient steps, so there is nothing to "
        "train too long; with few pictures the threshold is set by folds ([thresholds](../thresholds.md)).",
        _faster(found, views),
    )


def pose(found: Results) -> Advice:
    """The part lies at any angle."""
    return Advice(
        "The part lies at any angle",
        _taken(found, ("screw",)),
        MEASURED,
        f"{_figures(found, ('screw',))}. Screws lie at any angle there.",
        "One product. Methods that judge each position by itself (PaDiM, NLN, PAEDID) are at a loss by design. Moves "
        "of the square are learned where good pictures allow it ([pose](../pose.md)).",
        _faster(found, ("screw",)),
    )


def texture(found: Results) -> Advice:
    """Surfaces whose normal look is irregular."""
    views = ("mtd", "elpv-poly")
    return Advice(
        "A texture: tiles, grain, cloth",
        _taken(found, views),
        MEASURED,
        f"{_figures(found, views)}. Magnetic tiles, and solar cells with crystal grain.",
        "Two surfaces. Cloth, wood and leather were not measured.",
        _faster(found, views),
    )


def big(found: Results) -> Advice:
    """Pictures far larger than a detector's input: single trainings beside sizes in squares, averaged."""
    view = "kolektor_sdd"
    names, cut = found.ranked(view), found.files["average"].get(view, {})
    several = cut.get("means", {}).get(cut.get("auto"), {}).get("auroc", 0.0)
    take, squares = _taken(found, (view,)), ""
    if several:
        alone = cut["singles"]["256"]["auroc"]
        squares = (
            f" {title('patchcore')} in squares: {alone:.3f} at 256 pixels, {several:.3f} averaged over the sizes of "
            f"`size: auto` ({cut['auto']}; [figures](../../benchmarks/results/average.md))."
        )
    if names and several > found.auroc[view][names[0]]:
        take = f"{short('patchcore')}, default sizes"
    return Advice(
        "Large pictures, small defects",
        take,
        f"{MEASURED} on {len(names)} methods",
        f"One training each, in results/fit.json: {_figures(found, (view,))}.{squares}",
        "`loupe fit` averages [sizes](../sizes.md) and cuts long pictures into [squares](../tiles.md) by itself. The "
        "other methods have not been measured on this view.",
    )


def many(found: Results) -> Advice:
    """Many products: one model for all, or one for each."""
    one = _unified(found)
    each = {name: mean(found.auroc[view][name] for view in found.main) for name in found.mean}
    best = max(each, key=lambda name: each[name], default="")
    text = "; ".join(f"{title(name)} {value:.3f}" for name, value in sorted(one.items(), key=lambda pair: -pair[1]))
    per = "; ".join(
        f"{title(name)} {each[name]:.3f}" for name in sorted(one, key=lambda name: -one[name]) if name in each
    )
    top = max(one, key=lambda name: one[name], default="")
    less = each.get(best, 0) - one.get(top, 0)
    return Advice(
        "Many products",
        f"{short(best)}, a model per product" if best else "not measured",
        MEASURED,
        f"Mean image AUROC over {len(found.main)} groups: {title(best)} for each product {each[best]:.3f}; one "
        f"model for all: {text}; the same methods for each product: {per}."
        if one and best
        else "One model for all was not measured.",
        f"The best single model is {less:.3f} below. Take it only where one file for all products is worth that. Four "
        "groups are few; the authors have fifteen.",
    )


def known(found: Results) -> Advice:
    """Some labelled defects are at hand."""
    entry = found.files["labelled"].get("mtd/20")
    if not entry:
        return Advice("Known defects", "not measured", DESIGN, "PRN learns from labelled anomalies too.", "")
    without, given = entry["without"], entry["with"]
    best = found.ranked("mtd")[0]
    low = given["image"]["interval"]["auroc"][0]
    decide = f"{short(best)}; " if found.auroc["mtd"][best] > given["image"]["auroc"] else ""
    return Advice(
        "Known defects, labelled",
        f"{decide}to locate: {short('prn')}",
        f"{MEASURED} on mtd",
        f"{title('prn')} with 20 labelled anomalies of mtd: image AUROC {given['image']['auroc']:.3f} "
        f"(from {low:.3f}), without them {without['image']['auroc']:.3f}; pixel AP "
        f"{given['pixel']['ap']:.3f}, without them {without['pixel']['ap']:.3f}. {title(best)} from good pictures "
        f"alone: image AUROC {found.auroc['mtd'][best]:.3f}, pixel AP {_ap(found, 'mtd', best)}, "
        "on a slightly larger test side.",
        "What is labelled pulls the model towards known kinds; new kinds of defect were not tried. Known defects can "
        "also choose the threshold (`loupe calibrate --labelled`).",
    )


def blocks(found: Results) -> tuple[Block, ...]:
    """The answers at a glance, the rule, and what each rests on."""
    answers = advise(found)
    rows = tuple((one.situation, f"**{one.take}**", one.faster or "-", one.grounds) for one in answers)
    entries = (
        Entry(one.situation, (("evidence", one.evidence), ("beyond the figures", one.beyond))) for one in answers
    )
    return Table(("situation", "take", "faster, as good", "grounds"), rows), Text(RULE, "note"), Entries(tuple(entries))


def _taken(found: Results, views: tuple[str, ...]) -> str:
    names = candidates(found, views) if views else []
    return short(names[0]) if names else "not measured"


def _faster(found: Results, views: tuple[str, ...]) -> str:
    """The fastest candidate, where it is another one."""
    names = candidates(found, views) if views else []
    fastest = min(names, key=lambda name: found.cost(name).ratio, default="")
    return short(fastest) if fastest and fastest != names[0] else ""


def _figures(found: Results, views: tuple[str, ...]) -> str:
    """Image AUROC with its interval of the candidates, per view."""
    names = candidates(found, views)
    said = []
    for view in views:
        own = ", ".join(f"{title(n)}{_marked(found, view, n)} {found.auroc[view][n]:.3f}" for n in names[:3])
        if best := found.fair(view)[:1]:
            low, high = found.interval(view, best[0])
            said.append(f"{view} (best: {low:.3f} to {high:.3f}, {len(found.auroc[view])} methods): {own}")
    return "; ".join(said) or "no figure"


def _marked(found: Results, view: str, name: str) -> str:
    found_marks = found.marks(view, name)
    return f" [{found_marks}]" if found_marks else ""


def _ap(found: Results, view: str, name: str) -> str:
    value = found.pixel(view, name)
    return "no masks" if value is None else f"{value:.3f}"


def _unified(found: Results) -> dict[str, float]:
    """Method -> mean image AUROC over the groups, of one model for all."""
    return {
        detector: mean(group["image"]["auroc"] for group in entry["groups"].values())
        for name, entry in found.files["fit"].items()
        for view, detector, seed in [named(name)]
        if view == UNIFIED and not seed
    }
