# Everything works on a fresh clone with Python 3.10+ and make; `make help` lists it.
#
# Work that lasts leaves a stamp file, so a second run starts in seconds: .venv/.lab and .venv/.dev for what pip
# installed, npm's own node_modules/.package-lock.json, and the built front end itself.

PYTHON ?= python3
PY := .venv/bin/python
NODE := $(PY) scripts/node.py
FRONT := nnviz_widget/static/index.js
SOURCES := $(shell find js/src js/build.mjs -type f)

.DEFAULT_GOAL := help
.PHONY: help demo dev test test-js test-py lint format build wheel bench screenshots weights constraints clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.lab $(FRONT)  ## open JupyterLab on the first notebook
	@$(PY) scripts/lab.py notebooks/01_explore.ipynb

dev: .venv/.dev node_modules/.package-lock.json  ## the same, and the page follows every change under js/
	@$(PY) scripts/lab.py --watch notebooks/01_explore.ipynb

test: .venv/.dev $(FRONT)  ## run every test: TypeScript, Python, kernel, browser, notebooks
	$(MAKE) test-js
	$(MAKE) test-py

test-js: .venv/.dev node_modules/.package-lock.json  ## run the tests of the front end alone
	$(NODE) npm test --silent

test-py: .venv/.dev $(FRONT)  ## run the tests of pytest alone
	$(PY) scripts/chromium.py
	$(PY) -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

lint: .venv/.dev node_modules/.package-lock.json  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(NODE) npm run lint --silent

format: .venv/.dev node_modules/.package-lock.json  ## write the style that lint asks for
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(NODE) npm run format --silent

build: $(FRONT)  ## build the front end into the Python package

wheel: .venv/.dev $(FRONT)  ## build the wheel, front end included, into dist/
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

bench: .venv/.dev $(FRONT)  ## run the benchmarks and write their JSON
	$(PY) scripts/chromium.py
	$(PY) -m tests.benchmarks

screenshots: .venv/.dev $(FRONT)  ## make the pictures in docs/ in a real JupyterLab
	$(PY) scripts/chromium.py
	$(PY) -m scripts.screenshots

weights: .venv/.dev  ## train the demo networks again (minutes)
	$(PY) scripts/train_demo.py

constraints: .venv/.dev  ## move constraints.txt to the newest versions
	$(PY) scripts/constraints.py

clean:  ## remove all that was built or installed here
	rm -rf .venv node_modules nnviz_widget/static dist build .cache .vitest .mypy_cache .pytest_cache .ruff_cache

.venv/.lab .venv/.dev: .venv/.%: pyproject.toml constraints.txt
	$(PYTHON) scripts/install.py $*
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json | .venv/.lab
	$(NODE) npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(FRONT): node_modules/.package-lock.json tsconfig.json $(SOURCES)
	$(NODE) node js/build.mjs
	@touch $@
