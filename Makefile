# `make` alone lists what there is. Needs Python 3.11 or newer and make; all that it makes is in .venv and .local.

.DEFAULT_GOAL := help
.PHONY: help setup demo up test soak lint check format bench browser screenshots lock clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests and tools may be told more: make test ARGS="-k coverage"
ARGS :=

# How many tests run side by side.
WORKERS := 3

# Which Python makes the .venv; the first of these that is new enough unless given: make setup PYTHON=/opt/python3.12
PYTHON :=
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3 python
SUITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@echo 'make demo    set up, fetch a sample request from the sandbox API, show what was stored'
	@echo 'make up      set up, then database, Dagster UI (port 3000, or DAGSTER_PORT) and daemon until Ctrl-C;'
	@echo '             LISTEN=1 also listens to the filtered stream'
	@echo 'make test    set up, run all tests; ARGS="-k coverage" chooses some'
	@echo 'make lint    formatting, lint, types, schema against models, what Dagster loads'
	@echo 'make check   make lint, then make test'
	@echo 'make bench   the benchmarks'
	@echo 'make soak    the property test against a faulty X with random examples, EXAMPLES=10000 of them'
	@echo 'make browser look at the UI in headless Chromium, which is a part of make test where one is installed'
	@echo 'make screenshots  renew the pictures in docs/images from the sandbox; needs Chromium'
	@echo 'make setup   install into .venv, nothing else'
	@echo 'make format  put the code into its format'
	@echo 'make lock    choose new versions of the dependencies: requirements.lock from pyproject.toml, and of these'
	@echo '             those of the image and of the SDKs that the sandbox is tested with'
	@echo 'make clean   stop what runs, remove .venv, .local and caches'

setup: $(STAMP)
	@:

# The stamp is written last: an interrupted installation is done again. A .venv whose Python is gone or too old is made anew.
$(STAMP): requirements.lock pyproject.toml
	@$(BIN)/python -c '$(SUITS)' 2>/dev/null || { \
	    for candidate in $(if $(PYTHON),'$(PYTHON)',$(PYTHONS)); do \
	        "$$candidate" -c '$(SUITS)' 2>/dev/null && found="$$candidate" && break; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo 'No Python from 3.11 to 3.14 with its venv module was found (tried: $(or $(PYTHON),$(PYTHONS))).' >&2; \
	        echo 'Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make setup PYTHON=/path' >&2; \
	        exit 1; \
	    fi; \
	    echo "Creating $(VENV) with $$found"; \
	    rm -rf $(VENV) && "$$found" -m venv $(VENV); \
	}
	@echo 'Installing the locked dependencies into $(VENV)'
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# `exec` makes the tool the process that Ctrl-C reaches, once, and that make waits for.
demo: $(STAMP)
	@exec $(BIN)/twitter-pipeline demo $(ARGS)

up: $(STAMP)
	@exec $(BIN)/twitter-pipeline up $(if $(LISTEN),--listen) $(ARGS)

test: $(STAMP)
	@exec $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(ARGS)

bench: $(STAMP)
	@exec $(BIN)/python -m benchmarks $(ARGS)

# How many random examples the soak test tries; each time they are others.
EXAMPLES := 10000

soak: $(STAMP)
	@SOAK_EXAMPLES=$(EXAMPLES) exec $(BIN)/pytest twitter_pipeline_tests/integration/test_faulty_x.py $(ARGS)

browser: $(STAMP)
	@exec $(BIN)/pytest twitter_pipeline_tests/browser $(ARGS)

screenshots: $(STAMP)
	@exec $(BIN)/python -m twitter_pipeline_tests.browser.screenshots

lint: $(STAMP)
	@$(BIN)/ruff format --check || { echo 'Run: make format' >&2; exit 1; }
	@$(BIN)/ruff check
	@$(BIN)/basedpyright
	@$(BIN)/python -m twitter_pipeline.local.scratch sh -c '$(BIN)/alembic upgrade head && $(BIN)/alembic check'
	@$(BIN)/dagster definitions validate

check: lint
	@$(MAKE) --no-print-directory test

format: $(STAMP)
	@$(BIN)/ruff check --fix --select I
	@$(BIN)/ruff format

lock: $(STAMP)
	@$(BIN)/python -m pip install -q uv
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes --all-extras \
	    --no-annotate --no-header --no-strip-extras --upgrade $(ARGS) pyproject.toml -o requirements.lock
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.12 --generate-hashes --extra workers \
	    --no-annotate --no-header --no-strip-extras -c requirements.lock pyproject.toml deploy/requirements.in \
	    -o deploy/requirements.lock
	@$(BIN)/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	    --no-annotate --no-header -c requirements.lock twitter_pipeline_tests/sdks/requirements.in \
	    -o twitter_pipeline_tests/sdks/requirements.lock

clean:
	@if [ -d .local ] && [ -x $(BIN)/python ]; then $(BIN)/python -m twitter_pipeline.local.stop .local; fi
	@rm -rf $(VENV) .local .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
