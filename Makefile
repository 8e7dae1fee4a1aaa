# Two commands do everything on a fresh machine with Python 3.11 to 3.13: `make train` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Libraries without bytecode beside them are compiled again in every process, ten seconds each.
export PYTHONDONTWRITEBYTECODE :=

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check install --quiet --no-compile
QUICK := runs/polar_relaxed-quick
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo '[cuda]')
# Two processes share the two cores of a small machine; more only pay on larger ones.
WORKERS := 2

.PHONY: help env train test soak browser clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(VENV)/development  ## environment with everything that training and tests need, in .venv

train: $(VENV)/runtime  ## environment, then the quick main job on the embedded virtual V1
	$(PYTHON) train.py --config configs/polar_relaxed.py:quick --workdir $(QUICK)

test: $(VENV)/development browser  ## environment, then format, lint, types and tests
	scripts/check.sh
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal --durations=15 $(ARGS)

soak: $(VENV)/runtime  ## kills a small run 40 times and damages 120 checkpoints, about ten minutes
	$(PYTHON) -m benchmarks.soak $(ARGS)

browser:  # one test opens a report in headless Chromium
	@scripts/browser.sh

clean:  ## removes the environment and all caches, keeps runs/
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

$(VENV)/runtime: requirements.txt pyproject.toml scripts/python.sh
	@interpreter=$$(scripts/python.sh); \
	echo "Environment in $(VENV): $$($$interpreter --version), polarjax$(EXTRA)"; \
	$$interpreter -m venv --clear $(VENV)
	$(PIP) --editable '.$(EXTRA)'
	@touch $@

$(VENV)/development: $(VENV)/runtime requirements-dev.txt
	$(PIP) --requirement requirements-dev.txt
	@touch $@
