"""What ``loupe bench mechanisms`` switches: the named mechanisms of each method, and the short schedule they share.

A schedule and a switch are settings on top of preset ``cpu``. What is studied stands in the schedule too, so that a
mechanism that a preset leaves out is studied all the same. Standardised positions, which are ours, are off: they would
be fitted anew for every switch. Schedules are cut so that a variant costs about one minute of one core on mtd; screw
has fewer images and gets more epochs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.common.asked import Overrides
from components.detectors.catalogue import CATALOGUE


@dataclass(frozen=True)
class Mechanism:
    """*off* switches it off, on top of *on* (both on top of the schedule).

    *behind*: the state of the full training behind this stage is exactly what both settings would train, so that only
    scoring is done again. *main*: the method's main claim, three seeds. *blind*: views on whose test side nobody had
    looked at it, on which it is measured too.
    """

    what: str
    off: Overrides
    on: Overrides = field(default_factory=dict)
    main: bool = False
    behind: str | None = None
    blind: tuple[str, ...] = ()

    def sides(self) -> tuple[Overrides, Overrides]:
        """The overrides with the mechanism and without it."""
        return self.on, {**self.on, **self.off}


@dataclass(frozen=True)
class Study:
    """*screw*: what its schedule has on top there; without it the study is of mtd alone."""

    schedule: Overrides
    mechanisms: tuple[Mechanism, ...]
    screw: Overrides | None = None

    @property
    def views(self) -> tuple[str, ...]:
        blind = dict.fromkeys(view for mechanism in self.mechanisms for view in mechanism.blind)
        return (*(("mtd",) if self.screw is None else ("screw", "mtd")), *blind)

    def beside(self, overrides: Overrides) -> Overrides:
        """What of *overrides* the schedule does not have already."""
        return {name: value for name, value in overrides.items() if self.schedule.get(name) != value}

    def asked(self, view: str) -> tuple[Mechanism, ...]:
        """The mechanisms that are measured on *view*."""
        return tuple(m for m in self.mechanisms if view in ("screw", "mtd") or view in m.blind)

    def on(self, view: str) -> Overrides:
        """The schedule of all variants on *view*."""
        return {**self.schedule, **((self.screw or {}) if view == "screw" else {})}


def studied() -> Iterator[str]:
    """The detectors of the catalogue that have a study."""
    yield from (name for name in CATALOGUE if name in STUDIES)


BLIND = ("bsdata", "bottle", "kolektor_sdd")  # a first `shade` was dropped by mtd's test side (ADR 0018)

STUDIES = {
    "uniad": Study(
        {"draws": 0, "epochs": 5, "window": 7, "layer_queries": True, "jitter": 20.0, "positions": False},
        (
            Mechanism("all three against copying", {"window": 0, "layer_queries": False, "jitter": 0.0}, main=True),
            Mechanism("neighbour mask", {"window": 0}),
            Mechanism("layer-wise query", {"layer_queries": False}),
            Mechanism("jitter", {"jitter": 0.0}),
        ),
        screw={"epochs": 12},
    ),
    "adtr": Study(
        {"draws": 0, "epochs": 4, "push_epochs": 1, "queries": True, "positions": False},
        (
            Mechanism("auxiliary queries", {"queries": False, "push_epochs": 0}, on={"push_epochs": 0}, main=True),
            Mechanism("push-pull stage", {"push_epochs": 0}, behind="reconstruction"),
        ),
        screw={"epochs": 9, "push_epochs": 2},
    ),
    "sivt": Study(
        {
            "draws": 0,
            "epochs": 5,
            "subsets": 4,
            "positioned": True,
            "deviation": True,
            "partition": "random",
            "positions": False,
        },
        (
            Mechanism("induction tokens", {"subsets": 1}, main=True),
            Mechanism("an induction token per position", {"positioned": False}),
            Mechanism("subsets drawn anew", {"partition": "checkerboard"}),
            Mechanism("deviation of the map as score", {"deviation": False}, behind="transformer"),
        ),
        screw={"epochs": 10},
    ),
    "pni": Study(
        {
            # Of two epochs the classifier is so unsure that it hides nothing, and its rows say nothing.
            "bank_size": 1500,
            "epochs": 6,
            "refine_epochs": 1,
            "neighbourhood": True,
            "position": True,
            "refine": True,
            "positions": False,
        },
        (
            Mechanism(
                "position and neighbourhood",
                {"position": False, "neighbourhood": False},
                {"refine": False},
                main=True,
                behind="neighbourhood",
            ),
            Mechanism("position", {"position": False}, {"refine": False}, behind="neighbourhood"),
            Mechanism("neighbourhood", {"neighbourhood": False}, {"refine": False}, behind="neighbourhood"),
            Mechanism("refinement", {"refine": False}, behind="refinement"),
        ),
        screw={"epochs": 12, "refine_epochs": 2},
    ),
    "sap2": Study(
        {"epochs": 10, "adapt": True, "attention": True},
        (
            Mechanism("adaptive projection", {"adapt": False}, main=True, behind="bank"),
            Mechanism("attention", {"attention": False}),
            Mechanism("constraint", {"constraint": 0.0}),
        ),
        screw={},
    ),
    "rstpm": Study(
        {"backbone.size": 128, "draws": 0, "epochs": 4, "attention": True, "reconstruction": True},
        (
            Mechanism("reconstruction pair", {"reconstruction": False}, main=True, behind="students"),
            Mechanism("attention", {"attention": False}),
        ),
        screw={"epochs": 8},
    ),
    "msfi": Study(
        {"draws": 0, "epochs": 3, "search_epochs": 2, "positions": False},
        (
            Mechanism("search for important blocks", {"search_epochs": 0}, main=True, behind="standardise"),
            Mechanism("search by image scores, not masks", {"search": "pixels"}, on={"search": "images"}),
            Mechanism("image pyramid", {"scales": [1.0]}),
            Mechanism("feature pyramid", {"backbone.taps": [2, 3]}),
        ),
        screw={"epochs": 6},
    ),
    "fastflow": Study(
        {"epochs": 4, "kernels": [3, 1], "layer_norm": True},
        (
            Mechanism("two dimensions: 3 x 3 kernels", {"kernels": [1]}, main=True),
            Mechanism("alternating kernels, not 3 x 3 only", {"kernels": [3]}),
            Mechanism("layer normalisation", {"layer_norm": False}),
        ),
        screw={"epochs": 8},
    ),
    "pmb_ae": Study(
        {"epochs": 5, "parts": 4, "ceiling": 1.5},
        (
            Mechanism("a memory per partition", {"parts": 1}, main=True),
            Mechanism("error estimation", {"ceiling": 0.0}),
            Mechanism(
                "plain skips between memories",
                {"alternate": False, "laterals": ["none", "none", "memory", "memory", "memory"]},
            ),
        ),
    ),
    "cma_ae": Study(
        {"epochs": 3, "copies": 1, "residual_features": "backbone", "mixing": True},
        (
            Mechanism("gates that forget and write", {"mixing": False}),
            Mechanism("repair of artificial anomalies", {"clean_share": 1.0}, main=True),
            Mechanism("memory of many patterns", {"slots": 1}),
            Mechanism("features of a backbone in the residual", {"residual_features": "encoder"}),
        ),
    ),
    "fmr_net": Study(
        {"epochs": 3, "restore_epochs": 2, "contrast": 0.1, "apart": 0.1, "nearest": 3, "positions": False},
        (
            Mechanism("second phase: restoring synthetic defects", {"restore_epochs": 0}, main=True, behind="scale"),
            Mechanism("contrast", {"contrast": 0.0}),
            Mechanism("defects pushed off the memory", {"apart": 0.0}),
            Mechanism("several nearest slots", {"nearest": 1}),
        ),
    ),
    "sgsf": Study(
        {
            "draws": 0,
            "epochs": 2,
            "copies": 4,
            "guided": True,
            "guidance": "frozen",
            "backbone.taps": [2, 3],
            "detach": False,
            "strategies": ["saliency", "shade"],
        },
        (
            Mechanism("guidance", {"guided": False}, main=True),
            Mechanism("guidance from what a frozen backbone sees", {"guidance": "self", "backbone.taps": [4]}),
            Mechanism("gradient into the guidance", {"detach": True}),
            Mechanism(
                "guidance by a similar normal image",
                {"guidance": "self"},
                on={"guidance": "contrast", "backbone.taps": [4]},
            ),
            Mechanism("forging where the eye looks", {"strategies": ["perlin_texture", "shade"]}),
            Mechanism("wide anomalies beside the published kind", {"strategies": ["saliency"]}, blind=BLIND),
        ),
    ),
    "prn": Study(
        {
            "backbone.size": 128,
            "epochs": 2,
            "copies": 2,
            "residual": True,
            "patches": [1, 2, 4, 8],
            "strategies": ["heterologous", "homologous"],
        },
        (
            Mechanism("difference from the nearest prototype", {"residual": False}, main=True),
            Mechanism("attention over patches of several sizes", {"patches": [1]}),
            Mechanism(
                "wide anomalies beside the published kinds",
                {"strategies": ["heterologous", "homologous"]},
                on={"strategies": ["heterologous", "homologous", "shade"]},
                blind=BLIND,
            ),
        ),
    ),
    "dsr": Study(
        {"epochs": [2, 2, 1], "features": 1.0, "nearest": 0.05, "farthest": [0.2, 1.0], "anomalies": "latent"},
        (
            Mechanism("anomalies made among the words, not pasted into images", {"anomalies": "image"}),
            Mechanism("restriction to normal words", {"features": 0.0}, main=True),
            Mechanism("words replaced by near ones", {"nearest": 0.0, "farthest": [1.0, 1.0]}),
        ),
    ),
    "paedid": Study(
        {"epochs": 8, "steps": 10, "weights": True, "block": 0.5},
        (
            Mechanism(
                "decomposition, not the plain residual",
                {"steps": 1, "threshold": 0.0, "block": 0.0, "weights": False},
                main=True,
                behind="noise",
            ),
            Mechanism("several steps", {"steps": 1}, behind="noise"),
            Mechanism("weights by the distance of codes", {"weights": False}, behind="noise"),
            Mechanism("shrinking by neighbourhood", {"block": 0.0}, behind="noise"),
        ),
    ),
    "nln": Study(
        {
            # Errors pooled as published: the baseline's are, and its positions are not standardised either.
            "epochs": 4,
            "scoring": "nln",
            "share": 0.6,
            "map_share": 0.25,
            "blur": 0.0,
            "top": 1.0,
            "positions": False,
        },
        (
            Mechanism("reconstructions of neighbours", {"scoring": "autoencoder"}, main=True, behind="scale"),
            Mechanism("distance in latent space", {"share": 1.0, "map_share": 1.0}, behind="scale"),
        ),
    ),
    "alps": Study(
        {"epochs": 8, "distorter": True, "scoring": "perturbed", "positions": False, "top": 1.0},
        (
            Mechanism("distorter", {"distorter": False}, main=True),
            Mechanism("distorter while scoring", {"scoring": "clean"}, behind="ratio"),
        ),
    ),
}
