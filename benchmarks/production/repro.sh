#!/usr/bin/env bash
# What `dvc repro` costs over the benchmark of params.yaml, and what it leaves alone.
#
# Again it must do nothing; with one detector's key touched its plan has that detector's stages only.
set -euo pipefail
export PATH=$PWD/.venv/bin:$PATH
set -a; . components/environment.env; set +a
loupe data check elpv > /dev/null
time dvc repro > /dev/null
time dvc repro
cp params.yaml params.before
trap 'mv params.before params.yaml' EXIT
sed -i 's/^    patchcore: {}/    patchcore: {bank_size: 9000}/' params.yaml
dvc repro --dry | grep '^Running stage'
