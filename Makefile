include components/environment.env
export

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
FAST := tests/unit --ignore=tests/unit/benchmarks --ignore=tests/unit/detectors/methods

# Some machines forbid Python to keep what it has compiled: each of the hundreds of processes of tests would do it again.
test quick golden mutants: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup pipeline test quick check golden mutants bench docs stack stack-down demo-drift clean

help:  ## this list
	@awk -F ':[^#]*## *' '/^[a-z-]*:[^#]*##/ {printf "%-14s%s\n", $$1, $$2}' Makefile

setup: $(READY)  ## the virtual environment, from the lock file

$(READY): requirements.lock pyproject.toml
	@free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1000000)}'); kept=$$(du -sk .venv 2> /dev/null | cut -f1); \
		[ $$((free + $${kept:-0} / 1000000)) -ge 10 ] || \
		{ echo "setup: $$free GB are free on the disk of $$PWD, where 10 are asked for: 8 for the packages, the rest" \
		"to work with; make room, or clone to another disk"; exit 1; }
	@echo "setup 1 of 3: a virtual environment in .venv, with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@echo "setup 2 of 3: $$(grep -c == requirements.lock) packages at most; on Linux 8 GB on the disk, 5 GB of it torch with CUDA."
	@echo "              How long that takes is up to the network; pip says below where it is."
	@$(BIN)/pip install --disable-pip-version-check --no-compile -c requirements.lock -e '.[all,docs,dev]'
	@echo "setup 3 of 3: compiling Python's files, on all cores, where pip takes one"
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # what no Python 3 can read is in tests of packages
	@touch $(READY)
	@echo "setup done: $$(du -sh .venv | cut -f1) in .venv. Next: . $(BIN)/activate, then loupe doctor"

pipeline: setup  ## the main job: solar cells to a registered champion
	$(BIN)/loupe pipeline

# Three at a time on two cores: a good part of the tests waits for servers.
test: setup  ## all tests
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: setup  ## style, types, the length of lines and sentences in the documents, advisories of packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m tests.prose
	$(BIN)/python -m tests.advisories

quick: setup  ## style, floor plan, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow" $(FAST)

golden: setup  ## store the golden numbers of one method: make golden NAME=patchcore
	$(BIN)/pytest tests/contract -k "golden and $(NAME)" --golden

mutants: setup  ## break sources point by point, a named test must fail each time; of one method: make mutants NAME=patchcore
	$(BIN)/python -m tests.mutants $(NAME)

bench: setup  ## the reproducible benchmark: dvc repro over the matrix of params.yaml
	$(BIN)/loupe data check elpv
	$(BIN)/loupe bench matrix

docs: setup  ## the documents as a site, in build/site, for a reader without a network
	$(BIN)/python infra/site/build.py

stack: setup  ## Prefect server and worker, MLflow, S3 endpoint, scoring service
	$(BIN)/python infra/stack.py up

stack-down:  ## end exactly what `make stack` started
	$(BIN)/python infra/stack.py down

demo-drift: setup  ## drift, retraining and promotion on solar cells, unattended, with a stack of its own
	$(BIN)/loupe bench demo_drift

clean:  ## what the pipeline made; data, caches and the registry stay
	rm -rf artefacts runs build
