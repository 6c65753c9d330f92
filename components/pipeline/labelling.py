"""``loupe labels``: what reviewers said and drew, as files of labelling tools and as masks to learn from.

Each picture once, by the last word on it. A defect is a picture with shapes, or with the label alone; a false alarm is
a good picture. Names of files are made of the hash of the bytes, so that two lines may use the same names.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from components.core.artefacts import atomic_dir
from components.core.errors import DataError, SettingsError, StorageError
from components.core.places import check_folder
from components.core.progress import progress
from components.scorelog.labels import DEFECT, read_labels, records_of
from components.scorelog.shapes import Shape, box_of, drawn_mask, outline_of, read_shapes
from components.scorelog.shipper import image_key
from components.scorelog.whose import NAME
from components.storage import Store, open_store

log = logging.getLogger("loupe")
MARK = "loupe-labels.txt"  # in a folder that this command wrote, which it may replace
SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


@dataclass(frozen=True)
class Labelled:
    """One picture with what was said of it; *name* is that of its file."""

    name: str
    record: Mapping[str, Any]
    label: Mapping[str, Any]

    @property
    def shapes(self) -> list[dict[str, Any]]:
        return read_shapes(self.label) if self.defect else []

    @property
    def defect(self) -> bool:
        return bool(self.label["label"] == DEFECT)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.record["width"]), int(self.record["height"])


def export_labels(address: str, form: str, out: Path, model: str | None = None) -> list[str]:
    """Write the labels of the store at *address* in one of FORMS to the folder *out*; what to tell of it.

    *model*: only pictures that were scored under this registered name. Raises SettingsError, DataError.
    """
    if form not in FORMS:
        raise SettingsError(f"{form}: is no form of labels; choose one of {', '.join(FORMS)}")
    check_folder(out, None, lambda folder: (folder / MARK).exists(), "labels")
    store = open_store(address)
    found = labelled(store, model)
    if not found:
        whose = f" of {model}" if model else ""
        raise DataError(f"{address}: holds no labelled picture{whose}; label some on the page /review first")
    with atomic_dir(out) as scratch:
        said = FORMS[form](store, found, scratch)
        (scratch / MARK).write_text(f"{form}\n", encoding="utf-8")
    return [*said, f"{form} in {out}"]


def labelled(store: Store, model: str | None = None) -> list[Labelled]:
    """Each labelled picture once, the oldest first; the last label of its bytes counts."""
    labels = {k: v for k, v in read_labels(store).items() if v["label"] != "withdrawn"}
    last: dict[str, Mapping[str, Any]] = {}
    for label in labels.values():  # oldest first
        last[str(label["sha256"])] = label
    wanted = {str(label["record_id"]): label for label in last.values()}
    records = [r for r in records_of(store, wanted) if model is None or r.get(NAME) == model]
    found = [Labelled(_name(r), r, wanted[str(r["record_id"])]) for r in records]
    return sorted(found, key=lambda one: (str(one.record["scored_at"]), one.name))


def _name(record: Mapping[str, Any]) -> str:
    suffix = PurePosixPath(str(record["image_id"])).suffix.lower()
    return f"{record['sha256'][:16]}{suffix if SUFFIX.fullmatch(suffix) else '.png'}"


def _pictures(store: Store, found: Sequence[Labelled], place: Callable[[Labelled], Path]) -> list[Labelled]:
    """Write the pictures; those whose bytes are gone are told and left out."""
    kept = []
    for one in progress(found, "pictures"):
        try:
            content = store.get(image_key(str(one.record["sha256"])))
        except StorageError as error:
            log.warning("%s is left out: %s", one.record["image_id"], error)
            continue
        place(one).parent.mkdir(parents=True, exist_ok=True)
        place(one).write_bytes(content)
        kept.append(one)
    return kept


def _beside(store: Store, found: Sequence[Labelled], out: Path) -> list[Labelled]:
    return _pictures(store, found, lambda one: out / "images" / one.name)


def _counted(kept: Sequence[Labelled]) -> list[str]:
    shapes, defects = sum(len(one.shapes) for one in kept), sum(one.defect for one in kept)
    return [f"{len(kept)} pictures, {defects} of them defects with {shapes} shapes, {len(kept) - defects} good"]


def _coco(store: Store, found: Sequence[Labelled], out: Path) -> list[str]:
    """COCO: annotations.json; boxes and polygons as polygons, strokes as uncompressed run lengths."""
    kept, images, notes = _beside(store, found, out), [], list[dict[str, Any]]()
    for number, one in enumerate(kept, 1):
        width, height = one.size
        said = {"label": one.label["label"], "tags": one.label.get("tags") or "", "image_id": one.record["image_id"]}
        images.append(
            {"id": number, "file_name": f"images/{one.name}", "width": width, "height": height, "loupe": said}
        )
        for shape in one.shapes:
            notes.append(
                {"id": len(notes) + 1, "image_id": number, "category_id": 1, **_annotation(shape, width, height)}
            )
    whole = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": DEFECT}]}
    _write(out / "annotations.json", whole)
    return _counted(kept)


def _annotation(shape: Shape, width: int, height: int) -> dict[str, Any]:
    mask, (left, top, right, bottom) = drawn_mask([shape], width, height) > 0, _within(shape, width, height)
    drawn: Any = [[v for point in outline_of(shape) for v in point]]
    if shape["kind"] == "stroke":
        drawn = {"size": [height, width], "counts": run_lengths(mask)}
    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": int(mask.sum()),
        "segmentation": drawn,
        "iscrowd": 0,
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed form of a boolean mask (H, W): lengths of runs down the columns, the first one of zeros."""
    flat = mask.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(flat)]]))
    return [int(n) for n in ([0, *lengths] if flat[0] else lengths)]


