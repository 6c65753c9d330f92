"""Score images with this bundle: `python runner.py IMAGE...` prints one JSON line per image.

Needs onnxruntime, numpy and Pillow. Refuses to run when a file differs from manifest.json.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
MAX_PIXELS = 50_000_000


def load_bundle() -> tuple[dict, dict, onnxruntime.InferenceSession]:
    """manifest, calibration and session, after the hashes have been checked."""
    manifest = json.loads((HERE / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{HERE / name}: changed since export; take the bundle anew")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = onnxruntime.InferenceSession(str(HERE / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return manifest, json.loads((HERE / "calibration.json").read_text()), graph


def pixels(path: str) -> np.ndarray:
    """(1, 3, H, W) float32 in [0, 1], RGB."""
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith(("I", "F")):
            grey = np.clip(np.asarray(image, np.float64) / 257.0, 0, 255).round().astype(np.uint8)
            rgb = np.repeat(grey[..., None], 3, 2)
        else:
            rgb = np.array(image.convert("RGB"))
    return np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)


def main(paths: list[str]) -> None:
    manifest, calibration, graph = load_bundle()
    known = np.array(calibration["scores"])
    for path in paths:
        try:
            score = float(graph.run(["score"], {"image": pixels(path)})[0][0])
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{path}: not scored: {error}\n")
            continue
        p = float((1 + (known >= score - calibration["resolution"]).sum()) / (len(known) + 1))
        decision = "anomalous" if p <= calibration["alpha"] + 1e-12 else "normal"
        record = {"image": path, "score": score, "p_value": p, "decision": decision, "model": manifest["model"][:12]}
        sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
