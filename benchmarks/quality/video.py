"""STM-AE on the clips of UCSD Ped2: frame AUC with and without what it is made of, beside two simple baselines.

Each variant is trained, calibrated, evaluated and exported by the pipeline's stages, each in a process on one thread;
the epoch is chosen by synthetic anomalies. The frame difference learns nothing; the plain autoencoder is the same
network without its mechanisms; detectors of pictures see one frame, and nothing of what moves. Frames per second are
those of the exported graph on two cores.
Results: benchmarks/results/video.json and video.md.
"""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import options, staged
from benchmarks.common.tables import joined, markdown, number, within, wrapped
from benchmarks.common.views import prepare, stages_of
from components.core.artefacts import read_json
from components.core.records import kept_score
from components.datasets.loading import read_decoding, rows
from components.datasets.videos import clip_of
from components.decision.bundle import Bundle
from components.detectors.catalogue import settings_for
from components.detectors.methods.stm_ae import BOX
from components.detectors.parts.blocks import box_mean, in_proportion
from components.detectors.parts.clips import FAINT
from components.evaluation.clips import difference, frame_figures
from components.pictures.kept import decode
from components.training.clips import ClipTable
from components.training.model import load_model, score_files
from components.training.train import file_images

VIEW, DETECTOR = "ped2", "stm_ae"
FULL, DIFFERENCE, PLAIN = "stm_ae", "frame difference", "plain autoencoder"
CONTRAST, FRAMES = "errors by contrast", "{}, frame by frame"
VARIANTS: dict[str, dict[str, Any]] = {
    FULL: {},
    PLAIN: {"shift": "none", "attention": False, "memories": "none", "discreteness": 0.0, "compactness": 0.0},
    "without temporal shift": {"shift": "none"},
    "without channel attention": {"attention": False},
    "memory at the deepest level alone": {"memories": "deepest"},
    "without discreteness loss": {"discreteness": 0.0},
    CONTRAST: {
        "standardise": "contrast",
        "base": "background",
        "crop": 32,
        "crops": 4,
        "gradient": 0.0,
        "epochs": 8,
    },
}
FRAME_BY_FRAME = {FRAMES.format(name): name for name in ("patchcore", "padim")}  # detectors of pictures, as they are
ROWS = (*VARIANTS, *FRAME_BY_FRAME)
WHOLE = "by the whole frame"  # the score of the full model as PSNR has it
STAGES = ("train", "calibrate", "evaluate", "export")
OUT = RESULTS / "video.json"
TIMED = 60  # frames whose time in the exported graph is measured
SPENT = """At the calibrated threshold, of pixels, and what it took. Frames a second (fps) by ONNX Runtime on two cores,
and a frame's milliseconds of both cores together: the machine is shared."""
ABOUT = """Half of UCSD Ped2: 8 training clips, of which 2 calibrate, and 6 test clips, of which 2 are anomalous
throughout. Frame AUC is over all 1,020 test frames of scores that are not normalised, with a 95 % bootstrap interval
over blocks of 30 frames; it knows nothing of other clips. *Micro*: scores scaled to 0 to 1 within each clip, as
published; *macro*: mean over the clips that hold both classes. Both are for comparison only, and half a set is not
comparable with published figures. No frame is left out; the first frames of a clip have their first frame repeated
before them. Synthetic: AUROC of calibrate frames against synthetic anomalies, which chose the epoch."""


def main(arguments: list[str]) -> None:
    parser = options("video", __doc__, report=True)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"of {', '.join(ROWS)}; default the first 2")
    asked = parser.parse_args(arguments)
    if not asked.report:
        prepare(VIEW)
        add(OUT, simple(), "variants")
        for name in asked.variants or (FULL, PLAIN):
            add(OUT, measured(name), "variants")
            sys.stderr.write(f"{name}: frame AUC {stored(OUT)['variants'][name]['test']['auroc']:.3f}\n")
    OUT.with_suffix(".md").write_text(report(stored(OUT)["variants"]))


