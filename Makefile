# Everything here needs Python 3.11 or later and make, nothing else. `make run` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A folder of its own: no activated environment and no user site gets in the way.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The machine's own certificates, so that a company's proxy that pip trusts is trusted by uv, too.
export UV_SYSTEM_CERTS ?= 1
WORKERS ?= 2

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.stamp: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 64; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt | cut -d' ' -f1)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.PHONY: setup
setup: $(VENV)/.stamp ## Install everything into .venv

.PHONY: run
run: setup ## The whole pipeline on this machine: deploy, sample data, run, report
	$(BIN)/python -m local.demo

.PHONY: test
test: setup ## All tests and checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types tests

# Side by side in `make test`: the tests wait a good deal, for services that start and stop.
.PHONY: types
types: setup lint-sql
	$(BIN)/mypy

.PHONY: tests
tests: setup
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Beside .venv, since pulumi-policy needs another protobuf. With pip, which Pulumi's python runtime calls.
.venv-policies/.stamp: policies/requirements.txt | $(VENV)/.stamp
	$(PYTHON) -m venv .venv-policies
	$(BIN)/uv pip install --quiet --python .venv-policies/bin/python --requirement policies/requirements.txt
	@touch $@

.PHONY: policy-env
policy-env: .venv-policies/.stamp ## The policy pack's own environment, for `pulumi preview --policy-pack policies`

.PHONY: clients-env
clients-env: setup ## Real clients of Redshift (awswrangler, dbt's tests, SQLAlchemy, psycopg) for tests/clients
	$(BIN)/python -m tests.clients.environment

.PHONY: lint-sql
lint-sql: setup ## The style of the dbt project's SQL
	cd dbt_gold && ../$(BIN)/sqlfluff lint --quiet models tests

.PHONY: unit
unit: setup ## The tests that start no process
	$(BIN)/pytest -n $(WORKERS) tests/unit

.PHONY: docs
docs: setup ## Make the generated parts of the docs anew
	$(BIN)/python -m stacks.documentation
	$(BIN)/python -m local.documentation

.PHONY: format
format: setup ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lock
lock: setup ## Pin all packages anew: requirements.txt and the emulator's
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev pyproject.toml \
		--output-file requirements.txt --custom-compile-command "make lock"
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 local/emulator-requirements.in \
		--output-file local/emulator-requirements.txt --custom-compile-command "make lock"
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 policies/requirements.in \
		--output-file policies/requirements.txt --custom-compile-command "make lock"
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 tests/clients/requirements.in \
		--output-file tests/clients/requirements.txt --custom-compile-command "make lock"
	$(BIN)/goldlake layers lock

.PHONY: clean
clean: ## Stop the local platform and remove everything that was made; the state backend's own state stays
	@if [ -x $(BIN)/goldlake ] && [ -d .goldlake ]; then $(BIN)/goldlake local down; fi
	[ ! -d .goldlake ] || find .goldlake -mindepth 1 -maxdepth 1 ! -name state-backend -exec rm -rf {} +
	rm -rf $(VENV) .venv-policies .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info dbt_gold/target dbt_gold/logs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
