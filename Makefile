# Every command of the house. Each one does its own set-up, so that a fresh clone needs Python 3.11+ and make, nothing else.
# Without one place for them, what a person runs and what the build server runs drift apart.

PY := .venv/bin/python
SETUP := sh scripts/python.sh scripts/setup.py
# Two processes, each with whole files, since the tests of a file share servers; in the order of the folders, which begins with the
# longest files. ARGS="-n 0" runs all in one, as a debugger wants it.
TWO_AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help run test check trials faults clean setup-run setup-test

help:    ## list the commands
	@sed -n 's/^\([a-z]*\): *\([a-z-]* *\)## \(.*\)/make \1|\3/p' Makefile | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

run: setup-run  ## start Chat Pro on this machine (the first time: fetch what it needs)
	@$(PY) -m chatpro run

test: setup-test  ## run every test, also in Chromium where there is one; make test ARGS="-k word" runs some
	@$(PY) -m pytest $(TWO_AT_ONCE) $(ARGS)

check: setup-test  ## style, types, import rules, known vulnerabilities, secrets in the history
	@sh scripts/check.sh

trials: setup-test  ## the race, crash and property tests again, with large counts
	@CHATPRO_TRIALS=1 $(PY) -m pytest -m trials $(ARGS)

faults:  ## list the faults and attacks of docs/faults.md with their tests, and those without
	@sh scripts/python.sh scripts/faults.py

clean:   ## remove the virtual environment and all caches; data stays
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-run:
	@$(SETUP) run

setup-test:
	@$(SETUP) test