def simple() -> dict[str, Any]:
    """The frame difference: what changed since the frame before, scored as the errors of a prediction are."""
    split = stages_of(VIEW).folder / "split"
    table, size = rows(split, "test"), settings_for(DETECTOR, "cpu").size
    clips = ClipTable(file_images(stages_of(VIEW).data, table, read_decoding(split)), size, 2)
    taken = [clips.take([i])[0] for i in range(len(clips))]
    errors = torch.stack([(pair[1] - pair[0]).square().mean(0, keepdim=True) for pair in taken])
    side = in_proportion(BOX, size)
    peak = 10 * torch.log10(box_mean(errors, side, side // 2).flatten(1).max(1).values + FAINT)
    mean = 10 * torch.log10(errors.flatten(1).mean(1) + FAINT)
    scores = {DIFFERENCE: peak.double().numpy(), f"{DIFFERENCE}, {WHOLE}": mean.double().numpy()}
    for name, found in scores.items():
        kept(name).parent.mkdir(parents=True, exist_ok=True)
        np.save(kept(name), found)
    return {name: {"test": figures(table, found), "commit": commit()} for name, found in scores.items()}


def measured(name: str) -> dict[str, Any]:
    """A variant by the pipeline's stages; of the full one also the score by the whole frame."""
    stages, params, detector = stages_of(VIEW), variant_params(name), detector_of(name)
    folder = params.parent / VIEW / detector
    shutil.rmtree(folder, ignore_errors=True)
    used = {stage: staged(stage, VIEW, detector, params) for stage in STAGES}
    result = pd.read_parquet(folder / "evaluation" / "scores.parquet")
    np.save(kept(name), result["score"].to_numpy())
    metrics, history = read_json(folder / "evaluation/metrics.json"), read_json(folder / "model/history.json")
    check = read_json(folder / "model/check.json")
    entry = {
        "detector": detector,
        "settings": VARIANTS.get(name, {}),
        "test": figures(result, result["score"].to_numpy()),
        "beyond difference": difference(*labelled(result), np.load(kept(DIFFERENCE)), clips_of(result)),
        "pixel": {k: metrics["overall"]["pixel"][k] for k in ("auroc", "ap", "aupro", "images")},
        "false alarms": metrics["overall"]["false_alarm_rate"]["rate"],
        "misses": metrics["overall"]["miss_rate"]["rate"],
        "synthetic": kept_score(history),
        "kinds": {kind: found["auroc"] for kind, found in check["kinds"].items()},
        "seconds": {"train": used["train"].seconds, "train CPU": used["train"].busy},
        "peak_memory_mb": used["train"].peak_mb,
        "parity": read_json(folder / "bundle/parity.json")["score_error"],
        "onnx": speed(Bundle.open(folder / "bundle", 2), stages.data, result),
        "torch": torch.__version__,
        "commit": commit(),
    }
    return {name: entry, **(whole_frame(folder, result) if name == FULL else {})}


def whole_frame(folder: Path, result: pd.DataFrame) -> dict[str, Any]:
    """The same model, scored as PSNR has it: the mean error of the frame."""
    detector, split = load_model(folder / "model"), stages_of(VIEW).folder / "split"
    detector.settings = settings_for(DETECTOR, "cpu", {"image": "frame"})
    paths = [stages_of(VIEW).data / name for name in result["image_id"]]
    scores = np.concatenate([s for s, _ in score_files(detector, paths, rules=read_decoding(split))]).astype(float)
    return {f"{FULL}, {WHOLE}": {"test": figures(result, scores), "commit": commit()}}


def variant_params(name: str) -> Path:
    """params.yaml of a row, whose artefacts lie apart and begin from the same split and synthetic anomalies."""
    folder, base = WORK / "video" / name.replace(" ", "-"), stages_of(VIEW)
    (folder / VIEW).mkdir(parents=True, exist_ok=True)
    for made in (base.folder / "split", base.folder / "synthetic"):
        link = folder / VIEW / made.name
        if not link.exists():
            link.symlink_to(made.resolve(), target_is_directory=True)
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["artefacts"] = str(folder)
    values["train"]["detectors"][detector_of(name)] = VARIANTS.get(name, {})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder / "params.yaml"


def detector_of(name: str) -> str:
    return FRAME_BY_FRAME.get(name, DETECTOR)


def kept(name: str) -> Path:
    return WORK / "video" / f"{name.replace(' ', '-')}.npy"


def labelled(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return (table["label"] == "anomalous").to_numpy(), table["score"].to_numpy()


def clips_of(table: pd.DataFrame) -> list[str]:
    return [clip_of(str(name)) for name in table["image_id"]]


def figures(table: pd.DataFrame, scores: np.ndarray) -> dict[str, Any]:
    return frame_figures((table["label"] == "anomalous").to_numpy(), scores, clips_of(table))


def speed(bundle: Bundle, data: Path, table: pd.DataFrame) -> dict[str, float]:
    """Frames a second from the decoded window to the score on two threads: median, and 95th percentile of times."""
    paths = [data / name for name in table["image_id"][:: max(1, len(table) // TIMED)][:TIMED]]
    windows = [decode(path, rules=bundle.decoding) for path in paths]
    spent, busy = [], []
    for pixels in (windows[0], *windows):  # the first one allocates
        started, worked = time.perf_counter(), time.process_time()
        bundle.answer(pixels)
        spent.append(time.perf_counter() - started)
        busy.append(time.process_time() - worked)
    typical, slow = np.quantile(spent[1:], [0.5, 0.95])
    more = {"cpu_ms": round(1000 * float(np.median(busy[1:])), 1)}  # both cores together: the machine is shared
    return {
        **more,
        "fps": round(1 / float(typical), 1),
        "fps_p95": round(1 / float(slow), 1),
        "cores": os.cpu_count() or 0,
    }


def report(found: dict[str, Any]) -> str:
    """results/video.md."""
    names = [n for n in (DIFFERENCE, f"{DIFFERENCE}, {WHOLE}", *ROWS, f"{FULL}, {WHOLE}") if n in found]
    quality = [[name, *_quality(found[name])] for name in names]
    trained = [name for name in ROWS if name in found]
    heads = ("", "pixel AUROC", "pixel AP", "AUPRO 0.3", "false alarms", "misses", "train s", "CPU s", "fps", "CPU ms")
    more = [[name, *_more(found[name])] for name in trained]
    kinds = list(dict.fromkeys(kind for name in trained for kind in found[name]["kinds"]))
    signal = [[name, *(number(found[name]["kinds"], kind, 3) for kind in kinds)] for name in trained]
    tables = (
        wrapped(SPENT),
        markdown(heads, more),
        "Synthetic anomalies by kind, AUROC against calibrate frames:",
        markdown(("", *kinds), signal),
    )
    return joined(
        "# Video: UCSD Ped2, the half at hand",
        wrapped(" ".join(ABOUT.split())),
        markdown(("", "frame AUC (95 %)", "beyond the difference (95 %)", "micro", "macro", "synthetic"), quality),
        *(tables if trained else ()),
    )


def _quality(entry: dict[str, Any]) -> list[str]:
    test = entry["test"]
    beyond = entry.get("beyond difference")
    return [
        within(test["auroc"], test["interval"]),
        f"{beyond[0]:+.3f} to {beyond[1]:+.3f}" if beyond else "",
        f"{test['micro']:.3f}",
        f"{test['macro']:.3f} (of {test['macro_clips']} clips)",
        f"{entry['synthetic']:.3f}" if entry.get("synthetic") else "",
    ]


def _more(entry: dict[str, Any]) -> list[str]:
    pixel = [f"{entry['pixel'][key]:.3f}" for key in ("auroc", "ap", "aupro")]
    rates = [f"{entry[key]:.3f}" for key in ("false alarms", "misses")]
    seconds = [f"{entry['seconds'][key]:.0f}" for key in ("train", "train CPU")]
    return [*pixel, *rates, *seconds, f"{entry['onnx']['fps']:.0f}", number(entry["onnx"], "cpu_ms", 0)]
