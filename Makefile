# `make up` and `make test` are the two commands; each does its own set-up.
# ARGS go to pytest: make test ARGS="tests/billing -x"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help up setup test test-world check format lock notebooks reports bench chaos clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

up: $(VENV)/.run ## Start gateway, dashboard, ledger drain and demo upstream
	@exec keydesk up

setup: $(VENV)/.run ## Install what Keydesk needs to run, and nothing else

# The tests start dozens of processes; without bytecode on disk each would compile all that it imports.
test test-world: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.bytecode ## Run the tests (ARGS="tests/billing" for a part)
	@pytest -n auto --dist worksteal -m "not world" $(ARGS)

test-world: $(VENV)/.test $(VENV)/.npm ## Run what is long and end to end, and the property tests with more examples (up to 30 minutes)
	@pytest -n auto --dist worksteal -m "world or hypothesis" --hypothesis-profile world --timeout 1200 $(ARGS)

check: $(VENV)/.test ## Lint, types and import contracts
	ruff format --check .
	ruff check .
	mypy
	lint-imports --no-cache

format: $(VENV)/.test ## Format the code
	ruff format .
	ruff check --fix .

notebooks: $(VENV)/.notebooks ## Open the notebooks in JupyterLab
	@exec jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

reports: $(VENV)/.notebooks ## Run the notebooks and write HTML pages into artifacts/reports (ORG="…" MONTH=2026-10)
	@scripts/reports --org "$$ORG" --month "$$MONTH"

bench: $(VENV)/.test ## Measure billing, the whole gateway, HTTP clients and hostile callers (minutes)
	@python -m benchmarks.admission
	@python -m benchmarks.gateway
	@python -m benchmarks.gateway --quick --profile
	@python -m benchmarks.clients --secs 0.2 --rounds 3
	@python -m benchmarks.hostile

chaos: $(VENV)/.test ## Kill, revoke, overspend and drain for an hour and more, on both stores (docs/chaos.md)
	@python -m tests.chaos

clean: ## Remove the environment and caches (data/ stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis artifacts

lock: $(VENV)/bin/uv ## Resolve dependencies anew
	@scripts/lock

# One stamp per dependency group: an edited lock installs again. A lock names all that is needed, so nothing is resolved.
$(BIN)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Keydesk needs Python 3.11 or newer; say which with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.%: requirements/%.txt pyproject.toml $(BIN)/uv
	@echo "Installing the locked dependencies ($*)…"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --no-deps --require-hashes -r requirements/$*.txt \
		|| { echo "uv could not; pip, which knows this machine's own settings, tries (a few minutes)…"; \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/$*.txt; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

# Compiled once: each of the workers would compile all tests and libraries for itself, at the same time.
$(VENV)/.bytecode: $(VENV)/.test
	@pytest --collect-only -qq -m "not world" >/dev/null 2>&1 || true
	@touch $@

# Coding tools and JavaScript SDKs. Of their install scripts two are run: they put the tool's program in its place.
$(VENV)/.npm: tests/gateway/clients/package.json tests/gateway/clients/package-lock.json scripts/npm $(VENV)/.clients
	@echo "Installing the locked coding tools and JavaScript SDKs…"
	@mkdir -p $(VENV)/clients
	@cp tests/gateway/clients/package.json tests/gateway/clients/package-lock.json $(VENV)/clients
	@scripts/npm --prefix $(VENV)/clients ci --ignore-scripts >/dev/null
	@scripts/npm --prefix $(VENV)/clients rebuild @anthropic-ai/claude-code opencode-ai >/dev/null
	@touch $@
