# Set-up and run, each one command.

PYTHON ?= python3
VENV := .venv
# A copy of the lock that is installed. $(VENV)/lock names it, so that no other replaces it unasked.
INSTALLED := $(VENV)/installed
LOCK ?= $(shell cat $(VENV)/lock 2>/dev/null || echo envs/cpu.lock)
TOOLS := $(VENV)/tools
SNAKEMAKE := $(VENV)/bin/snakemake
# Nothing is written outside the repository.
export XDG_CACHE_HOME := $(CURDIR)/.cache
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo bench test test-cluster faults venv set-up lock check

help:
	@echo "make demo   the complete small study: no network, no GPU, minutes"
	@echo "make venv   only the set-up, into $(VENV), with the command $(VENV)/bin/hemagrid"
	@echo "make test   format, lint and all tests"
	@echo "make check  format and lint alone"
	@echo "make faults what a cluster does to a job, including the slow faults: 40 minutes, as root"
	@echo "make test-cluster PROFILE=profiles/slurm   a small study on your cluster"
	@echo "make bench  speed against plain Keras and the processor, and how cost grows: an hour"
	@echo "make lock   resolve envs/*.in again"
	@echo "To work with a study: $(VENV)/bin/hemagrid --help"

demo: venv
	@$(VENV)/bin/hemagrid demo $(ARGS)

bench: | $(INSTALLED)
	@$(VENV)/bin/python tests/benchmarks/bench.py $(ARGS)
	@test -n "$(ARGS)" || $(VENV)/bin/python tests/benchmarks/training_step.py --xla off --layers
	@test -n "$(ARGS)" || $(VENV)/bin/python tests/benchmarks/augmentation_speed.py
	@test -n "$(ARGS)" || $(VENV)/bin/python tests/benchmarks/growth.py

test-cluster: $(TOOLS)
	@HEMAGRID_PROFILE=$(PROFILE) $(VENV)/bin/pytest --basetemp=test-cluster \
		tests/cluster/test_study.py

faults: $(TOOLS)
	@HEMAGRID_SLOW_FAULTS=1 $(VENV)/bin/pytest -v tests/cluster

test: check
	@$(VENV)/bin/pytest -n 2 --durations=20

check: venv $(TOOLS)
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
	@$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -e .
	@echo $(LOCK) > $(VENV)/lock
	@cp $(LOCK) $(INSTALLED)

# Tests and checks need more than jobs do, whichever lock is installed.
$(TOOLS): envs/dev.lock | $(INSTALLED)
	@$(VENV)/bin/pip install --quiet --require-hashes -r envs/dev.lock
	@touch $(TOOLS)

lock:
	@$(VENV)/bin/pip install --quiet uv
	@for name in cpu gpu light parsing dev; do \
		$(VENV)/bin/uv pip compile --quiet --generate-hashes --strip-extras --no-header \
			--no-emit-index-url --python-version 3.11 \
			--python-platform x86_64-manylinux_2_28 \
			$$(case $$name in light|parsing) echo -c envs/cpu.lock;; esac) \
			--output-file envs/$$name.lock envs/$$name.in || exit 1; \
	done
	@$(VENV)/bin/python envs/conda_from_lock.py
