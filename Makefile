# make reproduce   every table and figure of the quick preset, from nothing
# make test        tests and lint, from nothing
# make book        a site of the published results, notebooks and API: build/book/html/index.html
# They make the environment (.venv) where it is missing, and start at once where it is there.

PYTHON ?= python3
VENV   ?= .venv
PRESET ?= quick
CORES  ?= $(shell getconf _NPROCESSORS_ONLN)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help reproduce test test-slow test-browser lint smoke app bench-explorer bench-fastpath book lab environment clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

environment: $(READY)

# pip takes torch and torchvision in one go, so that the two fit each other
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[notebooks,graph,app,test]'
	@touch $(READY)

reproduce: $(READY)
	@$(BIN)/wfnb reproduce --preset $(PRESET) --cores $(CORES)

test: $(READY) lint
	@$(BIN)/python -m pytest

test-slow: $(READY)
	@$(BIN)/python -m pip install --quiet --editable '.[book]'
	@$(BIN)/python -m pytest -m slow --ignore tests/test_browser.py

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# every notebook by plain papermill, with the smallest preset, into a folder of its own
smoke: $(READY)
	@$(BIN)/python -m wfnb.reproduction.smoke

# the slider as a web page: prints its address
app: $(READY)
	@$(BIN)/wfnb app

# the pages in a real Chromium (needs one at /usr/bin/chromium)
test-browser: $(READY)
	@$(BIN)/python -m pip install --quiet --editable '.[browser]'
	@$(BIN)/python -m pytest -m slow tests/test_browser.py

# from key press to repainted page, in a real Chromium: keeps runs/bench/explorer.json
bench-explorer: $(READY)
	@$(BIN)/python -m pip install --quiet --editable '.[browser]'
	@$(BIN)/python tests/bench_explorer.py

# what each trick of the fast path saves: keeps runs/bench/fastpath.json
bench-fastpath: $(READY)
	@$(BIN)/python tests/bench_fastpath.py

# one static site, which needs no network: published notebooks, tables, method and API
book: $(READY)
	@$(BIN)/python -m pip install --quiet --editable '.[book]'
	@$(BIN)/python book/build.py build/book

lab: $(READY)
	@$(BIN)/jupyter lab --notebook-dir=notebooks

clean:
	rm -rf $(VENV) .snakemake .pytest_cache .ruff_cache