def _within(shape: Shape, width: int, height: int) -> tuple[float, float, float, float]:
    """The box around a shape as far as it lies on the picture: half of a stroke at its edge does not."""
    left, top, right, bottom = box_of(shape)
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)


def _label_studio(store: Store, found: Sequence[Labelled], out: Path) -> list[str]:
    """Label Studio: tasks.json with annotations in shares of a hundred, and the configuration that they fit."""
    kept = _beside(store, found, out)
    _write(out / "tasks.json", [_task(one) for one in kept])
    (out / "config.xml").write_text(STUDIO, encoding="utf-8")
    return _counted(kept)


STUDIO = """<View>
  <Image name="image" value="$image"/>
  <Choices name="verdict" toName="image"><Choice value="defect"/><Choice value="false_alarm"/></Choices>
  <RectangleLabels name="box" toName="image"><Label value="defect"/></RectangleLabels>
  <PolygonLabels name="polygon" toName="image"><Label value="defect"/></PolygonLabels>
</View>
"""


def _task(one: Labelled) -> dict[str, Any]:
    width, height = one.size
    common = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    verdict = {
        "from_name": "verdict",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [one.label["label"]]},
    }
    results = [verdict, *({**common, **_result(shape, width, height)} for shape in one.shapes)]
    data = {"image": f"images/{one.name}", "image_id": one.record["image_id"], "source": one.record["source"]}
    said = {"result": results, "completed_by": {"email": one.label.get("reviewer") or ""}}
    return {"data": data, "annotations": [said]}


def _result(shape: Shape, width: int, height: int) -> dict[str, Any]:
    if shape["kind"] == "polygon":
        points = [[100 * x / width, 100 * y / height] for x, y in outline_of(shape)]
        return {"from_name": "polygon", "type": "polygonlabels", "value": {"points": points, "polygonlabels": [DEFECT]}}
    left, top, right, bottom = _within(shape, width, height)
    place = {"x": 100 * left / width, "y": 100 * top / height}
    sides = {"width": 100 * (right - left) / width, "height": 100 * (bottom - top) / height, "rotation": 0}
    return {"from_name": "box", "type": "rectanglelabels", "value": {**place, **sides, "rectanglelabels": [DEFECT]}}


def _voc(store: Store, found: Sequence[Labelled], out: Path) -> list[str]:
    """Pascal VOC, which CVAT and LabelImg read: one XML file a picture, every shape by the box around it."""
    kept = _pictures(store, found, lambda one: out / "JPEGImages" / one.name)
    (out / "Annotations").mkdir(exist_ok=True)
    for one in kept:
        (out / "Annotations" / f"{Path(one.name).stem}.xml").write_text(_xml(one), encoding="utf-8")
    return _counted(kept)


def _xml(one: Labelled) -> str:
    width, height = one.size
    boxes = "".join(_object(_within(shape, width, height)) for shape in one.shapes)
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    name = f"<folder>JPEGImages</folder><filename>{escape(one.name)}</filename>"
    return f"<annotation>{name}{size}<segmented>0</segmented>{boxes}</annotation>\n"


def _object(box: tuple[float, float, float, float]) -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    said = "".join(f"<{side}>{value:.0f}</{side}>" for side, value in sides)
    return f"<object><name>{DEFECT}</name><difficult>0</difficult><bndbox>{said}</bndbox></object>"


def _masks(store: Store, found: Sequence[Labelled], out: Path) -> list[str]:
    """A folder that Loupe's own adapter reads: test/defect, test/good, and ground_truth with a mask for each defect.

    A defect that nobody drew has no mask that tells, and is left out.
    """
    from PIL import Image

    usable = [one for one in found if one.shapes or not one.defect]
    kept = _pictures(store, usable, lambda one: out / "test" / (DEFECT if one.defect else "good") / one.name)
    for one in (one for one in kept if one.defect):
        place = out / "ground_truth" / DEFECT / f"{Path(one.name).stem}_mask.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn_mask(one.shapes, *one.size)).save(place)
    left = f"{len(found) - len(usable)} defects without a drawing are left out"
    return [*_counted(kept), *([left] if len(found) > len(usable) else [])]


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")


FORMS: dict[str, Callable[[Store, Sequence[Labelled], Path], list[str]]] = {
    "coco": _coco,
    "label-studio": _label_studio,
    "voc": _voc,
    "masks": _masks,
}
