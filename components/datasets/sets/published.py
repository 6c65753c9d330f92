"""The published data sets that Loupe reads, each by what its publisher says of it and by how it is used here.

A count stands here only where the publisher's figure is known; one that differs is told, and refuses nothing.
"""

from functools import partial

from components.datasets.rows import ANOMALOUS, GROUPS, NORMAL, TEST, TRAIN, Adapter
from components.datasets.sets import classes, lists, packed, pairs, trees
from components.datasets.sets.pairs import Pairs
from components.datasets.sets.trees import Tree

SHARE_ALIKE = "CC BY-NC-SA 4.0"
UNSURE = "see the publisher's page"
FIFTH = "every fifth good picture, sorted by name, is for testing"
CHOSEN = "no good and bad: a view says which classes are normal, all others are the anomalies of its test side"
VALIDATION = "validation/good are training normals too: fit and calibrate are drawn from all"

LOCO = Tree(("train/good", "validation/good"), truth="ground_truth/{defect}", several=True)
THREE_D = Tree(("train/good", "validation/good"), within="rgb", truth="test/{defect}/gt", ending="")
AD_2 = Tree(("train/good", "validation/good"), side="test_public", truth="test_public/ground_truth/{defect}")
BTAD = Tree(("train/ok",), good="ok", ending="")


def _tree(tree: Tree, licence: str, source: str, protocol: str, **counts: int) -> Adapter:
    told = {what.replace("_", " "): n for what, n in counts.items()}
    return Adapter(
        partial(trees.rows, tree), licence, source=source, layout=tree.expected, protocol=protocol, counts=told
    )


KSDD = Pairs(r"kos\d+", "_label", "kosNN/PartM.jpg, and beside each its mask kosNN/PartM_label.bmp")
KSDD_2 = Pairs(
    "train|test", "_GT", "train/NNNNN.png and test/NNNNN.png, and beside each its mask NNNNN_GT.png", sides=True
)

