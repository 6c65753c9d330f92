include components/environment.env
export

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup pipeline test check bench clean

setup: $(READY)  ## the virtual environment, from the lock file

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[samples,monitor,serve,s3,ui,dev]'
	touch $(READY)

pipeline: setup  ## the main job: solar cells to a registered champion
	$(BIN)/loupe pipeline

test: setup  ## all tests
	$(BIN)/pytest

check: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## the reproducible benchmark: dvc repro over the matrix of params.yaml
	$(BIN)/loupe data check elpv
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/dvc repro

clean:  ## what the pipeline made; data, caches and the registry stay
	rm -rf artefacts runs build
