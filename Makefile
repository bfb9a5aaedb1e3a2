# `make demo` and `make test` are all that a newcomer needs; both set up what they need first.
SHELL := /bin/bash
BIN := .venv/bin
# Compiled once, modules start every process sooner; some machines forbid it.
unexport PYTHONDONTWRITEBYTECODE
PIN := $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
# What an image holds is of the versions that are tested, without what tokenizers needs for the hub of its maker alone.
SUBSET := --constraint requirements/baleen.lock $(foreach name,huggingface-hub filelock fsspec hf-xet httpcore2 httpx2 \
	tqdm truststore,--unsafe-package $(name))

.PHONY: help setup demo demo-rollout test cluster cluster-down lint format bench images lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup:  ## install everything into .venv
	@scripts/setup

demo: setup  ## fetch the models, start Triton and a sidecar, moderate real content, show what policies do
	@$(BIN)/baleen demo

demo-rollout: setup  ## show a policy rolled out, stopped, approved and taken back, on a real API server under traffic
	@$(BIN)/python tests/support/rollout_demo.py

# The cluster's binaries are built meanwhile if they are not in the cache, and waited for by the tests that need them, which then
# come last: from the start if Go is there, else as soon as setup has brought one. Whatever ends the tests ends the build, too.
# The order is that of tests/support/run_order.py: hence no reordering by group.
test:  ## run every check and test
	@tools=; trap '[[ -z $$tools ]] || { kill $$tools 2>/dev/null; wait $$tools; }' EXIT; \
		build() { scripts/cluster-tools >/dev/null & tools=$$!; }; \
		if scripts/cluster-tools --go-is-on-path; then build; fi; \
		scripts/setup && { [[ $$tools ]] || build; } && \
		$(BIN)/baleen models fetch && $(BIN)/python -m pytest -n 6 --dist loadgroup --no-loadscope-reorder

cluster: setup  ## start a Kubernetes of one node with Baleen in it, as root, and print how to use it
	@$(BIN)/baleen models fetch && $(BIN)/python tests/support/playground.py start

cluster-down: setup  ## end that cluster, with all that is in it
	@$(BIN)/python tests/support/playground.py end

lint: setup  ## format, lint, types and layers alone
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup  ## put the code in its form
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup  ## measure; NAME=... measures one figure's script
	@$(BIN)/python bench/run.py $(NAME)

images:  ## build the container images; BASE=... and PREFIX=... as in docs/howto/build-the-images.md
	@scripts/build-images

lock: setup  ## write the lock files anew from pyproject.toml
	@$(PIN) --upgrade --allow-unsafe --extra operator --extra sidecar --extra video --extra postgres --extra tracing --extra models --extra local --extra dev \
		--output-file requirements/baleen.lock pyproject.toml
	@$(PIN) $(SUBSET) --extra operator --output-file requirements/operator.lock pyproject.toml
	@$(PIN) $(SUBSET) --extra sidecar --extra video --extra postgres --extra tracing --output-file requirements/sidecar.lock pyproject.toml
	@$(PIN) $(SUBSET) --unsafe-package ahocorasick-rs --unsafe-package cel-expr-python \
		--extra models --output-file requirements/models.lock pyproject.toml
	@$(PIN) $(SUBSET) --output-file requirements/sidecar-build.lock requirements/sidecar-build.in

clean:  ## remove what setup made (caches in the user's cache folder stay)
	@[[ ! -e .state/cluster ]] || $(BIN)/python tests/support/playground.py end
	@rm -rf .venv .state
