# Everything a newcomer needs: Python 3.11 or later and make. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.midwatch-setup
WORKERS ?= 4
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make .venv with everything; .venv/bin/midwatch then works

$(STAMP): pyproject.toml requirements-dev.lock
	@test -n "$(PYTHON)" || { echo "midwatch: Python 3.11 or later is missing: install python3 (Debian: apt install python3 python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "midwatch: Python's venv module is missing: install it (Debian: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Midwatch and what it needs into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: up
up: $(STAMP) ## Run everything on this machine: NATS, every service; stop with Ctrl-C
	@$(BIN)/midwatch up

.PHONY: demo
demo: $(STAMP) ## See it work in under a minute, without a key or an account
	@$(BIN)/midwatch demo

.PHONY: test
test: $(STAMP) ## The tests, against real servers; under five minutes on two cores
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not chaos and not proof"

.PHONY: proofs
proofs: $(STAMP) ## What holds over real runs and many repeats, with its figures
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m proof tests/unit tests/integration

.PHONY: console
console: $(STAMP) ## The console's pages over HTTP and in Chromium, each journey and no barrier (Debian: apt install chromium)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/console

.PHONY: pictures
pictures: $(STAMP) ## A picture of every page of the console into docs/pictures; fails where a page is wrong
	@$(BIN)/python tests/pictures.py $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Style, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: contract
contract: $(STAMP) ## Write the contract's JSON Schemas and AsyncAPI document anew
	@$(BIN)/python -m midwatch.runtime.contract_docs

.PHONY: base-install
base-install: $(STAMP) ## Install without extras and show that the SDK needs nothing of the server's
	@$(BIN)/python tests/base_install.py

.PHONY: check
check: lint test base-install ## What has to pass before a change lands

.PHONY: chaos
chaos: $(STAMP) ## Kill, stop and cut real processes in the middle of their work
	@$(BIN)/python -m pytest --timeout 400 tests/chaos
	@$(BIN)/python -m pytest -n 2 -m chaos tests/integration

.PHONY: bench
bench: $(STAMP) ## Every figure of docs/performance.md, beside its limit or peer in the same run
	@$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: bench-peers
bench-peers: $(STAMP) ## Arize Phoenix and MLflow on the same real runs; installs both in a temporary folder
	@$(BIN)/python benchmarks/bench_peers.py $(ARGS)

.PHONY: lock
lock: $(STAMP) ## Pin the dependencies anew, with hashes and without addresses
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra server --extra embedded --upgrade -o requirements.lock pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra server --extra embedded --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml

.PHONY: clean
clean: ## Remove the virtual environment and caches, and nothing of yours
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
