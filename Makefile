# Two commands for everybody: `make demo` and `make test`. Each sets up all it needs, in ./.venv only.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUNTIME := $(BIN)/argosy-runtime
RUFF := $(BIN)/ruff
PYTEST_ARGS ?= -n auto --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench clean lock

help: ## Say what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s '|'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "argosy needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[server,blake3]' --group dev
	@touch $@

# The launcher holds the runtime's code: what is changed there takes effect with a new one.
$(RUNTIME): $(STAMP) $(shell find src/argosy/runtime -name '*.py')
	$(BIN)/python -m argosy.runtime.launcher --plain $@

install: $(RUNTIME) ## Install argosy and its tools into .venv

demo: $(RUNTIME) ## Show the main job, from an image to a container
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m argosy.cli.demo

test: $(RUNTIME) ## Run all tests
	$(BIN)/pytest $(PYTEST_ARGS)

check: $(RUNTIME) ## Format, lint, types, layers, house rules
	$(RUFF) format --check --quiet src tests bench
	$(RUFF) check --quiet src tests bench
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.14
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q tests/house

format: $(STAMP) ## Put the code into shape
	$(RUFF) format src tests bench
	$(RUFF) check --fix src tests bench

bench: $(RUNTIME) ## Measure against the tools that are installed, and write docs/benchmarks.md
	$(BIN)/python bench/run.py

lock: $(STAMP) ## Pin what is installed now into constraints.txt
	@$(BIN)/python -m pip list --format=freeze --exclude-editable | sort -f > constraints.txt

clean: ## Remove what was made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
