# Every target first makes its environment, `.venv`, with the versions that constraints.txt fixes.
#   PYTHON=python3.12 names the interpreter to make it with: another one than before makes it anew.
#   ALEXNET_PYTHON=python is an environment of your own (conda: environment.yml), which is used as it is.
SHELL := /bin/sh
SCALE ?= auto
PYTHON ?= $(shell .venv/bin/python -c "import pip" 2>/dev/null && echo .venv/bin/python || echo python3)
RUN := $(or $(ALEXNET_PYTHON),.venv/bin/python)
.DEFAULT_GOAL := help

# Beside the records: nothing of theirs is read or changed. To begin once more, remove the folder.
ifneq ($(filter-out 0 no,$(FRESH)),)
export ALEXNET_RUNS := $(CURDIR)/runs-fresh
endif

ifeq ($(OS),Windows_NT)
$(error Windows itself is not supported. Inside WSL (install it with: wsl --install) everything works as on Linux)
endif

# Why: a container's user may have no home, or one that may not be written to, and pip, Jupyter and Matplotlib want one.
ifneq ($(shell test -d "$$HOME" -a -w "$$HOME" && echo yes),yes)
export HOME := $(or $(TMPDIR),/tmp)/alexnet-$(shell id -u)
endif

ifeq ($(shell test -w . && echo yes),yes)

.PHONY: help setup plan reproduce book pdf serve test check bench baseline rehearse kills fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo "  SCALE=toy|small|paper sets the scale; without it, reproduce takes paper if this machine is ready for it, else toy."

VERSION = import sys; print(sys.version)
PINS = "$$(cat pyproject.toml constraints.txt | cksum)"

setup: ## make the environment (once): 3.2 GB to download, 6 GB of disk
ifdef ALEXNET_PYTHON
	@$(RUN) -c "import torch, jupyter_book, plotly, filelock" || { echo "error: ALEXNET_PYTHON=$(RUN) lacks what is needed:" \
	  "$(RUN) -m pip install --constraint constraints.txt --editable ."; exit 1; }
else
	@mkdir -p "$$HOME"
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	  echo "error: Python 3.11 or newer is needed; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test "$$($(PYTHON) -c "$(VERSION)")" = "$$(.venv/bin/python -c "import pip; $(VERSION)" 2>/dev/null)" || { \
	  rm -rf .venv && $(PYTHON) -m venv .venv; }
	@test $(PINS) = "$$(cat .venv/pins 2>/dev/null)" || { \
	  $(RUN) -m pip install --disable-pip-version-check --constraint constraints.txt --editable . && echo $(PINS) > .venv/pins; }
endif

plan: setup ## show which runs and notebooks are done or missing, how long the rest takes here, and the disk it needs
	@$(RUN) -m alexnet plan --scale $(SCALE)

reproduce: setup ## train what is missing, execute the notebooks, build the book; it resumes. FRESH=1: all anew, in runs-fresh/
	@$(RUN) -m alexnet train --scale $(SCALE) || test $$? -eq 3
	@$(RUN) book/make.py --scale $(if $(filter auto,$(SCALE)),ready,$(SCALE))

book: setup ## build the book from the results that are here, training nothing
	@$(RUN) book/make.py --scale $(SCALE)

pdf: setup ## the same, and the whole book as one file to print; needs Chromium
	@$(RUN) book/make.py --scale $(SCALE) --pdf

serve: book ## build the book and show it at http://localhost:8000
	@$(RUN) -m http.server --bind localhost --directory book/_build/html 8000

test: setup ## run all tests, the notebooks included; two at a time, of one thread each
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

check: setup ## ruff: lint and format, notebooks too
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

bench: setup ## measure this machine, as ratios within one run; writes runs/bench
	@$(RUN) -m alexnet.bench

BASELINE = $(RUN) -m alexnet.experiments.baseline --data $(if $(filter toy,$(SCALE)),formula256,imagenet20)
baseline: setup ## classify ImageNet-20 (SCALE=toy: its stand-in) by hand-crafted features, the paper's rival; an hour
	@$(BASELINE) --only-ask || { \
	  $(if $(ALEXNET_PYTHON),:,$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[baseline]") && \
	  $(BASELINE); }

rehearse: setup ## take every experiment of the scale paper through its real path, on tiny archives like ImageNet's
	@$(RUN) tests/experiments/rehearsal.py

kills: setup ## kill trainings and preparations at random moments, 60 times; they must end with the same bits
	@OMP_NUM_THREADS=1 $(RUN) tests/kill_sweep.py

fuzz: setup ## show the readers of images, archives, weights and checkpoints damaged files, for five minutes
	@OMP_NUM_THREADS=1 $(RUN) tests/fuzz.py

clean: ## delete what can be made again: runs on images made by formula, rehearsals, executed notebooks, the book
	rm -rf runs/formula32 runs/formula256 rehearsal book/_executed book/_build .pytest_cache .ruff_cache

else # Why a copy: the environment, the results and the book are all written into the checkout.

COPY := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/alexnet/checkout-$(firstword $(shell pwd | cksum))
Makefile: ;
%:
	@echo "This folder may not be written to: its copy is used, $(COPY)"
	@mkdir -p "$(COPY)" && cd "$(COPY)" && rm -rf .git alexnet tests
	@tar -cf - --exclude=./.venv --exclude=./data . | tar -xf - -C "$(COPY)" --keep-newer-files 2>/dev/null && \
	  chmod -R u+w "$(COPY)" && $(MAKE) --no-print-directory -C "$(COPY)" $@

endif
