# `make demo` and `make test` do everything on a fresh machine that has Python >= 3.10 and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-slow lint types clean

help:
	@echo "make demo       create .venv, install, train and evaluate a small model on the embedded shapes (CPU, minutes)"
	@echo "make test       create .venv, install, run lint, types and tests (minutes)"
	@echo "make test-slow  the tests that take longer: whole trainings, kills and resumes"
	@echo "make lint       ruff only        make types   mypy only        make clean   remove .venv"

demo: .venv/installed
	$(BIN)/flatten-dense demo

test: lint types
	@echo "== tests"
	$(BIN)/python -m pytest -q

test-slow: .venv/installed-dev
	@echo "== slow tests"
	$(BIN)/python -m pytest -q -m slow

lint: .venv/installed-dev
	@echo "== lint"
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/installed-dev
	@echo "== types"
	$(BIN)/mypy

clean:
	rm -rf .venv

# A stamp that is older than pyproject.toml installs again.
.venv/installed: pyproject.toml | .venv/bin/python
	@echo "== installing flatten-dense and what it needs into .venv (a minute or two)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	@echo "== installing flatten-dense, what it needs and its development tools into .venv (a minute or two)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ .venv/installed

.venv/bin/python:
	@echo "== creating .venv with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "flatten-dense needs Python >= 3.10, $(PYTHON) is not: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "no virtual environment could be made; on Debian: apt install python3-venv"; exit 1; }
