# Everything sets itself up in .venv; all it takes is Python 3.11 or later and make.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: help run ha validate test test-page screenshots conformance soak lint types imports check bench bench-peers layers inputs fuzz trace docs reference requirements clean

help:
	@echo "make run          a gateway on :4000 with its own stores and a stub server, registered"
	@echo "make ha           two replicas behind nginx on :8080, with their own stores and a stub server"
	@echo "make validate     the 12 cases, judged on what 'make ha' (or VALIDATE_URL) serves"
	@echo "make test         the test suite (ARGS=… goes to pytest)"
	@echo "make test-page    the page in a real Chromium (as root or not); make screenshots: the pictures in docs/page"
	@echo "make conformance  the official conformance suite, direct and through two replicas"
	@echo "make soak         half an hour: load over two replicas, what it leaves behind, ended sessions"
	@echo "make lint         ruff; make types: mypy; make imports: the import contracts"
	@echo "make check        lint, types, imports and test"
	@echo "make bench        calls per second and CPU per call, beside other ways (ARGS=--quick for a minute's worth)"
	@echo "make bench-peers  the same beside other gateways, each in an environment of its own (ARGS='--only envoy,fastmcp')"
	@echo "make fuzz         hostile bytes for the readers of them, led by coverage (SECONDS=60 each)"
	@echo "make layers       what our own layers take of a call, in and out"
	@echo "make inputs       what reading the worst JSON takes, beside orjson alone"
	@echo "make trace        how long a request's way is: frames, files, transactions (ARGS='--show /mcp' lists them)"
	@echo "make docs         the documentation in HTML; make reference writes docs/reference.rst from the code"
	@echo "make requirements lock the image's packages anew (deploy/requirements.txt)"
	@echo "make clean        remove .venv and what the tools left; the data in .mcp-gateway stays"

run: .venv/run
	@exec $(BIN)/python -m gateway run

ha: .venv/run
	@exec $(BIN)/python -m gateway ha

validate: .venv/run
	@$(BIN)/python -m gateway.demo.validate

conformance: .venv/test
	@$(BIN)/python -m tests.conformance

soak: .venv/test
	$(BIN)/python -m tests.soak
	$(BIN)/python -m tests.soak_ends

# The whole suite runs side by side, since much of it waits; first, alone, what compares times. With ARGS it runs as they say.
test: .venv/test
	$(if $(ARGS),,$(BIN)/python -m pytest -m alone)
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n 3 --dist worksteal -m "not alone")

# The page in a real browser: Chromium is taken where it is, else gotten from Debian's packages.
test-page: .venv/page
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),tests/page)

screenshots: .venv/page
	$(BIN)/python -m tests.page.screenshots

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

imports: .venv/test
	$(BIN)/lint-imports

check: lint types imports test

bench: .venv/bench
	$(BIN)/python -m bench $(ARGS)

# The peers are installed below build/peers, once.
bench-peers: .venv/bench
	$(BIN)/python -m bench.peers $(ARGS)

# Both sides of HTTP/1.1 and the messages of servers, fed by atheris: SECONDS each.
SECONDS ?= 60
fuzz: .venv/fuzz
	@mkdir -p build/fuzz
	@for target in server client messages; do \
		(cd build/fuzz && PYTHONPATH=$(CURDIR) $(CURDIR)/$(BIN)/python -m tests.fuzz $$target $(SECONDS)) || exit 1; done

layers: .venv/run
	@$(BIN)/python -m bench.layers $(ARGS)

inputs: .venv/bench
	@$(BIN)/python -m bench.inputs

docs: .venv/docs
	$(BIN)/sphinx-build --fail-on-warning --quiet docs build/docs
	@echo "build/docs/index.html"

# The reference, written from the code.
reference: .venv/run
	@$(BIN)/python docs/generate.py

trace: .venv/run
	@$(BIN)/python -m bench.trace $(ARGS)

# The image's packages, locked anew. pip-tools comes into an environment of its own.
requirements:
	@$(PYTHON) -m venv build/pip-tools && build/pip-tools/bin/python -m pip --quiet --disable-pip-version-check install pip-tools
	@for name in requirements-build requirements; do \
		source=deploy/$$name.in; [ -f $$source ] || source=setup.cfg; \
		build/pip-tools/bin/pip-compile --quiet --allow-unsafe --generate-hashes --strip-extras --no-annotate --no-header \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
			--output-file deploy/$$name.txt $$source; \
		{ git show HEAD:deploy/$$name.txt | sed '/^[^#]/,$$d'; cat deploy/$$name.txt; } > build/locked && cp build/locked deploy/$$name.txt; done

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build ./*.egg-info

.venv/run: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@$(PYTHON) deploy/venv.py embedded
	@touch $@

.venv/docs: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@$(PYTHON) deploy/venv.py embedded,docs
	@touch $@ .venv/run

.venv/bench: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@$(PYTHON) deploy/venv.py embedded,bench
	@touch $@ .venv/run

.venv/page: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@$(PYTHON) deploy/venv.py embedded,test,page
	@touch $@ .venv/run .venv/test

.venv/fuzz: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@$(PYTHON) deploy/venv.py embedded,test,fuzz
	@touch $@ .venv/run .venv/test

.venv/test: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON to one"; exit 1; }
	@$(PYTHON) deploy/venv.py embedded,test
	@touch $@ .venv/run
