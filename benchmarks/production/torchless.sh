#!/usr/bin/env bash
# Whether an environment without torch scores the same: loupe bench torchless BUNDLE IMAGES...
#
# It has onnxruntime, numpy, Pillow and pyarrow only; its table is compared with that of `loupe score`.
set -euo pipefail
bundle=$1; shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check -c requirements.lock onnxruntime numpy pillow pyarrow
"$folder/venv/bin/pip" list --format=freeze
"$folder/venv/bin/python" -m components.decision "$bundle" "$@" --out "$folder/second.parquet"
.venv/bin/loupe score "$bundle" "$@" --out "$folder/first.parquet"
.venv/bin/python - "$folder/first.parquet" "$folder/second.parquet" <<'PYTHON'
import sys

import pandas as pd

first, second = (pd.read_parquet(p).drop(columns=["taken_at", "latency_ms"]) for p in sys.argv[1:])
same = first["score"].equals(second["score"]) and first["decision"].equals(second["decision"])
print(f"{len(first)} images, scores and decisions identical: {same}")
sys.exit(not same)
PYTHON
