# Every target first makes its environment: `.venv`, unless an environment with the pinned versions is active.
SHELL := /bin/bash
PYTHON ?= python3
SCALE ?= auto
RUN = "$$(cat .make/python)"
.DEFAULT_GOAL := help

.PHONY: help setup plan reproduce book serve test check bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  SCALE=toy|cpu|paper sets the scale; without it, reproduce takes paper if this machine is ready for it, else toy."

setup: ## make the environment (once), with the versions that constraints.txt fixes
	@$(PYTHON) alexnet/environment.py

plan: setup ## show which runs and notebooks are done or missing, how long the rest takes here, and the disk it needs
	@$(RUN) -m alexnet plan --scale $(SCALE)

reproduce: setup ## train what is missing, execute the notebooks, build the book; stop it at any moment, it goes on
	@$(RUN) -m alexnet train --scale $(SCALE)
	@$(RUN) book/make.py --scale $(SCALE)

book: setup ## build the book from the results that are here, training nothing
	@$(RUN) book/make.py --scale $(SCALE) --no-train

serve: book ## build the book and show it at http://localhost:8000
	@$(RUN) -m http.server --bind localhost --directory book/_build/html 8000

test: setup ## run all tests, the notebooks included; two at a time, of one thread each
	@OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses 2 --dist loadscope

check: setup ## ruff: lint and format, notebooks too
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

bench: setup ## measure this machine, as ratios within one run; writes runs/bench
	@$(RUN) -m alexnet.bench

clean: ## delete what can be made again: toy runs, executed notebooks, the built book (not .venv, not data)
	rm -rf runs/toy runs/*/book book/_build .pytest_cache .ruff_cache
