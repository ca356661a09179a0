# Everything that a person or CI does here. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# In the environment, so that what builds a package is pinned, too: the second name is for pip 25.3 and newer.
# And relative, because pip splits them at spaces, which the path of a checkout may have.
PINNED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
INSTALL := $(PINNED) $(BIN)/pip install --quiet --disable-pip-version-check

# Compiled code is kept whatever the environment says: otherwise each of the hundreds of processes that the tests
# start compiles the project again, and each worker of pytest all tests.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## Create .venv from the pinned constraints; does nothing when it is current

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --editable '.[dev]'
	touch $@

.PHONY: demo
demo: install ## Run the main job on embedded engines, and check every learner's credit
	$(BIN)/invigilator demo

.PHONY: test
test: install ## Run all tests
	$(BIN)/pytest --cov --cov-report= -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: test-fast
test-fast: install ## Run the unit tests, with fewer random examples than `make test`
	$(BIN)/pytest -n 2 --hypothesis-profile fast tests/unit

T ?= tests/unit

.PHONY: test-one
test-one: install ## Run one test, file or folder: T=tests/unit/rules/test_retry.py::test_name
	$(BIN)/pytest $(T)

SEED ?= 1
MINUTES ?= 2
BROKER ?= both
RATE ?= 30
CLUSTER ?=
ONLY ?=

.PHONY: chaos
chaos: install ## Kill, pause and restart everything under load, then audit: SEED= MINUTES= BROKER= CLUSTER= (docs/reliability.md)
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) --broker $(BROKER) --rate $(RATE) \
		$(if $(CLUSTER),--cluster $(CLUSTER)) $(if $(ONLY),--only)

.PHONY: plans
plans: install ## Explain every hot statement with a million attempts and ten million effects: 10 GB, half an hour
	TMPDIR=$${TMPDIR:-/tmp} PLAN_SCALE=50 $(BIN)/pytest -s tests/integration/db/test_plans.py

PEER := benchmarks/peer/.venv
PEER_INSTALLED := $(PEER)/.installed
CHARTS_INSTALLED := $(VENV)/.charts-installed

.PHONY: peer
peer: $(PEER_INSTALLED) ## Create the environment of edx-proctoring, which the benchmark compares with

$(PEER_INSTALLED): benchmarks/peer/constraints.txt
	$(PYTHON) -m venv --clear $(PEER)
	$(PEER)/bin/pip install --quiet --disable-pip-version-check --requirement benchmarks/peer/constraints.txt
	touch $@

ALTERNATIVES := benchmarks/alternatives/procrastinate benchmarks/alternatives/dbos
ALTERNATIVES_INSTALLED := $(ALTERNATIVES:%=%/.venv/.installed)

.PHONY: alternatives
alternatives: $(ALTERNATIVES_INSTALLED) ## Create the environments of procrastinate and DBOS, which it compares with, too

$(ALTERNATIVES_INSTALLED): %/.venv/.installed: %/constraints.txt
	$(PYTHON) -m venv --clear $*/.venv
	$*/.venv/bin/pip install --quiet --disable-pip-version-check --requirement $*/constraints.txt
	touch $@

$(CHARTS_INSTALLED): $(INSTALLED)
	$(INSTALL) --editable '.[bench]'
	touch $@

BENCH ?=

.PHONY: bench
bench: install peer alternatives $(CHARTS_INSTALLED) ## Measure everything beside the others, and write docs/performance.md; BENCH= options
	$(BIN)/python -m benchmarks $(BENCH)

.PHONY: bench-quick
bench-quick: install peer alternatives ## Measure the goals' ratios in two minutes, beside those of benchmarks/baseline.json
	$(BIN)/python -m benchmarks --quick $(BENCH)

.PHONY: wheel
wheel: install ## Build dist/invigilator-….whl, which is installed where there is no checkout
	rm -rf build dist
	$(PINNED) $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

.PHONY: lint
lint: install ## Check style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: coverage
coverage: test ## Fail unless rules, commands, effects and contracts are covered, branch by branch
	$(BIN)/coverage report --fail-under=100

.PHONY: check
check: lint coverage ## All gates: what CI runs

.PHONY: schemas
schemas: install ## Generate docs/schemas and docs/asyncapi.yaml from the contracts
	$(BIN)/python -m events.schemas docs/schemas
	$(BIN)/python -m invigilator.asyncapi docs/asyncapi.yaml

# An unchanged text leaves its catalogue as it is: the dates and the places are left out.
POT := build/mail.pot
LOCALE := worker/lms/locale

.PHONY: catalogues
catalogues: install ## Take the texts of the mails into the catalogues of their translations, and compile those
	mkdir -p build
	$(BIN)/pybabel --quiet extract --mapping pyproject.toml --keywords translated --no-location --sort-output --output $(POT) .
	$(BIN)/pybabel --quiet update --domain mail --no-fuzzy-matching --ignore-pot-creation-date --input-file $(POT) --output-dir $(LOCALE)
	$(BIN)/pybabel --quiet compile --domain mail --directory $(LOCALE)

.PHONY: screenshots
screenshots: install ## Take the pictures of the console for docs/images; needs Chromium
	$(BIN)/python -m tests.integration.web.console.screenshots docs/images

.PHONY: clean
clean: ## Remove the environment, caches, and the embedded engines' data
	rm -rf $(VENV) $(PEER) build dist .invigilator .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info
