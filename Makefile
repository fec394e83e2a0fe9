# Each target sets up what it needs: a virtual environment in .venv, then its own packages, once.
# `make check` is what .ci/run runs.

PYTHON ?= python3
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check install
CODE := htcgrid contracts plugins tests examples bench
MYPY := .venv/bin/mypy

.PHONY: help demo test check bench format clean
help:            ## this list
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST)

.make/venv:
	$(PYTHON) -m venv .venv
	@mkdir -p .make && touch $@

.make/core: .make/venv pyproject.toml
	$(PIP) --editable .
	@touch $@

# `arch` is used for its data alone, so without what it would compute with.
.make/examples: .make/core
	$(PIP) QuantLib
	$(PIP) --no-deps arch
	@touch $@

demo: .make/examples           ## price an option for each trading day of twenty years; again: nothing is run twice
	.venv/bin/python examples/options/make_tasks.py
	.venv/bin/htcgrid run --config examples/options/htcgrid.toml

clean:           ## remove what the other targets made
	rm -rf .venv .make .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
