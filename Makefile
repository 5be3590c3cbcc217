# The one entry for people and for CI. Each target brings about the environment that it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS   ?= 2
BENCH  ?= secagg training
MINUTES ?= 60

BIN   := .venv/bin
READY := .venv/.ready
WHEEL := .venv-wheel
SITE  := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
TESTS  = env PYTHONSAFEPATH=1 OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(WHEEL)/bin:$$PATH" \
	FEDIT_WHEEL="$$(echo "$(CURDIR)"/build/*.whl)" $(WHEEL)/bin/python -m pytest -n $(JOBS) --dist loadgroup

.PHONY: help setup demo test test-all check format bench soak mutants wheel wheel-env release clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## make .venv with the tested versions; does nothing while it is current

$(READY): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: FedIT needs Python 3.11 or newer\n  fix: make setup PYTHON=/path/to/python3.11")'
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[train,check,hub,server,postgres,s3,dp,eval,dev]"
	@touch $@

demo: $(READY) ## one server, three clients, a better model; DATA=rows.jsonl MODEL=path-or-hub-id for your own
	$(BIN)/fedit-client demo $(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)") $(ARGS)

test: wheel-env ## the quick suite against the installed wheel; ARGS="-k name" to choose
	$(TESTS) -m "not slow and not gpu" $(ARGS)

test-all: wheel-env ## everything that this machine can run
	$(TESTS) $(ARGS)

check: $(READY) ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pyright $(wildcard examples tests/typing)

format: $(READY) ## let ruff format, and repair what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## timings; BENCH=secagg for one of them, ARGS=--json for machines
	@$(BIN)/python -m tests.bench $(BENCH) $(ARGS)

soak: $(READY) ## 500 devices, bad lines, a server killed again and again; MINUTES=60, ARGS="--seed 7 --json"
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

mutants: $(READY) ## hours: change each line of the masked sum and see a test fail; ARGS="shamir ring" for some modules
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[mutants]"
	$(BIN)/python -m tests.mutants $(ARGS)

wheel: wheel-env ## build the wheel, install it, test it in a clean environment
	$(TESTS) tests/integration/test_base_wheel.py $(ARGS)

# The wheel's own copy comes first on the path, the libraries of .venv after it. Path files inside a folder that a
# path file names are not read, so the editable install stays out; PYTHONSAFEPATH keeps the working tree out.
wheel-env: $(READY)
	@rm -rf build $(WHEEL)
	@$(BIN)/python -m build --quiet --wheel --no-isolation --outdir build .
	@$(BIN)/python -m venv --without-pip $(WHEEL)
	@$(BIN)/python -m pip --python $(WHEEL)/bin/python install --quiet --no-deps --no-index build/*.whl
	@$(BIN)/python $(SITE) >"$$($(WHEEL)/bin/python $(SITE))/libraries.pth"

# The SBOM lists what the wheel and its two large extras really bring, without our tools.
release: $(READY) ## sdist, wheel, SBOM and checksums in dist/
	rm -rf dist .venv-sbom
	$(BIN)/python -m build --quiet --no-isolation --outdir dist .
	$(BIN)/python -m venv --without-pip .venv-sbom
	$(BIN)/python -m pip --python .venv-sbom/bin/python install --quiet --constraint constraints.txt "$$(echo dist/*.whl)[train,server]"
	find .venv-sbom -name direct_url.json -delete # else the list tells where on this machine the wheel lay
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file "$$(echo dist/*.tar.gz | sed 's/tar.gz$$/cdx.json/')" .venv-sbom/bin/python
	rm -rf .venv-sbom
	cd dist && sha256sum * >SHA256SUMS && cat SHA256SUMS

clean: ## remove what was built and cached; .venv stays
	rm -rf .venv-wheel .venv-sbom build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
