# The project's command runner: `make` alone lists what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo test chart-test test-all lint format images cluster cluster-down e2e e2e-full bench bench-cluster docs clean

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make the development environment in .venv (torch is large: some minutes)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BackupSync needs Python 3.11 or newer, this is %s: set PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "This Python has no venv: install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV): torch is large, this takes some minutes'
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Train the digits three ways under stragglers, side by side: out/demo/demo.png
	$(BIN)/python examples/demo/demo.py --out out/demo

test: setup ## Run every test that needs neither root nor cluster
	$(BIN)/python -m pytest

chart-test: setup ## Lint and render the chart (needs helm: HELM=, on the PATH, or what `make cluster` builds)
	REQUIRE_HELM=1 $(BIN)/python -m pytest tests/chart

test-all: ## Run the tests on Python 3.11 to 3.13, and on the lowest versions of the dependencies
	$(PYTHON) tests/matrix.py $(ROWS) --args='$(ARGS)'

lint: setup ## Run ruff, mypy --strict and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

images: ## Build the three images with docker, podman or buildah (REGISTRY= pushes, TAG=, PYTHON_IMAGE=, TORCH_IMAGE=)
	cd e2e && $(PYTHON) -m images

cluster: ## Start a real Kubernetes on this machine (root, Go 1.26; prints KUBECONFIG), or repair it
	@cd e2e && $(PYTHON) -m cluster up

cluster-down: ## End it, and leave nothing but its programs, images and logs in .cluster
	@cd e2e && $(PYTHON) -m cluster down

e2e: setup ## Try it on a real Kubernetes: the acceptance path, the commonest faults (SHARD=COMMIT adds more, KEEP=1 keeps)
	$(BIN)/python e2e/run.py $(if $(SHARD),--shard=$(SHARD)) $(if $(ARGS),-- $(ARGS))

e2e-full: setup ## The same with every fault there is a test for
	$(BIN)/python e2e/run.py --full $(if $(ARGS),-- $(ARGS))

bench: setup ## Measure iteration cost against PyTorch DDP over gloo, side by side
	$(BIN)/python bench/bench.py --out bench/results

bench-cluster: setup ## Measure jobs and operator on a Kubernetes of its own (needs what make cluster needs, and make images)
	$(BIN)/python bench/cluster/bench.py $(ARGS)

docs: setup ## Write the generated reference pages again, and the programs in the examples' manifests
	$(BIN)/python -m backupsync.spec.reference
	$(BIN)/python -m backupsync.cli.reference
	$(BIN)/python charts/readme.py
	$(BIN)/python charts/api_page.py
	$(BIN)/python examples/embed.py

clean: ## Remove what was built and run here
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
