"""A bundle at another operating point: the graph and its scores stay, everything that names the threshold follows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from components.calibration.exits import moved_exits
from components.core.artefacts import file_hash, read_json, write_json
from components.core.errors import ParityError
from components.decision.calibration import Calibration
from components.decision.conformal import p_values
from components.export.card import moved_card

RUN = "run.json"  # written behind the manifest, which therefore does not name it


def repoint(bundle: Path, values: dict[str, Any]) -> None:
    """Rewrite the parts of *bundle*, a copy that nobody uses yet, for the calibration.json *values*.

    Files are replaced, never written into: they may be links. Raises BundleError, SettingsError where a part of an
    older version cannot follow, ParityError where graph and detector would decide differently at this threshold.
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
    _replace(bundle / "reference.parquet", lambda path: _write_table(reference, path))
    card = moved_card((bundle / "MODEL_CARD.md").read_text(), known, parity)
    _replace(bundle / "MODEL_CARD.md", lambda path: path.write_text(card))
    for graph in sorted(bundle.glob("*.onnx")):
        _restate(graph, known)
    manifest = read_json(bundle / "manifest.json")
    files = {name: file_hash(bundle / name) for name in manifest["files"]}
    point = {"alpha": known.alpha, "threshold": known.threshold}
    write_json(bundle / "manifest.json", {**manifest, **point, "files": files})
    if (bundle / RUN).exists():
        record = read_json(bundle / RUN)
        record["inputs"]["calibration"] = file_hash(bundle / "calibration.json")
        write_json(bundle / RUN, record)


def _reference(path: Path, known: Calibration) -> Any:
    """The reference's table, arrow, with the new decisions; p-values do not know alpha.

    The calibrate normals scored by the graph must fall on the sides on which they fall scored by the detector: the
    scores of both are there, the pairs are not, so they are counted.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    scores = table["score"].to_numpy().astype(np.float64)
    by_graph, by_detector = (
        p_values(known.table, part) <= known.alpha + 1e-12 for part in (scores, known.table.scores)
    )
    if len(scores) == known.n and by_graph.sum() != by_detector.sum():
        raise ParityError(
            f"graph and detector call {by_graph.sum()} and {by_detector.sum()} of {known.n} calibrate normals "
            f"anomalous at alpha {known.alpha:g}; give another alpha"
        )
    told = {"decision": pa.array(np.where(by_graph, "anomalous", "normal"), pa.string())}
    told["threshold"] = pa.array(np.full(len(scores), known.threshold))
    for name, column in told.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _write_table(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)


def _restate(graph: Path, known: Calibration) -> None:
    """The threshold that the graph's own metadata name."""
    model = onnx.load(graph)
    for entry in model.metadata_props:
        if entry.key in ("alpha", "threshold"):
            entry.value = str(getattr(known, entry.key))
    _replace(graph, lambda path: onnx.save(model, str(path)))


def _replace(path: Path, write: Any) -> None:
    scratch = path.with_name(f".{path.name}.part")
    write(scratch)
    scratch.replace(path)


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
