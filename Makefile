# `make` lists the targets. Everything is installed into .venv; nothing needs root, Docker or a database.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# Another Python: make PYTHON=/path/to/python run
PYTHONS := $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Processes that `make test` runs side by side: twice the cores of a small machine, since many tests mostly wait.
PROCESSES ?= 4

export PYTHONUNBUFFERED := 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Using it

.PHONY: run
run: $(VENV)/.runnable ## Run everything here: PostgreSQL, a Kafka broker, the worker; Ctrl-C ends it all
	@exec $(BIN)/counterfoil run --embedded

.PHONY: demo
demo: $(VENV)/.runnable ## Watch it count: doubles, malformed records, a killed worker, every number compared
	@trap : INT; $(BIN)/counterfoil demo || [ $$? -eq 130 ]  # Ctrl-C is no failure

.PHONY: bench
bench: $(VENV)/.runnable ## Measure it beside bare COPY and beside a transaction for each event
	@trap : INT; $(BIN)/counterfoil bench || [ $$? -eq 130 ]

# Working on it

.PHONY: setup
setup: $(VENV)/.developer ## Install counterfoil and the developers' tools into .venv

.PHONY: test
test: $(VENV)/.developer ## Run the tests, without the slow ones
	@$(BIN)/python -m pytest -m "not slow" -n $(PROCESSES)

.PHONY: faults
faults: $(VENV)/.developer ## Run the slow tests: kills, pauses and outages, many times over
	@$(BIN)/python -m pytest -m slow -k "not soak"

.PHONY: soak
soak: $(VENV)/.developer ## Run the soak tests: the same load for a long time
	@$(BIN)/python -m pytest -m slow -k soak -s

.PHONY: lint
lint: $(VENV)/.developer ## Check style, format, and which room imports which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

.PHONY: types
types: $(VENV)/.developer ## Check the types
	@$(BIN)/mypy

.PHONY: fmt
fmt: $(VENV)/.developer ## Mend style and format where that can be done by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: docs
docs: $(VENV)/.developer ## Write the generated parts of docs/ and .env.example anew
	@$(BIN)/python docs/generate.py

.PHONY: clean
clean: ## Delete .venv, caches and builds; keeps .counterfoil, the data of `make run`
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: installed once, and again when pyproject.toml changes

$(VENV)/.runnable: pyproject.toml | $(BIN)/pip
	@echo "installing counterfoil into $(VENV) …"
	@$(PIP_INSTALL) -e '.[embedded]'
	@touch $@

$(VENV)/.developer: pyproject.toml | $(BIN)/pip
	@echo "installing counterfoil and the developers' tools into $(VENV) …"
	@$(PIP_INSTALL) -e '.[embedded,dev]'
	@touch $(VENV)/.runnable $@

# A name on the PATH may be a shim that runs nothing: each is asked for its version.
$(BIN)/pip:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
	      echo "counterfoil: $$python comes without venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	      exit 1; }; \
	    exec "$$python" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "counterfoil: takes Python 3.11 to 3.14, and none of these is one: $(PYTHONS)" >&2; exit 1