PUBLISHED: dict[str, Adapter] = {
    "mvtec_ad": _tree(
        Tree(),
        SHARE_ALIKE,
        "Bergmann, Fauser, Sattlegger, Steger: MVTec AD, CVPR 2019; MVTec Software GmbH",
        "the publisher's split; the group is the category",
        **{"training_normals": 3629, "test_normals": 467, "anomalous": 1258, "groups": 15},
    ),
    "mvtec_loco": _tree(
        LOCO,
        SHARE_ALIKE,
        "Bergmann, Batzner, Fauser, Sattlegger, Steger: MVTec LOCO AD, IJCV 2022; MVTec Software GmbH",
        f"{VALIDATION}; several masks of a picture are united, and every marked pixel counts: the saturation of the "
        "publisher's metric (sPRO), where a part of a mask is enough, is not taken",
        **{"anomalous": 993, "groups": 5},
    ),
    "mvtec_3d": _tree(
        THREE_D,
        SHARE_ALIKE,
        "Bergmann, Jin, Sattlegger, Steger: MVTec 3D-AD, VISAPP 2022; MVTec Software GmbH",
        f"the RGB pictures alone, what xyz holds is left out; {VALIDATION}",
        **{"anomalous": 948, "groups": 10},
    ),
    "mvtec_ad2": _tree(
        AD_2,
        SHARE_ALIKE,
        "Heckler-Kram, Neudeck, Scheler, König, Steger: MVTec AD 2, 2025; MVTec Software GmbH",
        f"{VALIDATION}; test_public is the test side; test_private and test_private_mixed have no labels (the "
        "publisher's server judges them) and are left out",
        **{"groups": 8},
    ),
    "btad": _tree(
        BTAD,
        UNSURE,
        "Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL (BTAD), ISIE 2021",
        "the publisher's split; the group is the product, 01 to 03",
        **{"groups": 3},
    ),
    "mpdd": _tree(
        Tree(),
        UNSURE,
        "Jezek, Jonak, Burget, Dvorak, Skotak: MPDD, ICUMT 2021",
        "the publisher's split; the group is the part",
        **{"normals": 1064, "anomalous": 282, "groups": 6},
    ),
    "visa": Adapter(
        lists.visa_rows,
        "CC BY 4.0",
        source="Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference (VisA), ECCV 2022; Amazon",
        layout=lists.VISA,
        protocol="the publisher's one-class split; the group is the object; kinds of defects are not read",
        counts={NORMAL: 9621, ANOMALOUS: 1200, GROUPS: 12},
    ),
    "real_iad": Adapter(
        lists.real_iad_rows,
        SHARE_ALIKE,
        source="Wang, Zhu, Gao and others: Real-IAD, CVPR 2024",
        layout=lists.REAL_IAD,
        protocol="the publisher's standard lists, every view of an object as a picture; the group is the category; "
        "the lists of one view and those with defects in training are left out",
        counts={GROUPS: 30},
    ),
    "ksdd": Adapter(
        partial(pairs.rows, KSDD),
        f"{SHARE_ALIKE}; cite Tabernik, Šela, Skvarč, Skočaj (2019)",
        source="Tabernik, Šela, Skvarč, Skočaj: KolektorSDD, J. Intelligent Manufacturing 2019; ViCoS, Kolektor",
        layout=KSDD.expected,
        protocol="no publisher's split without defects: good pictures of items whose number divides by 5 are for "
        "testing, with all defective ones; the group is the item: split.together group keeps it on one side",
        counts={NORMAL: 347, ANOMALOUS: 52},
    ),
    "ksdd2": Adapter(
        partial(pairs.rows, KSDD_2),
        f"{SHARE_ALIKE}; cite Božič, Tabernik, Skočaj (2021)",
        source="Božič, Tabernik, Skočaj: KolektorSDD2, Computers in Industry 2021; ViCoS, Kolektor",
        layout=KSDD_2.expected,
        protocol="the publisher's split; the 246 defective pictures of train are left out",
        counts={TRAIN: 2085, TEST: 894, ANOMALOUS: 110},
    ),
    "dagm": Adapter(
        lists.dagm_rows,
        UNSURE,
        source="Wieler, Hahn: DAGM 2007 competition; Heidelberg Collaboratory for Image Processing",
        layout=lists.DAGM,
        protocol="the publisher's split; defective pictures of Train are left out; the group is the class; masks are "
        "weak: an ellipse around the defect, so that pixel figures are of ellipses",
        counts={GROUPS: 10},
    ),
    "aitex": Adapter(
        pairs.aitex_rows,
        UNSURE,
        source="Silvestre-Blanes, Albero-Albero, Miralles, Pérez-Llorens, Moreno: AITEX, AUTEX Research Journal 2019",
        layout=pairs.AITEX,
        protocol=f"no publisher's split: of each fabric {FIFTH}; the group is the fabric; several masks are united",
        counts={NORMAL: 140, ANOMALOUS: 105, GROUPS: 7},
    ),
    "neu": Adapter(
        classes.neu_rows,
        UNSURE,
        source="Song, Yan: NEU surface defects, Applied Surface Science 2013; Northeastern University",
        layout=classes.NEU,
        protocol=f"no good pictures at all, and {CHOSEN}; of each kind every fifth picture is for testing; boxes are "
        "left out",
        counts={NORMAL: 1800, GROUPS: 6},
    ),
    "deeppcb": Adapter(
        lists.deeppcb_rows,
        "research purposes only, as its README says",
        source="Tang, He, Huang, Yang: DeepPCB, 2019",
        layout=lists.DEEPPCB,
        protocol="templates are the normals, of trainval.txt for training and of test.txt for testing; tested pictures "
        "of test.txt are anomalous, those of trainval.txt are left out; boxes are no masks: image level only",
        counts={TRAIN: 1000, TEST: 500, ANOMALOUS: 500},
    ),
    "cifar10": Adapter(
        classes.rows,
        "none stated; cite Krizhevsky (2009)",
        unpack=packed.cifar_10,
        source="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        layout=f"{classes.CLASSES}, or the published cifar-10-batches-py, which `loupe data add` unpacks",
        protocol=CHOSEN,
        counts={TRAIN: 50000, TEST: 10000, GROUPS: 10},
    ),
    "cifar100": Adapter(
        classes.rows,
        "none stated; cite Krizhevsky (2009)",
        unpack=packed.cifar_100,
        source="Krizhevsky: Learning multiple layers of features from tiny images, 2009",
        layout=f"{classes.CLASSES}, or the published cifar-100-python, which `loupe data add` unpacks",
        protocol=f"{CHOSEN}; classes are the 20 coarse ones, a file's name begins with the fine one",
        counts={TRAIN: 50000, TEST: 10000, GROUPS: 20},
    ),
    "mnist": Adapter(
        classes.rows,
        UNSURE,
        unpack=packed.mnist,
        source="LeCun, Bottou, Bengio, Haffner: Gradient-based learning, Proceedings of the IEEE 1998",
        layout=f"{classes.CLASSES}, or the published idx files, which `loupe data add` unpacks",
        protocol=CHOSEN,
        counts={TRAIN: 60000, TEST: 10000, GROUPS: 10},
    ),
    "fashion_mnist": Adapter(
        classes.rows,
        "MIT; cite Xiao, Rasul, Vollgraf (2017)",
        unpack=packed.fashion_mnist,
        source="Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv 1708.07747; Zalando",
        layout=f"{classes.CLASSES}, or the published idx files, which `loupe data add` unpacks",
        protocol=CHOSEN,
        counts={TRAIN: 60000, TEST: 10000, GROUPS: 10},
    ),
    "digits": Adapter(
        classes.rows,
        f"{UNSURE} (UCI); it comes with scikit-learn",
        classes.digits_fetch,
        source="Alpaydin, Kaynak: optical recognition of handwritten digits, UCI 1998; its test part, in scikit-learn",
        layout=classes.CLASSES.replace(".png", ".bmp") + ", written by `loupe data add digits --adapter digits`",
        protocol=f"{CHOSEN}; of each digit every fifth picture is for testing",
        counts={NORMAL: 1797, GROUPS: 10},
    ),
}
