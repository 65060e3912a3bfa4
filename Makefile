# make demo  - set up, index the demo pieces, ask questions      make test - the default tests
# make slow  - the slow tests        make lint - style and types   make bench - measurements
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint bench clean

help:
	@sed -n 's/^# //p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The pinned torch first: where a CPU build is at hand, it is taken instead of the CUDA one.
$(READY): pyproject.toml setup.py $(wildcard index/loops/*) constraints.txt | $(BIN)/python
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[offline]'
	touch $@

$(READY_DEV): $(READY)
	$(PIP) install -q -c constraints.txt -e '.[offline,captions,dev]'
	touch $@

demo: $(READY)
	$(BIN)/python -m index.demo demo

test: $(READY_DEV)
	$(BIN)/python -m pytest

slow: $(READY_DEV)
	$(BIN)/python -m pytest -m slow

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY_DEV)
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.corpus
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.search_peers --songs 100000
	$(BIN)/python -m benchmarks.search_scale
	$(BIN)/python -m benchmarks.embed
	$(BIN)/python -m benchmarks.training_step
	$(BIN)/python -m benchmarks.embed_songs
	$(BIN)/python -m benchmarks.embed_many

clean:
	rm -rf $(VENV) demo build *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache
