"""The benchmark report as a page of blocks, from the stored results alone."""

from collections.abc import Iterator
from typing import Any

from benchmarks.common.tables import number, within
from benchmarks.quality import floor
from benchmarks.quality.table import ABOUT
from benchmarks.report import claims, datasets, plots, situations
from benchmarks.report.gather import Results, short, title
from benchmarks.report.taxonomy import place, published, why
from components.core.records import SIZE_NAMES
from components.report.blocks import (
    Block,
    Bullets,
    Entries,
    Entry,
    Fact,
    Facts,
    Figure,
    Figures,
    Kind,
    Page,
    Section,
    Table,
    Text,
)
from components.report.found import spoken

MARKS = ABOUT.partition("\n\n")[2].replace("../../docs/", "../").replace("\n", " ")
MISSING = "-"


def page(found: Results, kind: Kind, save: plots.Save, gallery: tuple[Block, ...]) -> Page:
    """Everything; figures are drawn by *save* and are of *kind*."""
    parts = (
        Section("Which one do I take?", (*situations.blocks(found),), "Which one?"),
        Section("Leaderboard by view", tuple(leaderboard(found)), "Leaderboard"),
        Section("Ranks over views", tuple(ranks(found, kind, save)), "Ranks"),
        Section("Accuracy against time", tuple(pareto(found, kind, save)), "Time"),
        Section("By kind and size of defect", tuple(defects(found)), "Defects"),
        Section("Floors", tuple(floors(found)), "Floors"),
        Section("Mechanisms", tuple(mechanisms(found)), "Mechanisms"),
        Section("Cost", tuple(cost(found)), "Cost"),
        Section("The same pictures, all methods", gallery, "Gallery"),
        Section("Methods in both surveys, and published figures", tuple(methods(found)), "Surveys"),
        Section(
            "What the surveys say, and what we measured", (Text(claims.ABOUT, "note"), claims.block(found)), "Claims"
        ),
        Section("Data sets of the surveys", (datasets.table(), Text(DATASETS, "note")), "Data sets"),
        Section("Where the figures are from", tuple(provenance(found)), "Sources"),
    )
    return Page(
        "Benchmark report",
        lead(found),
        parts,
        "Written by `loupe bench report` from stored results; it trains nothing.",
    )


DATASETS = (
    "Sizes after public lists; where these differ, the table says so. Cui et al. name six; what Tao et al. list was "
    "not confirmed. Views here: parts of four of these sets, and bsdata."
)


def lead(found: Results) -> tuple[str, ...]:
    """Three sentences for who reads no further."""
    names = list(found.ranking.ranks)
    first, second = names[:2]
    n = len(found.main)
    return (
        f"Take {title(first)} unless one of the six situations below says otherwise: it has the best mean rank and the "
        f"highest mean image AUROC ({found.mean[first]:.3f}) over {n} views.",
        f"{title(second)} follows ({found.mean[second]:.3f}); of {len(names)} methods only "
        f"{len({b for _, b in found.ranking.apart})} are clearly behind by rank: {n} views tell little.",
        "Read marks before you compare: most figures wait for a new run of the whole table on one commit.",
    )


def leaderboard(found: Results) -> Iterator[Block]:
    """One table per view, best first."""
    yield Text(MARKS, "note")
    head = ("method", "marks", "image AUROC (95 %)", "AP", "pixel AP", "AUPRO", "false alarms", "misses")
    for view in found.auroc:
        rows = tuple(_line(found, view, name) for name in found.ranked(view))
        yield Text(f"**{view}**, {len(rows)} methods")
        yield Table(head, rows)
    if found.unmeasured:
        yield Text(f"Not measured on these views: {', '.join(map(title, found.unmeasured))}.")


def _line(found: Results, view: str, name: str) -> tuple[str, ...]:
    overall = found.entry(view, name)["overall"]
    image, pixel = overall["image"], overall["pixel"]
    return (
        short(name),
        found.marks(view, name),
        within(image["auroc"], image["interval"]["auroc"]),
        number(image, "ap"),
        number(pixel, "ap", missing="no masks"),
        number(pixel, "aupro", missing="no masks"),
        *(number(overall[key], "rate") for key in ("false_alarm_rate", "miss_rate")),
    )


