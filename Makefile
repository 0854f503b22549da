# Set-up and run, each one command.

PYTHON ?= python3
LOCK ?= envs/cpu.lock
CORES ?= all
VENV := .venv
SNAKEMAKE := $(VENV)/bin/snakemake
# Nothing is written outside the repository.
export XDG_CACHE_HOME := $(CURDIR)/.cache
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test venv lock check

help:
	@echo "make demo   the complete small study: no network, no GPU, minutes"
	@echo "make test   format, lint and all tests"
	@echo "make venv   only the set-up, into $(VENV)"

demo: venv
	@$(SNAKEMAKE) --quiet reason host --directory demo --configfile config/demo.yaml \
		--cores $(CORES) --resources mem_mb=7500 --rerun-incomplete
	@cat demo/results/tables/headline.txt
	@echo "Report: $(CURDIR)/demo/results/report.html"

test: venv check
	@$(VENV)/bin/pytest

check: venv
	@$(VENV)/bin/ruff format --check scripts tests
	@$(VENV)/bin/ruff check scripts tests
	@$(VENV)/bin/snakefmt --check workflow
	@$(SNAKEMAKE) --lint

venv: $(VENV)/installed

$(VENV)/installed: $(LOCK)
	@sh envs/check-machine.sh $(PYTHON)
	@echo "Setting up $(VENV) from $(LOCK): some minutes, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install --quiet --require-hashes -r $(LOCK)
	@touch $@

lock:
	@$(VENV)/bin/pip install --quiet uv
	@for name in cpu gpu; do \
		$(VENV)/bin/uv pip compile --quiet --generate-hashes --strip-extras --no-header \
			--no-emit-index-url --python-version 3.11 \
			--python-platform x86_64-manylinux_2_28 \
			--output-file envs/$$name.lock envs/$$name.in || exit 1; \
	done
	@$(VENV)/bin/python envs/conda_from_lock.py
