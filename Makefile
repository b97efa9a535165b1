# The contributor's day. `make` alone lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# pip verifies every file's SHA-256; nothing is resolved, since the files list all that is needed.
HASHED := -m pip install --quiet --require-hashes --no-deps --requirement
DEMO := demo
# The demo's four steps are the commands of the README, on synthetic records.
ECGFAIR := $(BIN)/python -m ecgfair

# Tests on all cores, up to eight: each process makes stores of its own, and keeps to whole files for what they set up.
PYTEST := -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo install results test test-slow lint format audit hashes lowest latest clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# Two stamps, so that the demo does not wait for what only contributors need.
.venv/.runtime: pyproject.toml constraints.txt hashes/runtime.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ecgfair needs Python 3.11 or later: make PYTHON=/path/to/python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(HASHED) hashes/runtime.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch # one version, a file for each kind of device: no hash
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.development: .venv/.runtime hashes/development.txt
	$(BIN)/python $(HASHED) hashes/development.txt
	$(BIN)/python -m pip check
	@touch $@

# Apart from the rest: what looks at an environment is no part of it.
.venv-audit/.installed: hashes/audit.txt
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(HASHED) hashes/audit.txt
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
	$(BIN)/python $(PYTEST) -m 'not slow'

test-slow: .venv/.development ## The tests that take minutes
	$(BIN)/python $(PYTEST) -m slow

lint: .venv/.development ## ruff, mypy strict, the import rules and bandit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml ecgfair data_modules experiments .ci

format: .venv/.development ## Format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: .venv-audit/.installed ## Known vulnerabilities of every pinned version (asks a service on the network)
	.venv-audit/bin/pip-audit --disable-pip --no-deps --requirement constraints.txt

hashes: .venv-audit/.installed ## Write hashes/*.txt anew, after a change of pins (asks the package index)
	.venv-audit/bin/python .ci/hashes.py

lowest: ## The tests with the lowest versions that pyproject.toml admits, in .venv-lowest
	$(PYTHON) -m venv --clear .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[test,wandb]'
	# What is old uses what its own newer dependencies deprecate: no fault here, as every other warning is.
	.venv-lowest/bin/python $(PYTEST) -m 'not slow' -W default::DeprecationWarning -W default::PendingDeprecationWarning

latest: ## The tests with the latest versions that pyproject.toml admits, in .venv-latest
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet --upgrade --editable '.[test,wandb]'
	.venv-latest/bin/python $(PYTEST) -m 'not slow'

clean: ## Remove the environments, caches and the demo; runs/ and stores/ stay
	rm -rf .venv .venv-* $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