def ranks(found: Results, kind: Kind, save: plots.Save) -> Iterator[Block]:
    """Friedman and Nemenyi, and what so few views can tell."""
    known = found.ranking
    n, k = len(known.views), len(known.ranks)
    yield Facts(
        (
            Fact("views", str(n), ", ".join(known.views)),
            Fact("methods", str(k), "those that every view has"),
            Fact("critical difference", f"{known.difference:.1f} ranks", "Nemenyi, 5 %"),
            Fact("all alike?", f"p = {known.p:.1g}", "Friedman's test"),
        )
    )
    pairs = "; ".join(f"{title(a)} before {title(b)}" for a, b in known.apart) or "none"
    yield Text(
        f"Methods do differ, but {n} views can hardly say which: two mean ranks must be {known.difference:.1f} of "
        f"{k - 1} apart. Pairs that are: {pairs}. Two of the views are of one data set, so that even this is generous. "
        "A difference that is not significant here is no proof of equality; within a view, look at the intervals."
    )
    alt = "mean rank of each method, its ranks by view, and the critical difference from the best"
    yield Figures((Figure("ranks", alt, plots.ranks(known, save), kind, wide=True),))
    rows = tuple(
        (short(name), f"{mean:.2f}", f"{found.mean[name]:.3f}", *(f"{rank:g}" for rank in known.ranks[name]))
        for name, mean in known.means.items()
    )
    yield Table(("method", "mean rank", "mean image AUROC", *(f"rank on {view}" for view in known.views)), rows)
    left = [name for name in found.measured if name not in known.ranks]
    if left:
        yield Text(f"Without a rank, as not every one of these views is measured: {', '.join(map(title, left))}.")


def pareto(found: Results, kind: Kind, save: plots.Save) -> Iterator[Block]:
    """Quality over the time of the exported graph."""
    points = {name: (found.cost(name).ratio, found.mean[name]) for name in found.mean}
    line = plots.front(points)
    yield Text(
        "Time: the median over views of the exported graph's time for one picture, one thread, divided by that of the "
        "bare backbone on the same machine. The machine was shared: ratios compare, milliseconds do not."
    )
    alt = "mean image AUROC against the time of the exported graph"
    yield Figures((Figure("pareto", alt, plots.pareto(found, save), kind, wide=True),))
    yield Text("On the line, where no method is both faster and better: " + ", ".join(map(title, line)) + ".")


def defects(found: Results) -> Iterator[Block]:
    """Image AUROC by kind where defects have names; recall by size where it is stored."""
    for view, (head, rows) in found.by_kind.items():
        yield Text(f"**{view}**: image AUROC of all good pictures against those of one kind; in brackets how many.")
        yield Table(("method", *head[1:]), tuple((short(row[0]), *row[1:]) for row in rows))
        best = [max(rows, key=lambda row: float(row[at]))[0] for at in range(1, len(head))]
        said = ", ".join(f"{kind.partition(' (')[0]}: {title(name)}" for kind, name in zip(head[1:], best, strict=True))
        yield Text(f"Best on {view} by kind: {said}.")
    sizes = list(by_size(found))
    if sizes:
        yield Text("**By size**: share of defective pictures called anomalous at alpha 0.05, by the largest region.")
        yield Table(("view", "method", *(spoken(name) for name in SIZE_NAMES)), tuple(sizes), keys=2)
    else:
        yield Text("By size: no stored result has it yet; `loupe bench fit` stores it with every new measurement.")


def by_size(found: Results) -> Iterator[tuple[str, ...]]:
    """Rows of recall by size, of the entries that have it."""
    for view, own in found.entries.items():
        for name, entry in own.items():
            classes = entry["overall"].get("sizes", {}).get("classes", {})
            if classes:
                cells = (classes.get(size, {}).get("pictures", {}) for size in SIZE_NAMES)
                told = (f"{c['found']} of {c['n']}" if "recall" in c else MISSING for c in cells)
                yield (view, short(name), *told)


