# make demo    a simulated node under load, with its page; needs no root and, once set up, no network
# make test    every test that needs no GPU
# make check   formatting, lint, types, floors, generated files
# make bench   the measurements of docs/benchmarks.md
# make soak    a daemon at work for SOAK_MINUTES (120), watched for growth; long random runs
# make pauses  the tests of real processes, each of which is stopped for a moment over and over
# make mutants  break each promise on purpose; every one must be noticed by a test
# make chaos   1,000 times kill -9 in the middle of plans and starts
# make crash-matrix  every plan shape stopped at every state a crash can leave; every driver fault
# make nspawn   boot a machine in systemd-nspawn and try the units there; needs root
# make audit    ask the advisory service about every locked dependency; fails if it can't tell
# make release  wheel, source archive, bill of materials and checksums in dist/, reproducibly
# make pictures  the screenshots of the README, from a real Chromium
# make generate  write the generated files anew (metrics reference, schema, golden files)
#
# Prerequisites: make, Python 3.11 or newer with venv (Debian: python3-venv). As root, `make test`
# installs the Debian packages it uses; otherwise it says which are missing.

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Two workers suit two cores; tests that share a server carry the same xdist_group.
WORKERS ?= 2
# What to run: make test TESTS=tests/unit
TESTS ?=
PAUSES_SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format generate bench soak pauses chaos crash-matrix mutants nspawn audit release pictures lock clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@.ci/setup.sh all

demo:
	@.ci/setup.sh python
	@exec $(BIN)/migscaler demo

test:
	@.ci/setup.sh all
	@$(PYTEST) -n $(WORKERS) --dist loadgroup $(TESTS)

check:
	@.ci/setup.sh python
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	@for script in .ci/generate/*.py; do \
		[ -e "$$script" ] || continue; \
		echo "$(BIN)/python $$script --check"; \
		$(BIN)/python "$$script" --check || exit 1; \
	done

format:
	@.ci/setup.sh python
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate:
	@.ci/setup.sh python
	@for script in .ci/generate/*.py; do \
		[ -e "$$script" ] || continue; \
		echo "$(BIN)/python $$script"; \
		$(BIN)/python "$$script" || exit 1; \
	done

bench:
	@.ci/setup.sh bench
	@$(PYTEST) -m bench -s tests/benchmarks

soak:
	@.ci/setup.sh all
	@MIGSCALER_TEST_PROFILE=soak $(PYTEST) -n $(WORKERS) --dist loadgroup -m soak -rP

pauses:
	@.ci/setup.sh all
	@$(BIN)/python -m tests.pauses $(PAUSES_SEED) $(PYTEST) -n $(WORKERS) --dist loadgroup \
		tests/unit tests/contract tests/e2e

chaos:
	@.ci/setup.sh all
	@$(PYTEST) -m chaos -s tests/e2e/test_chaos.py

mutants:
	@.ci/setup.sh all
	@$(BIN)/python -m tests.mutants.run

crash-matrix:
	@.ci/setup.sh all
	@WORKERS=$(WORKERS) $(PYTEST) -m chaos -s tests/simulation

nspawn:
	@.ci/setup.sh nspawn
	@$(BIN)/python .ci/nspawn.py

audit:
	@.ci/setup.sh audit
	@$(BIN)/python .ci/audit.py

release:
	@.ci/setup.sh audit
	@.ci/release.sh

pictures:
	@.ci/setup.sh all
	$(BIN)/python .ci/pictures.py

lock:
	@.ci/lock.sh

clean:
	rm -rf .venv .venv-audit .venv-bench .venv-lock .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache .demo .bench .nspawn build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
