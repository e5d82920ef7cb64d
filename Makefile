# Every target starts from a bare checkout with Python 3.11 or newer: it makes .venv and installs what it needs.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: demo test lint format bench docs docs-check notebooks browser clean

demo: .venv/.demo
	$(BIN)/python -m funcnets.examples.digits $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.bench
	$(BIN)/python -m benchmarks $(ARGS)

# The site, in build/docs/html; a warning is an error, and so is a link within it that leads nowhere.
docs: .venv/.docs
	$(BIN)/python -m sphinx -b html -n -W --keep-going -q -d build/docs/doctrees docs build/docs/html
	$(BIN)/python docs/_ext/links.py build/docs/html

# Every page of it in headless Chromium (Debian: chromium, chromium-driver); ARGS=FOLDER for pictures.
docs-check: docs
	$(BIN)/python docs/_ext/visit.py build/docs/html $(ARGS)

# Runs the notebooks and stores what they show; ARGS=01 for the first.
notebooks: .venv/.notebooks
	$(BIN)/python -m notebooks.refresh $(ARGS)

# Runs two of them in JupyterLab, in headless Chromium (as above); the pictures are in artifacts/browser.
browser: .venv/.notebooks .venv/.test
	$(BIN)/python -m pytest tests/browser $(ARGS)

clean:
	rm -rf .venv .jax_cache artifacts build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "funcnets needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[examples]'
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,lint]'
	@touch $@ .venv/.demo

.venv/.docs: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

.venv/.notebooks: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[notebooks]'
	@touch $@

.venv/.bench: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@
