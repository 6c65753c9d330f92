"""Score images with this bundle: `python runner.py IMAGE...` prints one JSON line per image.

Needs onnxruntime, numpy and Pillow. LOUPE_PROVIDER is cpu, cuda or tensorrt; without it what the bundle was measured
with computes, where this ONNX Runtime has it, else the processor. Refuses to run when a file differs from
manifest.json. A file that cannot be scored is named on standard error, and the others are scored; the exit status is
then 3, or 1 when none could be.

It checks no signature: it is a file of the bundle itself, and whoever changed the bundle could have changed it. Where
LOUPE_VERIFY_KEYS asks for signed bundles it refuses; `loupe verify` and `loupe score` check them.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
CHAINS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


def providers(measured: str) -> list[str]:
    """ONNX Runtime's names of what computes; said where it is not what the bundle was *measured* with."""
    asked, known = os.environ.get("LOUPE_PROVIDER"), onnxruntime.get_available_providers()
    if asked and (asked not in CHAINS or CHAINS[asked][0] not in known):
        sys.exit(f"LOUPE_PROVIDER {asked}: this ONNX Runtime cannot use it; leave it out, or give cpu")
    wanted = asked or (measured if CHAINS.get(measured, [""])[0] in known else "cpu")
    if wanted != measured:
        sys.stderr.write(f"{wanted} computes, the bundle was measured with {measured}: last digits may differ\n")
    return CHAINS[wanted]


def load_bundle() -> tuple[dict, dict, onnxruntime.InferenceSession]:
    """manifest, calibration and session, after the hashes have been checked."""
    manifest = json.loads((HERE / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{HERE / name}: changed since export; take the bundle anew")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen = providers(manifest.get("runtime", {}).get("provider", "cpu"))
    graph = onnxruntime.InferenceSession(str(HERE / "model.onnx"), options, providers=chosen)
    return manifest, json.loads((HERE / "calibration.json").read_text()), graph


def squares(path: str, rules: dict) -> Iterator[np.ndarray]:
    """What the graph sees of a file, the whole or square by square: (1, 3, H, W) float32 in [0, 1], RGB; of the frame
    of a clip it and the frames before it in its folder, (1, T, 3, H, W)."""
    sys.dont_write_bytecode = True  # the bundle's folder stays as it was exported, and may be read-only
    from clips import decode  # type: ignore[import-not-found]  # beside this file in a bundle
    from decoding import Decoding  # type: ignore[import-not-found]
    from tiles import pieces  # type: ignore[import-not-found]

    known = Decoding(**rules)
    for rgb in pieces(decode(Path(path), rules=known), known.tiles, known.roi):
        yield np.ascontiguousarray(np.moveaxis(rgb, -1, -3)[None]).astype(np.float32) / np.float32(255)


def main(paths: list[str]) -> int:
    if os.environ.get("LOUPE_VERIFY_KEYS"):
        sys.exit(
            f"{HERE}: its own runner cannot vouch for it; use `loupe score`, or `loupe verify` and an empty variable"
        )
    manifest, calibration, graph = load_bundle()
    known, failed = np.array(calibration["scores"]), 0
    for path in paths:
        try:
            given = squares(path, manifest["decoding"])
            score = float(max(graph.run(["score"], {"image": square})[0][0] for square in given))
        except Exception as error:  # whatever is wrong with one file, the next is scored
            sys.stderr.write(f"{path}: not scored: {error}\n")
            failed += 1
            continue
        p = float((1 + (known >= score - calibration["resolution"]).sum()) / (len(known) + 1))
        decision = "anomalous" if p <= calibration["alpha"] + 1e-12 else "normal"
        record = {"image": path, "score": score, "p_value": p, "decision": decision, "model": manifest["model"][:12]}
        sys.stdout.write(json.dumps(record) + "\n")
    return 0 if not failed else 1 if failed == len(paths) else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
