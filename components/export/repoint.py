"""A bundle at another operating point: the graph and its scores stay, everything that names the threshold follows."""

import shutil
from pathlib import Path
from typing import Any

import onnx

from components.calibration.exits import moved_exits
from components.core.artefacts import aside, file_hash, read_json, write_json
from components.core.errors import ParityError
from components.core.records import SCORE_COLUMNS
from components.core.signing import sign_where_asked
from components.core.system import replace
from components.decision.calibration import Calibration
from components.decision.conformal import decide_one
from components.decision.tables import write_records
from components.export.card import moved_card

RUN = "run.json"  # written behind the manifest, which therefore does not name it


def repoint(bundle: Path, values: dict[str, Any]) -> None:
    """Rewrite the parts of *bundle*, a copy that nobody uses yet, for the calibration.json *values*.

    Files are replaced, never written into: they may be links. Raises BundleError, SettingsError where a part of an
    older version cannot follow, ParityError where graph and detector would decide differently at this threshold. It is
    signed anew where the environment names a key.
    """
    known = Calibration.of(values)
    reference = _reference(bundle / "reference.parquet", known)
    write_json(bundle / "calibration.json", values)
    parity = read_json(bundle / "parity.json")
    if (bundle / "cascade.json").exists():
        stands = moved_exits(read_json(bundle / "cascade.json"), known)
        write_json(bundle / "cascade.json", stands)
        parity["edge"]["leave"] = stands["leave"]
        write_json(bundle / "parity.json", parity)
    write_records(reference, bundle / "reference.parquet", SCORE_COLUMNS)
    card = moved_card((bundle / "MODEL_CARD.md").read_text(), known, parity)
    _replace(bundle / "MODEL_CARD.md", lambda path: path.write_text(card))
    for graph in sorted(bundle.glob("*.onnx")):
        restate(graph, known)
    manifest = read_json(bundle / "manifest.json")
    files = {name: file_hash(bundle / name) for name in manifest["files"]}
    point = {"alpha": known.alpha, "threshold": known.threshold, "rule": known.rule}
    write_json(bundle / "manifest.json", {**manifest, **point, "files": files})
    if (bundle / RUN).exists():
        record = read_json(bundle / RUN)
        record["inputs"]["calibration"] = file_hash(bundle / "calibration.json")
        write_json(bundle / RUN, record)
    sign_where_asked(bundle)


def _reference(path: Path, known: Calibration) -> list[dict[str, Any]]:
    """The reference's records with the new decisions; p-values do not know alpha.

    The calibrate normals scored by the graph must fall on the sides on which they fall scored by the detector: the
    scores of both are there, the pairs are not, so they are counted.
    """
    import pyarrow.parquet as pq

    records = pq.read_table(path).to_pylist()
    decided = [decide_one(known.table, record["score"]) for record in records]
    graph = sum(one.decision == "anomalous" for one in decided)
    detector = sum(decide_one(known.table, score).decision == "anomalous" for score in known.table.scores)
    if len(records) == known.n and graph != detector:
        raise ParityError(
            f"graph and detector call {graph} and {detector} of {known.n} calibrate normals anomalous at alpha "
            f"{known.alpha:g}; give another alpha"
        )
    told = zip(records, decided, strict=True)
    return [{**record, "decision": one.decision, "threshold": one.threshold} for record, one in told]


def restate(graph: Path, known: Calibration) -> None:
    """The threshold that the graph's own metadata name."""
    model = onnx.load(graph)
    for entry in model.metadata_props:
        if entry.key in ("alpha", "threshold"):
            entry.value = str(getattr(known, entry.key))
    _replace(graph, lambda path: onnx.save(model, str(path)))


def _replace(path: Path, write: Any) -> None:
    with aside(path) as scratch:
        write(scratch)
        replace(scratch, path)


def clone(source: Path, scratch: Path, link: bool, leave: tuple[str, ...] = ()) -> None:
    """Copy a folder into *scratch*; with *link* by second names of the same files, where the disk can."""

    def put(one: str, other: str) -> None:
        if not link:
            shutil.copy2(one, other)
            return
        try:
            Path(other).hardlink_to(one)
        except OSError:
            shutil.copy2(one, other)

    shutil.copytree(source, scratch, copy_function=put, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*leave))
