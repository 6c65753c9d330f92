"""Data sets that the surveys name, with their sizes, and which of them are views here.

Sizes after the lists of M-3LAB (awesome-industrial-anomaly-detection), the DSR paper and the sets' own pages; where
these differ, the row says so. The data sets of Cui et al. are named in the survey; which ones Tao et al. list was not
confirmed, so the rest is what surveys of that year list.
"""

from components.report.blocks import Table

HEAD = ("data set", "kinds", "pictures (good / defective)", "marks", "in Cui et al.", "here")
ROWS = (
    ("MVTec AD (2019)", "15", "5,354 (4,096 / 1,258)", "masks", "yes", "screw, bottle"),
    ("AITEX (2019)", "1", "245 (140 / 105)", "masks", "yes", ""),
    ("DAGM 2007", "10", "11,500; others count 16,100", "ellipses", "yes", ""),
    ("ELPV", "1", "2,624", "probability", "yes", "elpv-mono, elpv-poly"),
    ("MTD (2018)", "1", "1,344 (952 / 392)", "masks", "yes", "mtd"),
    ("KolektorSDD (2019)", "1", "399 (347 / 52)", "masks", "yes", "kolektor_sdd"),
    ("KolektorSDD2 (2021)", "1", "3,335 (2,979 / 356)", "masks", "", ""),
    ("BTAD (2021)", "3", "2,830 listed", "masks", "", ""),
    ("VisA (2022)", "12", "10,821 (9,621 / 1,200)", "masks", "", ""),
    ("MPDD (2021)", "6", "1,346 (1,064 / 282)", "masks", "", ""),
    ("MVTec 3D-AD", "10", "3,852 (2,904 / 948)", "masks, depth", "", ""),
    ("MVTec LOCO", "5", "3,340 (2,347 / 993)", "masks", "", ""),
    ("NanoTWICE (2016)", "1", "45 (5 / 40)", "masks", "", ""),
    ("NEU-DET (2013)", "6", "1,800 (0 / 1,800)", "boxes", "", ""),
    ("CIFAR-10, CIFAR-100 (coarse)", "10, 20", "60,000 each", "classes", "", ""),
    ("MNIST, Fashion-MNIST", "10 each", "70,000 each", "classes", "", ""),
    ("CUHK Avenue", "-", "16 + 21 videos", "frames, boxes", "", ""),
    ("ShanghaiTech Campus", "13 scenes", "330 + 107 videos", "frames, pixels", "", ""),
)


def table() -> Table:
    """As a block of a page."""
    return Table(HEAD, ROWS)
