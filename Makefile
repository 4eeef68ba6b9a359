# Every target builds .venv when it is missing, and again when setup.cfg has changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

# OpenMP threads that spin while they wait starve small CPU machines; read when torch is imported.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := check
.PHONY: demo test test-slow check figures format

$(READY): setup.cfg
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: $(READY)  ## receptive fields of ResNet-50, and a small classifier trained without and with the cure
	$(BIN)/rfbench visualize-rf resnet50 --output results/demo/rf --overwrite
	$(BIN)/rfbench train-cls --output results/demo/cls-baseline --overwrite
	$(BIN)/rfbench train-cls -o variant=1x1+3x3 --output results/demo/cls-1x1+3x3 --overwrite
	@echo "Figures:" results/demo/*/*.png

test: $(READY)  ## the tests
	$(BIN)/python -m pytest -q

test-slow: $(READY)  ## the tests that take minutes: runs killed at random moments and resumed
	$(BIN)/python -m pytest -q -m slow

check: $(READY)  ## format, lint, types, tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy rfbench
	$(BIN)/python -m pytest -q

figures: $(READY)  ## the figures of the documentation
	$(BIN)/python scripts/make_figures.py

format: $(READY)  ## rewrite the files as `check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
