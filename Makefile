# What CI runs, and what a newcomer runs: everything happens in .venv, made when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test format lint types unit contract integration e2e bench bench-start bench-calls bench-image clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# Debian's python3 comes without ensurepip (package python3-venv); `root` may install it.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "clusterkit needs Python >= 3.11 (this is $$($(PYTHON) --version)): make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; } || \
	  { echo "This Python has no venv: sudo apt-get install python3-venv"; exit 1; }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev,experiments]'
	@touch $@

demo: $(STAMP)  ## a real PyTorch grid on a SLURM of this machine: a table and a plot
	$(BIN)/python experiments/demo.py

test: unit contract integration e2e  ## all tests, also those against a real SLURM

format: $(STAMP)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

lint: $(STAMP)  ## ruff, the direction of imports, ansible-lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	cd playbooks && PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint --offline --profile production

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

# Two processes, each with whole files: what a file shares is made once. The other two suites are
# alone on the machine: they measure out time and processors.
unit: $(STAMP)  ## pure tests, seconds
	$(BIN)/pytest -q -n 2 --dist loadfile tests/unit

contract: $(STAMP)  ## one suite per interface, over every implementation
	$(BIN)/pytest -q -n 2 --dist loadfile tests/contract

integration: $(STAMP)  ## against a real SLURM on this machine
	$(BIN)/pytest -q tests/integration

e2e: $(STAMP)  ## on real machines (systemd-nspawn), and from a built wheel in an empty home
	$(BIN)/pytest -q tests/e2e

bench: $(STAMP)  ## speeds beside the peers', as ratios
	$(BIN)/python bench/run.py

bench-start: $(STAMP)  ## a start of many machines beside apt-get alone, as ratios
	$(BIN)/python bench/start.py

bench-calls: $(STAMP)  ## calls to the clouds' APIs, counted, for 2 and 32 workers
	$(BIN)/python bench/clouds.py calls

bench-image: $(STAMP)  ## a start from a saved image beside one from a plain one, as root
	$(BIN)/python bench/clouds.py image

clean:  ## remove what was made here
	rm -rf $(VENV) build dist demo-out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
