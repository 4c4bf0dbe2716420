# make test: linters and the whole suite. make demo: corpus, training, table.
# Both start from nothing but Python 3.10 or later; the first run downloads.
PYTHON ?= python3
VENV ?= .venv
# Further options of pip install.
PIP_ARGS ?=
PYTEST_ARGS ?=

# Two test processes share the machine; one thread each is quicker than a crowd.
export OMP_NUM_THREADS = 1

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt
NEEDS = setup.cfg pyproject.toml constraints.txt

.PHONY: test demo docs format lint clean
.DEFAULT_GOAL := test

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -q $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/yamllint --strict hparams recipes/LibriSpeech/studies .yamllint.yaml
	$(BIN)/codespell

demo: $(VENV)/.demo
	$(BIN)/amnet demo

docs: $(VENV)/.dev
	$(BIN)/amnet names --markdown > docs/reference.md.new
	mv docs/reference.md.new docs/reference.md

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	  "Python 3.10 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	touch $@

# The stamps are older than what they stand on when an install is due.
$(VENV)/.demo: $(NEEDS) | $(VENV)/.python
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.dev: $(NEEDS) | $(VENV)/.python
	$(PIP) -e '.[dev]'
	touch $@
