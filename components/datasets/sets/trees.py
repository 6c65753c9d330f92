"""Trees as MVTec's sets have them: a folder per category, in it good pictures, a folder per defect, and their masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.datasets.rows import Row
from components.datasets.sets.layout import folders, images, joined, name, wrong


@dataclass(frozen=True)
class Tree:
    """Where a category of the set has what; paths are below the category's folder.

    *train* are folders of good training pictures, *side* holds a folder per defect and *good*. Pictures lie in *within*
    of these. Masks lie in *truth*; one is named as its picture with *ending*, or is a file of a folder of that name.
    """

    train: tuple[str, ...] = ("train/good",)
    side: str = "test"
    good: str = "good"
    within: str = ""
    truth: str = "ground_truth/{defect}"
    ending: str = "_mask"
    several: bool = False  # masks of a picture, in a folder named after it

    @property
    def expected(self) -> str:
        """The layout in words."""
        below = f"/{self.within}" if self.within else ""
        mask = f"{self.truth.format(defect='DEFECT')}/NAME{'/*.png' if self.several else f'{self.ending}.png'}"
        pictures = [f"{place}{below}/NAME.png" for place in (*self.train, f"{self.side}/{self.good}")]
        return ", ".join([f"CATEGORY/{pictures[0]}", *pictures[1:], f"{self.side}/DEFECT{below}/NAME.png", mask])


def rows(tree: Tree, root: Path) -> list[Row]:
    """All categories of *root*, or the one that it is; the category is the group. Raises DataError."""
    if (root / tree.train[0]).is_dir():
        return list(_category(tree, root, root))
    found = [at for at in folders(root) if (at / tree.train[0]).is_dir()]
    if not found:
        raise wrong(root, tree.expected)
    return [row for at in found for row in _category(tree, root, at)]


def _category(tree: Tree, root: Path, at: Path) -> Iterator[Row]:
    for place in (*tree.train, tree.side):
        if not (at / place).is_dir():
            raise wrong(at, tree.expected)
    train = [picture for place in tree.train for picture in images(at / place / tree.within)]
    if not train:
        raise wrong(at / tree.train[0], tree.expected)
    yield from (Row(name(root, picture), at.name, "normal", "", "train") for picture in train)
    truth = tree.truth.partition("/{")[0]
    for folder in folders(at / tree.side):
        if folder != at / truth:
            yield from _tested(tree, root, at, folder)


def _tested(tree: Tree, root: Path, at: Path, folder: Path) -> Iterator[Row]:
    pictures = images(folder / tree.within)
    if folder.name == tree.good:
        yield from (Row(name(root, picture), at.name, "normal", "", "test") for picture in pictures)
        return
    masks = _masks(tree, at / tree.truth.format(defect=folder.name))
    for picture in pictures:
        mask = joined(root, masks.get(picture.stem, ()))
        yield Row(name(root, picture), at.name, "anomalous", folder.name, "test", mask)


def _masks(tree: Tree, folder: Path) -> dict[str, list[Path]]:
    """Mask files by the stem of their picture."""
    if tree.several:
        return {below.name: images(below) for below in folders(folder)}
    return {p.stem.removesuffix(tree.ending): [p] for p in images(folder) if p.stem.endswith(tree.ending)}