def floors(found: Results) -> Iterator[Block]:
    """Which of two floors each training clearly beats."""
    known = found.files["floor"]
    yield Text(
        "Two floors: the method untrained, and the distance from the mean picture, which learns nothing. "
        "The table names those that a training beats with the whole interval above zero "
        "([figures](../../benchmarks/results/floor.md)). A memory bank takes no gradient step: untrained it is itself."
    )
    views = [view for view in found.main if any(name.startswith(f"{view}/") for name in known)]
    names = [name for name in found.measured if any(f"{view}/{name}" in known for view in views)]
    rows = tuple((short(name), *(_beaten(known.get(f"{view}/{name}")) for view in views)) for name in names)
    yield Table(("method", *views), rows)


def _beaten(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return MISSING
    found = floor.beaten(entry)
    return "both" if len(found) == len(floor.FLOORS) else ", ".join(found) or "neither"


def mechanisms(found: Results) -> Iterator[Block]:
    """The main claim of each method, on and off."""
    yield Text(
        "What the publication adds, on and off: image AUROC with it less without it, and the 95 % interval. All parts: "
        "[mechanisms](../../benchmarks/results/mechanisms.md)."
    )
    studies = found.files["mechanisms"].get("studies", {})
    rows = tuple(
        (short(name), row["what"], row["view"], _difference(row), row["verdict"])
        for name in found.measured
        for row in studies.get(name, {}).get("rows", [])
        if row["main"]
    )
    yield Table(("method", "mechanism", "view", "difference (95 %)", "verdict"), rows)
    none = [title(name) for name in found.measured if name not in studies]
    if none:
        yield Text(f"Not studied: {', '.join(none)}.")


def _difference(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['difference']:+.3f} ({low:+.3f}, {high:+.3f})"


def cost(found: Results) -> Iterator[Block]:
    """What training and a picture take."""
    yield Text("Medians over the views of each method, preset `cpu`, 256 pixels, one thread of a shared machine.")
    rows = []
    for name in found.measured:
        one = found.cost(name)
        train = MISSING if one.train is None else f"{one.train:.0f}"
        figures = (f"{one.memory:,.0f}", f"{one.ratio:.2f}", f"{one.ms:.1f}", f"{one.learned:.2f}", f"{one.state:.1f}")
        rows.append((short(name), train, *figures))
    head = ("method", "training, CPU s", "peak MiB", "graph / backbone", "graph ms", "learned M", "file MB")
    yield Table(head, tuple(rows))


def methods(found: Results) -> Iterator[Block]:
    """Every method of the catalogue in both surveys' families, with its authors' figures beside ours."""
    yield Text(
        "Cui et al. have five categories; **listed** marks methods that they name there themselves, the other places "
        "are ours. Tao et al. divide into image reconstruction and deep feature embedding; all places are ours. "
        "Published figures are the authors', under their protocol: they stand beside ours and cannot be compared.",
        "note",
    )
    names = (*found.ranking.ranks, *(n for n in (*found.measured, *found.unmeasured) if n not in found.ranking.ranks))
    yield Entries(tuple(_method(found, name) for name in names))


def _method(found: Results, name: str) -> Entry:
    own = place(name)
    ours = ", ".join(f"{view} {found.auroc[view][name]:.3f}" for view in found.auroc if name in found.auroc[view])
    pairs = [
        ("idea", own.idea),
        ("Cui et al.", f"{own.cui}{', listed' if own.listed else ''}"),
        ("Tao et al.", own.tao),
        ("ours, image AUROC", ours or "not measured"),
        ("published", published(name)),
    ]
    if reason := why(name):
        pairs.append(("not comparable", reason))
    return Entry(title(name), tuple(pairs))


def provenance(found: Results) -> Iterator[Block]:
    """Which commits the figures are of."""
    changed = sum(n for commit, n in found.commits.items() if commit.endswith("+"))
    every = sum(found.commits.values())
    yield Bullets(
        (
            f"{every} entries of `fit.json` are of {len(found.commits)} states of the program; {changed} were measured "
            "with uncommitted changes in the tree (mark **+**), and that commit alone does not repeat them.",
            "But for the gallery the report is a function of `benchmarks/results/` alone: same results, same page.",
            "To measure again: `loupe bench fit`, `loupe bench floor`, `loupe bench defects`, "
            "`loupe bench mechanisms`; then `loupe bench report`.",
        )
    )
    order = sorted(found.commits.items(), key=lambda pair: (-pair[1], pair[0]))
    yield Text("Entries by commit: " + ", ".join(f"`{commit}` {n}" for commit, n in order) + ".", "note")
