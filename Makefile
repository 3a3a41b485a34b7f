# One file for people and for CI. `make help` lists the targets.
# PYTHON=/path/to/python3.11 chooses the interpreter; PIP_ARGS is passed to pip; JOBS is how many tests
# run at once (default: one a core).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO ?= runs/demo
WORKERS ?= 2
JOBS ?= auto

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files stay whole (their fixtures train networks), and every process has one thread: more would only
# wait for each other.
PARALLEL := -n $(JOBS) --dist loadfile
PLUGINS := $(sort $(wildcard plugins/*))
PLUGIN_PACKAGES := $(patsubst %/,%,$(dir $(wildcard plugins/*/*/__init__.py)))

# The first Python from 3.11 to 3.13 that runs and can make an environment.
FIND_PYTHON = for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && { command -v "$$p"; exit 0; }; done; true
PYTHON ?= $(shell $(FIND_PYTHON))

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- environment ---------------------------------------------------------------------------

.PHONY: venv
venv: $(STAMP) ## create .venv with the core, all plugins (editable) and the tools

$(STAMP): requirements-dev.txt tests/requirements.txt pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@if [ -z "$(PYTHON)" ]; then \
	  echo "sbi-physics needs Python 3.11, 3.12 or 3.13 with the venv module, and found none." >&2; \
	  echo "Install one (Debian: apt-get install python3.11-venv) or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; fi
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements-dev.txt
	@touch $@

# --- the main job --------------------------------------------------------------------------

.PHONY: demo
demo: $(STAMP) ## simulator to validated posterior: photon-ALP mixing towards NGC 1275 (minutes)
	$(BIN)/sbi-physics run alp-ngc1275 --engine sbi-npe --budget quick --workers $(WORKERS) --seed 1 -o $(DEMO)

# --- checks --------------------------------------------------------------------------------

.PHONY: test
test: $(STAMP) lint types imports ## all checks and every test except the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

.PHONY: test-core
test-core: $(STAMP) ## the core alone: no torch, under a minute
	$(BIN)/python -m pytest tests -m "not (engine or slow or gpu or browser)" $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(STAMP) ## coverage studies and end-to-end runs (tens of minutes)
	$(BIN)/python -m pytest -m slow --timeout 2400 $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(STAMP) ## mypy --strict on the core and the plugins
	$(BIN)/mypy sbi_physics $(PLUGIN_PACKAGES)

.PHONY: imports
imports: $(STAMP) ## import-linter: layers, no torch in the core, plugins apart
	$(BIN)/lint-imports

.PHONY: format
format: $(STAMP) ## rewrite files the way `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- other ---------------------------------------------------------------------------------

.PHONY: bench
bench: $(STAMP) ## start-up times, the photon-ALP kernel against peers, beam-dump and WZ events
	$(BIN)/python benchmarks/bench_startup.py
	$(BIN)/python benchmarks/bench_alp.py
	$(BIN)/python benchmarks/bench_beamdump.py
	$(BIN)/python benchmarks/bench_smeft.py

.PHONY: power
power: $(STAMP) ## how often the validator sees planted defects (an hour of one core; resumes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/power_validator.py --repetitions 200 --write

.PHONY: docs
docs: $(STAMP) ## HTML documentation in docs/_build/html
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

.PHONY: wheels
wheels: $(STAMP) ## build the wheel of every distribution into dist/
	for d in . $(PLUGINS); do $(BIN)/python -m build --quiet --wheel --outdir dist $$d; done
	@ls dist

# Catches undeclared dependencies, files missing from a wheel and imports between plugins.
ALONE := build/alone-$(NAME)
.PHONY: test-alone
test-alone: ## NAME=core, alp, bayesflow, beamdump, sbi, smeft or swyft: that wheel alone, in a fresh environment
	@test "$(NAME)" = core -o -d "plugins/sbi-physics-$(NAME)" || { echo "usage: make test-alone NAME=core|alp|bayesflow|beamdump|sbi|smeft|swyft" >&2; exit 2; }
	rm -rf $(ALONE)
	"$(PYTHON)" -m venv $(ALONE)/venv
	$(ALONE)/venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w $(ALONE)/dist \
	  . $(if $(filter-out core,$(NAME)),./plugins/sbi-physics-$(NAME))
	$(ALONE)/venv/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
	  $(ALONE)/dist/*.whl -r tests/requirements.txt
	$(ALONE)/venv/bin/pytest $(if $(filter core,$(NAME)),tests -m "not (engine or slow)",plugins/sbi-physics-$(NAME)/tests) \
	  $(PYTEST_ARGS)

.PHONY: clean
clean: ## remove the environment, caches and builds (never runs/)
	rm -rf $(VENV) build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find sbi_physics plugins tests benchmarks tutorials -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
