# Every target sets up what it needs and prints the plain command it runs. More settings: make train ARGS="seed=1".
.DEFAULT_GOAL := help
.PHONY: help setup demo test check train train-stage1 train-stage1-5 train-stage2 evaluate data sweep report clean

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TORCH := 2.13.0
ARGS ?=

help: ## this list
	@echo "make <target> [ARGS=\"key=value ...\"]"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(STAMP) ## the virtual environment .venv with the pinned packages (the other targets do it by themselves)

# 1. A Python >= 3.11. 2. torch: the CPU build where there is no NVIDIA GPU (the default build brings gigabytes of CUDA
# along), first from the indexes this machine is set up with, then from PyTorch's own. 3. everything else, pinned.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	python=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if command -v $$candidate >/dev/null 2>&1 && \
	     $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "No Python 3.11 or newer found; say which: make PYTHON=/path/to/python3.11" >&2; exit 2; fi; \
	echo "[1/3] virtual environment $(VENV) with $$($$python --version)"; \
	$$python -m venv $(VENV); \
	log=$(VENV)/install.log; : > $$log; \
	pip="$(PY) -m pip --disable-pip-version-check install -c constraints.txt"; name=pip; \
	cpu=""; \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null 2>&1; then cpu=yes; fi; \
	if command -v uv >/dev/null 2>&1 && [ -n "$$cpu" ] && \
	   uv pip install --python $(PY) --dry-run --no-deps "torch==$(TORCH)+cpu" >>$$log 2>&1; then \
	  pip="uv pip install --python $(PY) -c constraints.txt"; name=uv; \
	fi; \
	install() { \
	  { PYTHONUNBUFFERED=1 $$pip "$$@" 2>&1; echo "exit status $$?"; } | tee -a $$log | { n=0; while read -r line; do \
	    case "$$line" in \
	      Collecting*|Processing*) n=$$((n + 1)); if [ $$((n % 20)) = 0 ]; then echo "      $$n packages fetched"; fi;; \
	      Installing\ collected*) echo "      unpacking";; \
	      "exit status 0") exit 0;; \
	    esac; done; exit 1; }; \
	}; \
	echo "[2/3] torch $(TORCH) with $$name$${cpu:+, CPU build}"; \
	if [ -n "$$cpu" ]; then \
	  install --no-deps "torch==$(TORCH)+cpu" || \
	  install --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$(TORCH)+cpu" || \
	  { echo "      no CPU build found: taking the default one, which is large"; install "torch==$(TORCH)"; } || \
	  { tail -20 $$log >&2; exit 1; }; \
	else install "torch==$(TORCH)" || { tail -20 $$log >&2; exit 1; }; fi; \
	echo "[3/3] this project and about 100 packages, pinned in constraints.txt (a minute or two; log: $$log)"; \
	install -e ".[dev]" || { tail -20 $$log >&2; exit 1; }; \
	touch $@; \
	echo "      done: $(VENV)"

demo: $(STAMP) ## whole curriculum on a nano model and built-in data, evaluation, report: outputs/demo, some 10 minutes on two cores
	$(PY) -m toolformer.curriculum experiment=demo $(ARGS)
	$(PY) -m toolformer.report run=outputs/demo

test: $(STAMP) ## the whole test suite, at most 10 minutes
	$(PY) -m pytest $(ARGS)

check: $(STAMP) ## lint, format, docstrings, types: seconds
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m ty check --python $(VENV)

train-stage1: $(STAMP) ## stage 1, schema auto-encoding
	$(PY) -m toolformer.train stage=schema_autoencoding $(ARGS)

train-stage1-5: $(STAMP) ## stage 1.5, gist contrast (ARGS="warm_start=...", the folder that stage 1 printed)
	$(PY) -m toolformer.train stage=gist_contrast $(ARGS)

train-stage2: $(STAMP) ## stage 2, tool calling (ARGS="warm_start=...", the folder that stage 1.5 printed)
	$(PY) -m toolformer.train stage=tool_calling $(ARGS)

train: $(STAMP) ## all stages in order, then the evaluation
	$(PY) -m toolformer.curriculum $(ARGS)

evaluate: $(STAMP) ## score a trained model (ARGS="checkpoint=outputs/demo" by default)
	$(PY) -m toolformer.evaluate $(or $(ARGS),checkpoint=outputs/demo)

data: $(STAMP) ## build the corpus of real sources (ARGS="corpus=sgd" for the dialogues alone)
	$(PY) -m toolformer.prepare $(or $(ARGS),corpus=real)

sweep: $(STAMP) ## one curriculum per value: number of gists (ARGS="sweep=gate" for another question)
	$(PY) -m toolformer.curriculum --multirun $(if $(findstring experiment=,$(ARGS)),,experiment=demo) $(or $(ARGS),sweep=gists)

report: $(STAMP) ## one HTML page from run folders (ARGS="run=outputs/demo" by default)
	$(PY) -m toolformer.report $(or $(ARGS),run=outputs/demo)

clean: ## remove the virtual environment and caches; run folders stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
