# Everything a user does with a clone. `make help` lists it.

# Variables, to be given after the target: make setup PYTHON=python3.12 VENV=/elsewhere/venv
VENV ?= .venv
# The first of these that runs and is a Python that the package supports.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell \
	$(p) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) and print("$(p)")' 2>/dev/null)))
# Where pip looks for torch besides PyPI, whose Linux builds are for CUDA and large. Without a GPU:
# make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
SEEDS ?= 1
# Of make calibrate: paper, best or compact, and how many trials in all (the study's own number).
STUDY ?= paper
TRIALS ?=
# Of make suite: problems, methods and optimizers that are wanted (all), and seconds of training of each;
# of make peers: problems and contenders.
ONLY ?=
SECONDS ?= 7

# No account is needed, unless this says otherwise; no display, whatever a notebook has set.
WANDB_MODE ?= offline
MPLBACKEND = Agg
export WANDB_MODE MPLBACKEND
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PY := $(VENV)/bin/python
# Touched when setup has finished; a venv of ours that holds PARTIAL was interrupted half-way.
STAMP := $(VENV)/.diffhash-setup
PARTIAL := $(VENV)/.diffhash-setup-unfinished

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup test test-slow test-faults lint solvers solvers-picture suite hermite gallery bench \
	bench-ops bench-start-up bench-gpu peers \
	reproduce-tables docs tables figures report report-screenshots calibrate wandb-sync \
	clean distclean

help: ## list the targets
	@echo "Targets (each sets up what it needs):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "Variables: PYTHON, VENV ($(VENV)), TORCH_INDEX, SEEDS ($(SEEDS)), OPTIONAL, STUDY ($(STUDY)), TRIALS, ONLY, SECONDS ($(SECONDS)), WANDB_MODE ($(WANDB_MODE))"

setup: $(STAMP) ## create the virtual environment with the pinned versions

# Two at once would write into one venv: the second waits, and then finds that it is set up. The
# lock is the kernel's on this file, and ends with its process; a folder where there is no flock.
ifndef SETUP_LOCKED
$(STAMP): pyproject.toml constraints.txt
	@if command -v flock >/dev/null 2>&1; then \
		flock -n Makefile true || echo "setup: waiting for another one to end"; \
		exec flock Makefile $(MAKE) -s SETUP_LOCKED=1 "$(STAMP)"; \
	fi; \
	lock="$(VENV).setup-lock"; mkdir -p "$$(dirname "$$lock")"; \
	until mkdir "$$lock" 2>/dev/null; do \
		owner="$$(cat "$$lock/process" 2>/dev/null)"; \
		if [ -n "$$owner" ] && ! kill -0 "$$owner" 2>/dev/null; then rm -rf "$$lock"; \
		else sleep 1; fi; \
	done; \
	trap 'rm -rf "$$lock"' EXIT; trap 'exit 130' INT TERM HUP; \
	echo $$$$ > "$$lock/process"; \
	$(MAKE) -s SETUP_LOCKED=1 "$(STAMP)"
else
$(STAMP): pyproject.toml constraints.txt
	@if [ -e "$(PARTIAL)" ]; then \
		echo "setup: the last setup was interrupted, starting over"; \
		rm -rf "$(VENV)"; \
	fi
	@if [ ! -x "$(PY)" ]; then \
		"$(or $(PYTHON),false)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
			echo "setup: needs Python 3.11, 3.12 or 3.13; name one with PYTHON=..." \
				"(now: '$(PYTHON)')" >&2; exit 1; }; \
		echo "setup: creating $(VENV) with $(PYTHON)"; \
		mkdir -p "$(VENV)" && touch "$(PARTIAL)" && "$(PYTHON)" -m venv "$(VENV)"; \
	elif [ -e "$(STAMP)" ]; then \
		echo "setup: pyproject.toml or constraints.txt changed, updating $(VENV)"; \
		touch "$(PARTIAL)"; \
	fi
	@echo "setup: installing torch (the largest download)"
	@"$(PY)" -m pip install --progress-bar off -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") torch
	@echo "setup: installing diffhash with what its experiments need"
	@"$(PY)" -m pip install -qq -c constraints.txt -e '.[experiments]'
	@rm -f "$(PARTIAL)" && touch "$(STAMP)"
	@echo "setup: done"
endif

# What other targets need besides: an extra of pyproject.toml each, touched when it is there.
EXTRA := $(VENV)/.diffhash-setup-extra-
LOCKED := $(if $(shell command -v flock 2>/dev/null),flock Makefile)

