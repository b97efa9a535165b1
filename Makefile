# The contributor's day. `make` alone lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := demo
# The demo's four steps are the commands of the README, on synthetic records.
ECGFAIR := $(BIN)/python -m ecgfair

.DEFAULT_GOAL := help
.PHONY: help demo install results test test-slow lint format clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# Two stamps, so that the demo does not wait for what only contributors need.
.venv/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgfair needs Python 3.11 or later: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/.development: .venv/.runtime
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint,wandb]'
	@touch $@

install: .venv/.development ## Install everything a contributor needs into .venv

demo: .venv/.runtime ## Both stages on synthetic ECGs, ending in the table by sex and age (3 minutes)
	rm -rf $(DEMO)
	$(ECGFAIR) synthesize $(DEMO)/source --records 2500 --config experiments/smoke/population.yaml
	$(ECGFAIR) prepare ptbxl $(DEMO)/source $(DEMO)/store
	$(ECGFAIR) fit --config experiments/smoke/pretrain.yaml
	$(ECGFAIR) fit --config experiments/smoke/finetune.yaml
	$(ECGFAIR) test --config experiments/smoke/finetune.yaml

results: .venv/.development ## Every row of experiments/RESULTS.md that is not there yet (hours; restarts where it stopped)
	$(BIN)/python -m experiments.ptbxl.results

test: .venv/.development ## Tests (real recordings: ECGFAIR_DATA=/folder/with/ptbxl/in/it)
	$(BIN)/python -m pytest -m 'not slow'

test-slow: .venv/.development ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/.development ## ruff, mypy strict and the import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.development ## Format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment, caches and the demo; runs/ and stores/ stay
	rm -rf .venv $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
