# Each target sets up what it needs: a virtual environment in .venv, then its own packages, once.
# `make check` is what .ci/run runs.

PYTHON ?= python3
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check install
PYTEST ?=
# Targets that run beside each other print when they end. macOS's make cannot do that.
SYNC := $(if $(filter 3.%,$(MAKE_VERSION)),,--output-sync=target)
# Elsewhere handlers run in plain subprocesses: docs/platforms.md says what those lack.
DEMO ?= $(if $(filter Linux,$(shell uname)),,--plane reduced)

.PHONY: help demo bytecode test timing plugins mutants docker kubernetes chaos lint check coverage reference bench format clean \
	tests-that-are-slow types-of-core types-of-plugins
help:            ## this list
	@sed -n 's/^\([a-z]*\): .*## /\1\t/p' $(MAKEFILE_LIST)

.make/venv:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade 'pip>=25.1'
	@mkdir -p .make && touch $@

.make/core: .make/venv pyproject.toml
	$(PIP) --editable .
	@touch $@

# `arch` is used for its data alone: it stands apart, without what it would compute with.
.make/examples: .make/core
	$(PIP) QuantLib
	$(PIP) --no-deps --target .make/data arch
	@touch $@

demo: .make/examples           ## price an option for each trading day of twenty years; again: nothing is run twice
	PYTHONPATH=.make/data .venv/bin/python examples/options/make_tasks.py
	.venv/bin/htcgrid run --config examples/options/htcgrid.toml $(DEMO)

# Everything that the tests of the core need; neither Docker nor a cluster nor AWS.
.make/test: .make/core contracts/pyproject.toml
	$(PIP) --group test --editable contracts
	@touch $@

.make/lint: .make/test
	$(PIP) --group lint
	@touch $@

.make/plugins: .make/test $(wildcard plugins/*/pyproject.toml)
	$(PIP) $(addprefix --editable ./,$(wildcard plugins/* examples/plugins/*)) --group plugins
	@touch $@

# Hundreds of tests start a program. Where Python may write no bytecode, each would compile all that it imports.
bytecode: .make/core
	.venv/bin/python -m compileall -q htcgrid contracts

CORE := $(foreach lane,docker kubernetes chaos,--ignore tests/$(lane))

# Six at a time on two processors: most of a test is waiting, for a lease to expire or for a program to start.
# The first line compiles the tests as pytest does it, with their assertions rewritten: otherwise each of the six would.
# What it cannot import, the second line reports.
test: .make/test bytecode        ## the tests of the core: no Docker, no cluster, no AWS
	@PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest --collect-only -qq $(CORE) >/dev/null 2>&1 || true
	.venv/bin/python -m pytest -n 6 --dist loadscope -m 'not slow and not timing' $(CORE) $(PYTEST)

timing: .make/test bytecode        ## the tests of the core that assert how fast something is, one at a time
	.venv/bin/python -m pytest -n 0 -m timing $(CORE) $(PYTEST)

# Two at a time, each shown when it has ended: most tests of some wait, while others compute.
plugins: .make/plugins .make/examples bytecode         ## the tests of the plugins that need no engine or cluster: moto, Redis, a fake service
	@echo 'Two at a time; what each prints is shown when it has ended. All of them take 15 minutes.'
	@$(MAKE) --jobs 2 --no-print-directory $(SYNC) tests-that-are-slow $(PLUGINS:%=%.tested)

PLUGINS := $(wildcard plugins/* examples/plugins/*)
%.tested:
	.venv/bin/python -m pytest -n 4 --dist worksteal $(PYTEST) $*

# By file: test_broken.py tries all broken plugins before its first test, which is to be done once and not in four processes.
# The order is that of tests/contracts/conftest.py.
tests-that-are-slow:
	.venv/bin/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder -m 'slow and not timing' $(CORE)

mutants: .make/plugins bytecode         ## the mutation score of the conformance kit: bugs that authors make, put into our own plugins
	@PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest --collect-only -qq tests/contracts plugins/aws/tests \
		examples/plugins/redis/tests >/dev/null 2>&1 || true
	.venv/bin/python tests/contracts/mutants.py

docker: .make/plugins .make/examples          ## the local_docker plane on the Docker Engine of this machine
	.venv/bin/python -m pytest -n 4 --dist loadscope $(PYTEST) tests/docker

kubernetes: .make/plugins .make/examples      ## the eks planes on the cluster that KUBECONFIG names
	.venv/bin/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST) tests/kubernetes

chaos: .make/plugins           ## agents killed for minutes
	.venv/bin/python -m pytest -n 3 $(PYTEST) tests/chaos

# The types of each folder of tests by itself, since each has a conftest.py.
TESTS := tests $(sort $(dir $(wildcard tests/*/test_*.py)))
HELPERS := tests/chaos:tests/docker:tests/parts:plugins/aws/tests
lint: .make/lint .make/plugins        ## format, lint and types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	$(MAKE) --jobs 2 --no-print-directory $(SYNC) types-of-core types-of-plugins

types-of-core:
	.venv/bin/mypy
	for tests in $(TESTS); do MYPYPATH=$(HELPERS):$$tests .venv/bin/mypy $$tests/*.py || exit; done

types-of-plugins:
	for plugin in plugins/*; do (cd $$plugin && $(CURDIR)/.venv/bin/mypy) || exit; done

check: lint test timing plugins        ## what .ci/run runs before the lanes that need an engine or a cluster

format: .make/lint        ## let ruff have its way
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

coverage: .make/test        ## the lines that the tests of the core run, with a floor
	$(PIP) --group coverage
	.venv/bin/coverage erase
	.venv/bin/coverage run -m pytest -n 6 --dist loadscope -m 'not slow and not timing' $(CORE) $(PYTEST)
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

reference: .make/plugins        ## write docs/reference/config.md and the tables of docs/observability.md from the code
	.venv/bin/python docs/reference/generate.py
	.venv/bin/python docs/reference/generate_observability.py

bench: .make/test        ## measure against peers, side by side
	$(PIP) --group bench
	.venv/bin/python bench/run.py

clean:           ## remove what the other targets made
	rm -rf .venv .make .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
