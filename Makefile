# `make demo` and `make test` each work as the first command on a machine with Python 3.11, git and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
VALIDATED := $(filter-out validation,$(basename $(notdir $(sort $(wildcard experiments/validate/*.py)))))

export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: demo test lint types suite bench bench-environments bench-linalg bench-simulations bench-transfer validate clean

demo: $(READY)
	$(BIN)/python experiments/demo.py

test: lint types suite

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

suite: $(READY)
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/python experiments/bench/core.py

bench-linalg: $(READY)
	$(BIN)/python experiments/bench/linalg.py

bench-transfer: $(READY)
	$(BIN)/python experiments/bench/transfer.py --results docs/results

bench-environments: $(READY)
	$(BIN)/python experiments/bench/environments.py --results docs/results

bench-simulations: $(READY)
	$(BIN)/python experiments/bench/simulations.py --results docs/results

validate: $(READY)
	for simulation in $(VALIDATED); do $(BIN)/python experiments/validate/$$simulation.py --results docs/results || exit 1; done

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) output build *.egg-info
