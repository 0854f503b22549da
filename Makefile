# Set-up and run, each one command.

PYTHON ?= python3
CORES ?= all
# What jobs side by side may take: all but a tenth of this machine's memory.
MEM_MB ?= $(shell awk '/^MemTotal/ {print int($$2 / 1024 * 0.9)}' /proc/meminfo)
VENV := .venv
# A copy of the lock that is installed; which one it was, so that no other takes its place unasked.
INSTALLED := $(VENV)/installed
LOCK ?= $(shell cat $(VENV)/lock 2>/dev/null || echo envs/cpu.lock)
SNAKEMAKE := $(VENV)/bin/snakemake
# Nothing is written outside the repository.
export XDG_CACHE_HOME := $(CURDIR)/.cache
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo bench test test-cluster faults plan status report remove-caches submission venv \
	set-up lock check

help:
	@echo "make demo   the complete small study: no network, no GPU, minutes"
	@echo "make plan   what a study will cost: ARGS='--configfile my.yaml --profile profiles/slurm'"
	@echo "make status where every run of a study stands: ARGS='--directory DIR'"
	@echo "make report the report of what is finished by now; trains nothing, disturbs nothing"
	@echo "make remove-caches   activations and embeddings, once a study is finished"
	@echo "make submission RUN=convnext_cfg1   a package for Codabench, scored here"
	@echo "make bench  speed against the direct way, and how cost grows: an hour"
	@echo "make test   format, lint and all tests"
	@echo "make faults what a cluster does to a job, the slow ones included: 30 minutes, as root"
	@echo "make test-cluster PROFILE=profiles/slurm   a small study on the cluster you sit on"
	@echo "make venv   only the set-up, into $(VENV)"

demo: venv
	@$(SNAKEMAKE) --quiet reason host --directory demo --configfile config/demo.yaml \
		--cores $(CORES) --resources mem_mb=$(MEM_MB) --rerun-incomplete
	@cat demo/results/tables/headline.txt
	@echo "Report: $(CURDIR)/demo/results/report.html"

plan: | $(INSTALLED)
	@$(VENV)/bin/python scripts/plan.py $(ARGS)

status: | $(INSTALLED)
	@$(VENV)/bin/python scripts/status.py $(ARGS)

report: | $(INSTALLED)
	@$(SNAKEMAKE) --nolock --quiet reason host --cores $(CORES) --config partial=True $(ARGS)

remove-caches: | $(INSTALLED)
	@$(VENV)/bin/python scripts/remove_caches.py $(ARGS)

bench: | $(INSTALLED)
	@$(VENV)/bin/python tests/benchmarks/bench.py $(ARGS)
	@test -n "$(ARGS)" || $(VENV)/bin/python tests/benchmarks/augmentation_speed.py
	@test -n "$(ARGS)" || $(VENV)/bin/python tests/benchmarks/growth.py

submission: | $(INSTALLED)
	@test -n "$(RUN)" || { echo "Which run? make submission RUN=convnext_cfg1"; exit 1; }
	@$(SNAKEMAKE) results/$(RUN)/codabench.json --quiet reason host --cores $(CORES) $(ARGS)

test-cluster: | $(INSTALLED)
	@HEMAGRID_PROFILE=$(PROFILE) $(VENV)/bin/pytest --basetemp=test-cluster \
		tests/cluster/test_study.py

faults: | $(INSTALLED)
	@HEMAGRID_SLOW_FAULTS=1 $(VENV)/bin/pytest -v tests/cluster

test: venv check
	@$(VENV)/bin/pytest

check: venv
	@$(VENV)/bin/ruff format --check scripts tests
	@$(VENV)/bin/ruff check scripts tests
	@$(VENV)/bin/snakefmt --check workflow
	@$(SNAKEMAKE) --lint

# `make venv`, and with it `demo`, `test` and `check`, brings the environment up to date with the
# lock; other targets only make a missing one: jobs may be running on it.
venv:
	@cmp -s $(LOCK) $(INSTALLED) || $(MAKE) --no-print-directory set-up

$(INSTALLED):
	@$(MAKE) --no-print-directory set-up

set-up:
	@test ! -L $(VENV) || { echo "hemagrid: $(VENV) is a link; remove it first"; exit 1; }
	@sh envs/check-machine.sh $(PYTHON)
	@echo "Setting up $(VENV) from $(LOCK): some minutes, once"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/pip install --quiet --require-hashes -r $(LOCK)
	@echo $(LOCK) > $(VENV)/lock
	@cp $(LOCK) $(INSTALLED)

lock:
	@$(VENV)/bin/pip install --quiet uv
	@for name in cpu gpu; do \
		$(VENV)/bin/uv pip compile --quiet --generate-hashes --strip-extras --no-header \
			--no-emit-index-url --python-version 3.11 \
			--python-platform x86_64-manylinux_2_28 \
			--output-file envs/$$name.lock envs/$$name.in || exit 1; \
	done
	@$(VENV)/bin/python envs/conda_from_lock.py
