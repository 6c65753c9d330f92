"""Adapters of video sets: one row per frame, clip by clip; a clip is a folder of frames.

Training clips are normal throughout. Each frame of a test clip has a label of its own. A set that comes as video files
is unpacked into frames first (`loupe frames`), each file to a folder of its name. Layouts: docs/video.md.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.datasets.rows import Row
from components.pictures.clips import frames

ANOMALY = "anomaly"  # the sets do not name kinds
LABELS = "frame_labels.json"
Truth = Callable[[Path], Sequence[int] | None]  # one number per frame of a test clip, not 0 where it is anomalous


def clip_of(image_id: str) -> str:
    """The clip that a frame belongs to."""
    return image_id.rpartition("/")[0]


def clips_rows(root: Path) -> list[Row]:
    """training/frames/CLIP/FRAME and testing/frames/CLIP/FRAME; frame_labels.json has one 0/1 list per test clip, and
    testing/masks/CLIP/FRAME.png may mark what is anomalous."""
    return _by_folders(root, root.name, _of_json(root / LABELS))


def ucsd_ped2_rows(root: Path) -> list[Row]:
    """UCSD Ped2 as it is published (Train/Train001/001.tif, Test/Test001_gt, Test/UCSDped2.m), or as ``clips``."""
    if not (root / "Train").is_dir():
        return _by_folders(root, "ucsd_ped2", _of_json(root / LABELS))
    spans = _of_matlab(root / "Test")
    rows = [row for clip in _clips(root / "Train") for row in _normal(root, clip, "ucsd_ped2")]
    for clip, truth in zip((c for c in _clips(root / "Test") if not c.name.endswith("_gt")), spans, strict=False):
        masks = {path.stem: path for path in frames(clip.with_name(f"{clip.name}_gt"))}
        rows += _labelled(root, clip, "ucsd_ped2", truth, masks)
    return _known(rows, root)


def cuhk_avenue_rows(root: Path) -> list[Row]:
    """CUHK Avenue unpacked into training/frames/01 and testing/frames/01, labelled by frame_labels.json, by
    frame_labels_avenue.npy, or by the authors' testing_label_mask/1_label.mat."""
    if (root / LABELS).exists():
        return _by_folders(root, "cuhk_avenue", _of_json(root / LABELS))
    table = root / "frame_labels_avenue.npy"
    if table.exists():
        return _by_folders(root, "cuhk_avenue", _of_array(table, _clips(root / "testing/frames")))
    return _by_folders(root, "cuhk_avenue", lambda clip: _of_volume(root / "testing_label_mask", clip))


def shanghaitech_rows(root: Path) -> list[Row]:
    """ShanghaiTech Campus unpacked: training/frames/01_001, testing/frames/01_0014, labelled by
    testing/test_frame_mask/01_0014.npy; the scene, the number before the line, is the group."""
    folder = root / "testing/test_frame_mask"

    def truth(clip: Path) -> Sequence[int] | None:
        path = folder / f"{clip.name}.npy"
        return np.load(path).ravel().tolist() if path.exists() else None

    return _by_folders(root, None, _of_json(root / LABELS) if (root / LABELS).exists() else truth)


def _by_folders(root: Path, group: str | None, truth: Truth) -> list[Row]:
    """*group* None: the scene that a clip's name begins with."""
    rows: list[Row] = []
    for clip in _clips(root / "training/frames"):
        rows += _normal(root, clip, group or clip.name.partition("_")[0])
    for clip in _clips(root / "testing/frames"):
        masks = {path.stem: path for path in frames(root / "testing/masks" / clip.name)}
        rows += _labelled(root, clip, group or clip.name.partition("_")[0], truth(clip), masks)
    return _known(rows, root)


def _known(rows: list[Row], root: Path) -> list[Row]:
    if not any(row.role == "train" for row in rows):
        raise DataError(
            f"{root}: holds no training/frames/CLIP folders with frames in them; unpack the videos with `loupe frames`"
        )
    return rows


def _clips(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.is_dir() and not p.name.startswith("."))


def _normal(root: Path, clip: Path, group: str) -> Iterator[Row]:
    for path in frames(clip):
        yield Row(path.relative_to(root).as_posix(), group, "normal", "", "train")


def _labelled(root: Path, clip: Path, group: str, truth: Sequence[int] | None, masks: dict[str, Path]) -> Iterator[Row]:
    found = frames(clip)
    if truth is None:
        raise DataError(f"{clip}: has no labels; give {LABELS}, or the labels that the set comes with")
    if len(truth) != len(found):
        raise DataError(f"{clip}: has {len(found)} frames and {len(truth)} labels; unpack the video again")
    for path, label in zip(found, truth, strict=True):
        mask = masks.get(path.stem) if label else None
        said = ("anomalous", ANOMALY) if label else ("normal", "")
        marked = mask.relative_to(root).as_posix() if mask else None
        yield Row(path.relative_to(root).as_posix(), group, *said, "test", marked)


def _of_json(path: Path) -> Truth:
    known = read_json(path) if path.exists() else {}
    return lambda clip: known.get(clip.name)


def _of_array(path: Path, clips: Sequence[Path]) -> Truth:
    """One array for all test clips, one behind the other."""
    values, ends = np.load(path).ravel(), np.cumsum([len(frames(clip)) for clip in clips])
    if len(ends) == 0 or len(values) != ends[-1]:
        raise DataError(f"{path}: has {len(values)} labels, and the test clips have other frames; unpack them again")
    parts = dict(zip((clip.name for clip in clips), np.split(values, ends[:-1]), strict=True))
    return lambda clip: parts[clip.name].tolist()  # type: ignore[no-any-return]


def _of_volume(folder: Path, clip: Path) -> Sequence[int] | None:
    """Avenue's own truth: a cell array ``volLabel`` of one mask per frame; any marked pixel makes a frame anomalous."""
    number = clip.name.lstrip("0") or "0"
    path = folder / f"{number}_label.mat"
    if not path.exists():
        return None
    from scipy.io import loadmat

    return [int(np.any(mask)) for mask in loadmat(path)["volLabel"].ravel()]


def _of_matlab(folder: Path) -> list[list[int]]:
    """The lines of UCSDped2.m, one per test clip in order: gt_frame = [61:180] or [1:20, 40:50]."""
    found = sorted(folder.glob("UCSDped*.m"))
    if not found:
        raise DataError(f"{folder}: holds no UCSDped2.m with the labels of its clips; unpack the set again")
    texts = re.findall(r"gt_frame\s*=\s*\[([^\]]*)\]", found[0].read_text())
    clips = [clip for clip in _clips(folder) if not clip.name.endswith("_gt")]
    if len(texts) != len(clips):
        raise DataError(f"{found[0]}: labels {len(texts)} clips of {len(clips)}; unpack the set again")
    return [_spans(text, len(frames(clip))) for text, clip in zip(texts, clips, strict=True)]


def _spans(text: str, count: int) -> list[int]:
    """'61:180, 190' of *count* frames, counted from 1, as one 0 or 1 per frame."""
    truth = [0] * count
    for first, last in re.findall(r"(\d+)(?::(\d+))?", text):
        for number in range(int(first), int(last or first) + 1):
            if number > count:
                raise DataError(f"frame {number} is labelled, and the clip has {count}; unpack the set again")
            truth[number - 1] = 1
    return truth
