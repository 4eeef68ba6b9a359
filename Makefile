# Every target builds .venv when it is missing, and again when setup.cfg or the constraints change.
PYTHON ?= python3
VENV ?= .venv
# versions that the tests pass on; `make test CONSTRAINTS=` takes the newest that pip finds
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# two processes, each file in one of them
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile
# named after the constraints: with others, everything is installed again
INSTALLED := $(VENV)/.installed-$(or $(notdir $(CONSTRAINTS)),newest)
READY := $(INSTALLED)
DETECT := $(INSTALLED)-detectron2

# OpenMP threads that spin while they wait starve small CPU machines; read when torch is imported.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := check
.PHONY: install-det demo test test-oldest test-slow check constraints figures figures-erf zoo \
	figures-concepts reproduce-digits format docs

# read by every pip below, also the one that `rfbench install-detectron2` calls
PIP_SETTINGS := $(if $(CONSTRAINTS),PIP_CONSTRAINT=$(CONSTRAINTS))
UPGRADE := $(if $(CONSTRAINTS),,--upgrade --upgrade-strategy eager)

$(READY): setup.cfg $(CONSTRAINTS)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.installed*
	$(PIP_SETTINGS) $(BIN)/python -m pip install --quiet $(UPGRADE) -e '.[det,dev]'
	@touch $@

# leaves a Detectron2 that works already alone
$(DETECT): $(READY) rfbench/install_detectron2.py
	$(PIP_SETTINGS) $(BIN)/rfbench install-detectron2
	@touch $@

install-det: $(DETECT)  ## Detectron2, for `rfbench train-det`; the rest runs without

demo: $(READY) $(DETECT)  ## receptive fields of ResNet-50, and a small classifier without and with the fix, a detector
	$(BIN)/rfbench visualize-rf resnet50 --output results/demo/rf --overwrite
	$(BIN)/rfbench train-cls --output results/demo/cls-baseline --overwrite
	$(BIN)/rfbench train-cls -o variant=1x1+3x3 --output results/demo/cls-1x1+3x3 --overwrite
	$(BIN)/rfbench train-det -o weights=results/demo/cls-baseline/best.pth --visualize 6 \
		--output results/demo/det --overwrite
	@echo "Figures:" results/demo/*/*.png results/demo/det/predictions/*.png

test: $(READY) $(DETECT)  ## the tests
	$(PYTEST)

test-oldest:  ## the tests on the oldest versions that setup.cfg allows, in .venv-oldest
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

test-slow: $(READY) $(DETECT)  ## the tests that take minutes: runs killed at random moments and resumed
	$(BIN)/python -m pytest -q -m slow -s

check: $(READY) $(DETECT)  ## format, lint, types, tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy rfbench
	$(PYTEST)

constraints:  ## renew constraints.txt: the newest that pip finds, if `check` passes on them in .venv-newest
	rm -rf .venv-newest
	$(MAKE) check VENV=.venv-newest CONSTRAINTS=
	.venv-newest/bin/python scripts/freeze_versions.py \
		'What `make demo` and `make test` install; the tests pass on it. Made by `make constraints`.' \
		> .venv-newest/constraints.txt
	mv .venv-newest/constraints.txt constraints.txt

figures: $(READY)  ## the figures of the documentation
	$(BIN)/python scripts/make_figures.py
	$(BIN)/python scripts/hero.py docs/figures/hero.png

zoo: $(READY)  ## every architecture of torchvision and timm: results/zoo/index.html, docs/zoo.md
	$(BIN)/rfbench rf zoo --markdown docs/zoo.md

figures-concepts: $(READY)  ## the figures of docs/concepts
	$(BIN)/python scripts/concept_figures.py

figures-erf: $(READY)  ## Luo et al.'s figures of effective fields; trains a small network first
	$(BIN)/python scripts/figures_erf.py

reproduce-digits: $(READY) $(DETECT)  ## the paper's grid in miniature, about 90 minutes on two cores
	$(BIN)/rfbench grid configs/grids/digits.yaml --jobs 2
	$(BIN)/rfbench compare results/digits --format html --output results/digits/report.html

docs: $(READY)  ## the pages in docs/ as a site: site/index.html; dead links fail
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

format: $(READY)  ## rewrite the files as `check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
