# `make demo` and `make test` do all their own set-up. MINT_PYTHON (or PYTHON) picks the interpreter,
# ARGS is passed on: make demo ARGS="--no-serve".
PYTHON ?= python3
MINT_PYTHON ?= $(PYTHON)

VENV := .venv
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
# Most models of the tests are too small for more than one thread; the files of tests are shared out instead.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

# glibc gives the memory of large tensors back after every step and takes it anew, page by page, for the next one. Keeping
# it helps generation on the CPU, most where page faults are dear (in virtual machines).
export MALLOC_MMAP_THRESHOLD_ := 2000000000
export MALLOC_TRIM_THRESHOLD_ := 1000000000

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow style benchmark serve clean assets

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: assets  ## the whole of MINT on real Wikipedia, then a web page to ask questions in
	$(RUN) examples/run_mint.py --config examples/configs/demo.yaml $(ARGS)

test: assets  ## all tests but the slow ones
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: assets  ## the slow tests
	$(PYTEST) -m slow $(ARGS)

style: $(INSTALLED)  ## format and check the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# beam_misses.py and demo_load.py take the demo's models, auxiliary_quality.py replies of an LLM and labelled questions.
NO_BENCHMARK := measuring.py mixed_examples.py peers.py auxiliary_quality.py $(if $(wildcard outputs/demo/mint-rag),,beam_misses.py demo_load.py)

benchmark: assets  ## every script of examples/benchmarks
	@set -e; for script in $(filter-out $(NO_BENCHMARK:%=examples/benchmarks/%),$(wildcard examples/benchmarks/*.py)); do \
		echo "$$script"; $(RUN) $$script $(ARGS); done

serve: assets  ## the web page of the trained checkpoints, on 127.0.0.1:7860 (ARGS="--run outputs/demo": of a run)
	$(RUN) examples/serve.py $(ARGS)

clean:  ## remove .venv, builds and caches; outputs/ and the asset cache stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

assets: $(INSTALLED)
	@$(RUN) examples/assets.py

# torch goes first and alone: what depends on it must find the pinned build in place and not choose one of its own.
$(INSTALLED): setup.cfg constraints.txt
	@command -v "$(MINT_PYTHON)" >/dev/null || \
		{ echo "No '$(MINT_PYTHON)' here: install Python 3.11 or newer, or name one: make MINT_PYTHON=/path/to/python3"; exit 1; }
	@"$(MINT_PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "MINT needs Python 3.11 or newer, '$(MINT_PYTHON)' is $$("$(MINT_PYTHON)" --version): name another with make MINT_PYTHON=/path/to/python3"; exit 1; }
	@"$(MINT_PYTHON)" -c "import ensurepip, venv" 2>/dev/null || \
		{ echo "'$(MINT_PYTHON)' cannot make virtual environments: install python3-venv (on Debian: apt-get install python3-venv)"; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || "$(MINT_PYTHON)" -m venv $(VENV)
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[demo,test,dev]"
	@touch $@
