# Everything sets itself up in .venv; all it takes is Python 3.11 or later and make.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: run ha validate conformance test soak lint types imports bench check clean help

help:
	@echo "make run       a gateway on :4000 with its own stores and a stub server"
	@echo "make ha        two replicas behind nginx on :8080, with their own stores"
	@echo "make validate  the 12 cases, judged on what 'make ha' (or VALIDATE_URL) serves"
	@echo "make test      the test suite; make lint, types, imports: the static checks; make bench: the benchmarks"

run: .venv/run
	@exec $(BIN)/python -m gateway run

ha: .venv/run
	@exec $(BIN)/python -m gateway ha

validate: .venv/run
	@$(BIN)/python -m gateway.validate

conformance: .venv/test
	@$(BIN)/python -m tests.conformance

soak: .venv/test
	$(BIN)/python -m tests.soak

test: .venv/test
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

imports: .venv/test
	$(BIN)/lint-imports

check: lint types imports test

bench: .venv/run
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build ./*.egg-info

.venv/base:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@echo "setting up .venv with $(PYTHON)"
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/run: .venv/base setup.cfg pyproject.toml
	@$(PIP) install -e '.[embedded]'
	@touch $@

.venv/test: .venv/base setup.cfg pyproject.toml
	@$(PIP) install -e '.[embedded,test]'
	@touch $@ .venv/run
