"""Every method in the families of both surveys, its idea in one line, and why its published figures are others.

Cui: Y. Cui, Z. Liu, S. Lian, "A Survey on Unsupervised Anomaly Detection Algorithms for Industrial Images", IEEE
Access 11 (2023), arXiv 2204.11161, with five categories. Tao: X. Tao et al., "Deep Learning for Unsupervised Anomaly
Localization in Industrial Images: A Survey", IEEE TIM 71 (2022), arXiv 2207.10298. *listed*: the survey names the
method in that category itself; all other places are ours.
"""

from dataclasses import dataclass
from typing import Any

from components.core.errors import SettingsError
from components.detectors.catalogue import CATALOGUE, detector_class

CUI = (
    "reconstruction-based",
    "normalizing-flow based",
    "representation-based",
    "data-augmentation based",
    "other algorithms",
)
TAO = ("image reconstruction", "deep feature embedding", "outside")
PROTOCOL = "MVTec AD: other products; the authors' backbone, input size and schedule instead of the preset `cpu`"
NONE = "no figure that can be quoted with confidence"


@dataclass(frozen=True)
class Place:
    """Where a method stands. *tao* is one of TAO and, behind a colon, its branch; *other* says why its published
    figures cannot be compared with ours beyond PROTOCOL; *claims* are figures that are no absolute ones."""

    cui: str
    tao: str
    idea: str
    listed: bool = False
    other: str = ""
    claims: str = ""


RECONSTRUCTION, FLOW, REPRESENTATION, AUGMENTATION, _ = CUI
PIXELS, FEATURES, _ = TAO
PLACES = {
    "adtr": Place(
        RECONSTRUCTION,
        f"{FEATURES}: feature reconstruction",
        "a transformer with an auxiliary query rebuilds frozen features; what it cannot rebuild is anomalous",
    ),
    "alps": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder, adversarial",
        "a distorter perturbs the code that an autoencoder must rebuild normal pictures from",
    ),
    "cma_ae": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder with memory",
        "an autoencoder with gated memories repairs artificial damage; picture and repair are compared",
        claims="18.6 % more F1 than others on average, over data sets whose names we do not know",
    ),
    "dsr": Place(
        AUGMENTATION,
        f"{PIXELS}: autoencoder, synthetic anomalies",
        "anomalies are made among the words of a quantised code; a network compares two decodings of it",
        other="its code is trained on ImageNet; its pixel figures are of the picture's centre",
    ),
    "fastflow": Place(
        FLOW,
        f"{FEATURES}: normalizing flow",
        "a two-dimensional flow maps frozen features to a normal density; unlikely places are anomalous",
        listed=True,
        other="largest backbone at 448 pixels, 500 epochs; no reproduction known to us reaches its image figure",
    ),
    "fmr_net": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder with memory",
        "a texture is restored from a contrastive memory and rearranged textons; several cues give the score",
    ),
    "msfi": Place(
        RECONSTRUCTION,
        f"{FEATURES}: knowledge distillation",
        "separate students imitate single blocks of a teacher on several scales; a search keeps the useful ones",
    ),
    "nln": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder",
        "a picture is compared with the reconstructions of its nearest neighbours in the code",
        claims="up to 17 % more AUROC than its autoencoder with several normal classes, 8 % with one",
    ),
    "padim": Place(
        REPRESENTATION,
        f"{FEATURES}: Gaussian of features",
        "a Gaussian of frozen features at each position; the Mahalanobis distance is the score",
        listed=True,
    ),
    "paedid": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder, decomposition",
        "a picture is split into a background that an autoencoder can make and a sparse rest: the defect",
    ),
    "patchcore": Place(
        REPRESENTATION,
        f"{FEATURES}: memory bank",
        "a coreset of frozen patch features; the distance to the nearest of them is the score",
        listed=True,
    ),
    "pmb_ae": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder with memory",
        "an autoencoder may use only what memories of its own part of the picture hold",
    ),
    "pni": Place(
        REPRESENTATION,
        f"{FEATURES}: memory bank",
        "of a memory bank only those entries count that position and neighbourhood make plausible",
        other="480 pixels, a far larger backbone, the picture's centre",
    ),
    "prn": Place(
        AUGMENTATION,
        f"{FEATURES}: prototypes, synthetic anomalies",
        "differences from prototypes of normal features are segmented, learned from synthetic anomalies",
        other="learns from 10 real anomalies of each product as well",
    ),
    "rstpm": Place(
        RECONSTRUCTION,
        f"{FEATURES}: knowledge distillation",
        "two students of two teachers, one of which rebuilds its teacher's features from a narrow code",
        listed=True,
    ),
    "sap2": Place(
        REPRESENTATION,
        f"{FEATURES}: one-class",
        "a picture's feature is compared with its adapted nearest normal ones; of whole pictures, without a map",
        other="features of ResNet-152",
    ),
    "sgsf": Place(
        AUGMENTATION,
        f"{PIXELS}: synthetic anomalies and segmentation",
        "anomalies are forged where the eye looks; a segmentation guided by reconstruction learns from them",
    ),
    "sivt": Place(
        RECONSTRUCTION,
        f"{FEATURES}: feature reconstruction",
        "a transformer induces the feature of each position from other positions alone",
        other="figures of its journal version, and of one model for 15 products",
    ),
    "stm_ae": Place(
        RECONSTRUCTION,
        f"{PIXELS}: autoencoder with memory",
        "the next frame of a clip is predicted through memories of normal patterns, and compared with the true one",
        other="video: frames of clips, and other sets than those at hand",
    ),
    "uniad": Place(
        RECONSTRUCTION,
        f"{FEATURES}: feature reconstruction",
        "a transformer rebuilds frozen features behind masks and noise that forbid copying; one model, many products",
        other="one model for 15 products",
    ),
}


def place(name: str) -> Place:
    """Where a method of the catalogue stands. Raises SettingsError that says what to fill in."""
    if name not in PLACES:
        raise SettingsError(
            f"benchmarks/report/taxonomy.py: PLACES says nothing of {name}; add a Place with its category of Cui "
            f"et al. ({', '.join(CUI)}), its place in Tao et al. ({', '.join(TAO)}) and its idea in one line"
        )
    return PLACES[name]


def published(name: str) -> str:
    """The authors' figures as they stand with the method, or that there are none."""
    figures: dict[str, Any] = detector_class(name).info.published
    said = [f"{what} {100 * value if value <= 1 else value:g}" for what, value in figures.items()]  # all in per cent
    if claims := place(name).claims:
        said.append(claims)
    return "; ".join(said) or NONE


def why(name: str) -> str:
    """Why published figures and ours cannot be compared; nothing where there are none."""
    if published(name) == NONE:
        return ""
    own = place(name)
    first = PROTOCOL if detector_class(name).info.published else "a gain over others, under the authors' protocol"
    return f"{first}; {own.other}" if own.other else first


def unplaced() -> list[str]:
    """Methods of the catalogue that have no place yet."""
    return [name for name in CATALOGUE if name not in PLACES]
