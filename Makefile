# `make demo` runs the main job, `make test` the tests; each sets up what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test proof lint types

demo: .venv/installed
	$(BIN)/safesail demo

test: .venv/installed-for-tests
	$(BIN)/python -m pytest -m "not proof" -n 2

proof: .venv/installed-for-tests
	$(BIN)/python -m pytest -m proof -n 2

lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-for-tests
	$(BIN)/mypy safesail cli

.venv/installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "safesail needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (some minutes the first time) ..."
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

.venv/installed-for-tests: .venv/installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@
