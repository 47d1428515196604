# `make demo` and `make test` need Python 3.11+, pip and make; everything else they install into .venv*/ here.
PYTHON ?= python3
# pip may be a module of that Python or a program beside it; neither ensurepip nor virtualenv is needed.
PIP := $(shell $(PYTHON) -m pip --version >/dev/null 2>&1 && echo "$(PYTHON) -m pip" || echo pip) --disable-pip-version-check
PORT ?= 5000
# Where the demo's records live: any URL of docs/stores.md. Left out: a SQLite file that survives a restart.
STORE ?=
PYTEST_ARGS ?=

.PHONY: help demo test test-lowest lint docs bench bench-scale clean
help:
	@echo "make demo    serve the demo app on http://127.0.0.1:$(PORT)"
	@echo "make test    run the tests, on the newest versions"
	@echo "make test-lowest   run the tests on the lowest supported versions"
	@echo "make lint    ruff, mypy --strict, import-linter"
	@echo "make docs    build the docs into docs/_build/html"
	@echo "make bench   Jam beside its peers, as ratios"
	@echo "make bench-scale   Jam with up to a million sessions on each engine, beside Flask-Session"

# An environment of its own for each purpose, made again when pyproject.toml changes. A current pip is put into it
# first, because dependency groups need one.
define environment
.venv-$(1)/.ready: pyproject.toml
	@echo "Preparing .venv-$(1) (once, and whenever pyproject.toml changes) ..."
	@rm -rf .venv-$(1)
	@$(PYTHON) -m venv --without-pip .venv-$(1)
	@$(PIP) --python .venv-$(1)/bin/python install --quiet 'pip>=25.1'
	@.venv-$(1)/bin/python -m pip --disable-pip-version-check install --quiet $(2)
	@touch $$@
endef

# A name of its own, because a comma would end an argument of call.
demo_packages := -e '.[redis,postgresql,mysql]'
$(eval $(call environment,demo,$(demo_packages)))
$(eval $(call environment,test,-e . --group test))
$(eval $(call environment,lint,-e . --group lint))
$(eval $(call environment,docs,-e . --group docs))
$(eval $(call environment,bench,-e . --group bench))
$(eval $(call environment,lowest,-e . --group test --constraint requirements/lowest.txt))

demo: .venv-demo/.ready
	@PORT=$(PORT) STORE='$(STORE)' .venv-demo/bin/python examples/demo/app.py

test: .venv-test/.ready
	@.venv-test/bin/python -m coverage erase
	@.venv-test/bin/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

test-lowest: .venv-lowest/.ready
	@.venv-lowest/bin/python -m pytest -q $(PYTEST_ARGS)

lint: .venv-lint/.ready
	@.venv-lint/bin/ruff check .
	@.venv-lint/bin/ruff format --check .
	@.venv-lint/bin/mypy
	@.venv-lint/bin/lint-imports

docs: .venv-docs/.ready
	@.venv-docs/bin/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "The docs are in docs/_build/html/index.html"

bench: .venv-bench/.ready
	@.venv-bench/bin/python benchmarks/run.py

bench-scale: .venv-bench/.ready
	@.venv-bench/bin/python benchmarks/scale.py

clean:
	rm -rf .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build dist .coverage*
