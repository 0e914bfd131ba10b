# `make` alone prints this list. Everything is installed into .venv (test-lowest: .venv-lowest), by uv or else by venv and pip.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
PART ?=
# `make bench PYTHON=...` measures with that Python and installs nothing.
ifeq ($(origin PYTHON),command line)
BENCH_PYTHON := $(PYTHON)
else
BENCH_PYTHON := .venv/bin/python
BENCH_NEEDS := .venv/.installed-dev
endif

# Like pip, uv must trust the certificates of the system, for networks that have their own; the name depends on its release.
export UV_SYSTEM_CERTS = 1
export UV_NATIVE_TLS = 1

.DEFAULT_GOAL := help
.PHONY: help train dashboard test test-slow test-lowest check bench bench-gpu clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: .venv/.installed  ## train the worked example; ARGS="key=value ..." are passed on
	@$(BIN)/python train.py $(ARGS)

dashboard: .venv/.installed  ## open TensorBoard on runs/ and print its address; ARGS="--port 7007" are passed on
	@mkdir -p runs
	@$(BIN)/tensorboard --logdir runs $(ARGS) 2>&1 | grep --line-buffered -v -e '^$$' -e TensorFlow -e bind_all -e 'fast data' -e load_fast -e github.com

test: .venv/.installed-dev  ## run the tests but the slow ones; ARGS="-k name" are passed on
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not gpu" $(ARGS)

test-slow: .venv/.installed-dev  ## run the slow tests: runs of several processes, kills, interpreted kernels, real images
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not gpu" $(ARGS)

test-lowest: .venv-lowest/.installed  ## run the tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	@.venv-lowest/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

check: .venv/.installed-dev  ## lint, format and types, without changing a file
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(BENCH_NEEDS)  ## measure speed on one CPU core against other libraries (about 7 minutes); results in benchmarks/results
	@$(BENCH_PYTHON) benchmarks/all.py cpu $(if $(PART),--part $(PART)) $(ARGS)

bench-gpu: $(BENCH_NEEDS)  ## measure all that needs one GPU, in parts; PART=name runs one, ARGS=--cpu tests the parts
	@$(BENCH_PYTHON) benchmarks/all.py gpu $(if $(PART),--part $(PART)) $(ARGS)

clean:  ## remove .venv and caches; runs/ stays
	rm -rf .venv .venv-lowest .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --python "$(PYTHON)" .venv; else $(PYTHON) -m venv .venv; fi

.venv/.installed: pyproject.toml | .venv/bin/python
	$(call install,-e .)
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	$(call install,-e '.[dev]')
	@touch .venv/.installed $@

# Only uv can choose the lowest versions; without it, it is installed into .venv-lowest by pip.
.venv-lowest/.installed: pyproject.toml
	@echo "installing the lowest versions into .venv-lowest (about two minutes)"
	@rm -rf .venv-lowest
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --python "$(PYTHON)" .venv-lowest && \
		uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[test]'; \
	else \
		$(PYTHON) -m venv .venv-lowest && .venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv && \
		.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[test]'; \
	fi
	@touch $@

define install
	@echo "installing into .venv (about two minutes the first time)"
	@if command -v uv >/dev/null 2>&1; then uv pip install --quiet --python $(BIN)/python $(1); \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); fi
endef
