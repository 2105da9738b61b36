# Everything starts here: `make train` and `make test` need nothing but Python 3.11 or newer and a network.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SYSTEM_PACKAGES := chromium dataset-fashion-mnist

.DEFAULT_GOAL := help
.PHONY: help train test lint types deps audit unit docs bench mutants system constraints format clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

train: .venv/.installed ## install, then grow a network on MNIST-1D
	$(BIN)/esper train mnist1d

test: lint types deps audit docs unit ## install, then run every check and the whole test suite

lint: .venv/.installed-dev ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-dev ## mypy --strict on src
	$(BIN)/mypy

deps: .venv/.installed-dev ## are the installed packages consistent?
	$(BIN)/python -m pip check

audit: .venv/.installed-dev ## known vulnerabilities in the pinned packages
	$(BIN)/python .ci/audit.py constraints.txt

unit: .venv/.installed-dev system ## the test suite with branch coverage
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term

docs: .venv/.installed-dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: ## list the benchmarks; each prints and stores one table
	@echo "Each script runs on its own, for instance: $(BIN)/python benchmarks/mnist1d.py"
	@ls benchmarks/*.py

mutants: .venv/.installed-dev ## mutation score of the judge and of surgery (takes long)
	$(BIN)/mutmut run
	$(BIN)/python .ci/mutants.py

system: ## what some tests need from Debian: installed when root, else those tests skip and say so
	@.ci/system $(SYSTEM_PACKAGES)

constraints: ## write constraints.txt anew from a clean environment
	.ci/pin "$(PYTHON)" constraints.txt torch==2.13.0

format: .venv/.installed-dev ## let ruff format and repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what these commands made
	rm -rf .venv site mutants htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Esper needs Python 3.11 or newer; say which one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv || { echo "On Debian: apt-get install python3-venv"; rm -rf .venv; exit 1; }

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[all]"
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@ .venv/.installed