$(EXTRA)%: $(STAMP)
	@echo "setup: installing the extra $*"
	@$(LOCKED) "$(PY)" -m pip install -qq -c constraints.txt -e '.[$*]'
	@touch "$@"

test: $(EXTRA)test ## run the tests (those that need a GPU or take long are skipped, and listed at the end)
	"$(PY)" -m pytest -n auto

test-slow: $(EXTRA)test ## run the tests that take long
	"$(PY)" -m pytest -n auto --slow -m slow

test-faults: $(EXTRA)test ## kill runs and fill disks at every file operation, damage records, give bad settings
	"$(PY)" -m tests.faults

lint: $(EXTRA)lint $(EXTRA)test ## ruff, pyright and the import layers
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(PY)" -m pyright --pythonpath "$(PY)"
	"$(VENV)/bin/lint-imports"

bench: $(EXTRA)bench ## time training steps beside JAX and others, and training to an accuracy
	"$(PY)" scripts/bench.py

solvers: $(STAMP) ## solve the package's problems by Gauss–Newton (SEEDS), into results/tables/solvers.csv
	"$(PY)" scripts/solvers_table.py --seeds $(SEEDS)

solvers-picture: $(EXTRA)optimizers ## draw error against seconds: every optimizer on six problems, and the classical floor
	"$(PY)" scripts/solvers_picture.py

suite: $(EXTRA)geometry ## problem x method x optimizer in equal SECONDS (SEEDS, ONLY), into results/tables/suite.csv
	"$(PY)" scripts/suite.py --seeds $(SEEDS) --only "$(ONLY)" --seconds $(SECONDS)

hermite: $(STAMP) ## Hermite-NGP's setting with each interpolation (SEEDS), in equal seconds: 20 minutes on two cores
	"$(PY)" scripts/hermite.py --seeds $(SEEDS)

gallery: $(EXTRA)geometry ## solve and draw every problem that has no picture in docs/gallery yet
	"$(PY)" scripts/gallery.py

bench-ops: $(STAMP) ## time the grid operator beside other implementations, into results/benchmarks
	"$(PY)" scripts/bench_ops.py

bench-start-up: $(STAMP) ## time how long commands take to start, beside `import torch`
	"$(PY)" scripts/bench_start_up.py

bench-gpu: $(EXTRA)test ## all that needs a CUDA GPU, in under ten minutes: its tests and benchmarks
	"$(PY)" -m pytest -m gpu tests
	"$(PY)" -m pytest tests/ops/test_triton.py
	"$(PY)" scripts/bench.py --device cuda --parts steps equations growth --repetitions 3 --seconds 0.3
	"$(PY)" scripts/bench_ops.py --device cuda --interpolations linear s1 cubic

peers: $(STAMP) ## train beside DeepXDE, PINA and jinns (ONLY), which it installs into .peers
	"$(PY)" -m benchmarks.peers --only "$(ONLY)"

docs: $(EXTRA)docs ## build the pages of docs/ as a site, in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 "$(PY)" -m mkdocs build --strict

reproduce-tables: $(STAMP) ## run the missing rows of Tables I and II (SEEDS; OPTIONAL=1: also others), time each alone, write all
	"$(PY)" scripts/reproduce_tables.py --seeds $(SEEDS) $(if $(OPTIONAL),--optional)

tables: $(STAMP) ## write results/tables from the finished runs
	"$(PY)" scripts/make_tables.py

figures: $(STAMP) ## write results/figures from the finished runs
	"$(PY)" scripts/make_figures.py

report: $(STAMP) ## write results/report/index.html, one page with everything, from the finished runs
	"$(PY)" scripts/make_report.py

report-screenshots: $(EXTRA)browser ## photograph that page in a headless Chromium (which the machine must have)
	"$(PY)" scripts/report_screenshots.py

calibrate: $(EXTRA)calibration ## search the hyper-parameters of a preset (STUDY, TRIALS), confirm them, write all
	"$(PY)" scripts/calibrate.py $(STUDY) $(if $(TRIALS),--trials $(TRIALS))

wandb-sync: $(STAMP) ## send the runs that were logged offline to W&B
	"$(PY)" scripts/wandb_sync.py

clean: ## remove caches and build leftovers (runs, tables and figures stay)
	rm -rf build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## also remove the virtual environments that setup and peers created
	rm -rf .peers
	@if [ -e "$(STAMP)" ] || [ -e "$(PARTIAL)" ]; then echo "rm -rf $(VENV)"; rm -rf "$(VENV)"; fi
