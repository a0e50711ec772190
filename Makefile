# make serve and make test work on a fresh machine with nothing but Python 3.11+ and make:
# they create .venv, install into it, and go. No GL, GPU or other system package is needed.
#
# constraints.txt pins torch, but not which build of it: on Linux the default package index
# hands out the CUDA build, several gigabytes. To take the CPU build instead, let pip know where
# it lies before the first make, by PIP_EXTRA_INDEX_URL, PIP_INDEX_URL or PIP_FIND_LINKS.
# pip reads those itself; PyTorch's installation page has the address.

PYTHON ?= python3
VENV   ?= .venv

# Only `make serve HOST=...` counts: some shells and compilers export a HOST of their own.
HOST = 127.0.0.1
PORT ?= 8000
CHECKPOINT ?= checkpoints/tabletop

# Further arguments: make test ARGS="-k scene -x", make bench ARGS="--help"
ARGS ?=

# Processes that share the tests out, file by file.
JOBS ?= 2

PY  := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: serve test test-slow lint format bench clean help

serve: $(VENV)/.installed ## the server (HOST, PORT, CHECKPOINT)
	$(PY) -m service serve --host "$(HOST)" --port "$(PORT)" --checkpoint "$(CHECKPOINT)"

test: $(VENV)/.installed-test ## all tests but the slow ones, JOBS at once (ARGS)
	$(PY) -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed-test ## only the slow tests: minutes each (ARGS)
	$(PY) -m pytest -m slow --timeout 3600 $(ARGS)

lint: $(VENV)/.installed-dev ## style, formatting and types; changes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)/.installed-dev ## mend style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(VENV)/.installed ## side-by-side measurements (ARGS)
	$(PY) -m benchmarks $(ARGS)

clean: ## remove caches and build outputs; .venv, runs/ and checkpoints/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamps say what the environment holds. Each builds on the one before, so that
# `make -j lint test` never runs two pips in one environment.
INPUTS := pyproject.toml constraints.txt

$(VENV)/.installed: $(INPUTS) | $(VENV)/bin/pip
	@echo "Installing airscene into $(VENV); the first time takes minutes."
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(PIP) --editable ".[dev]"
	@touch $@

# The target is pip, not python: where venv lacks ensurepip it fails and leaves only python.
$(VENV)/bin/pip:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "No $(PYTHON) found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "airscene needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
