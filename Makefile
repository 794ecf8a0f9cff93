# Every target sets itself up: the first one that runs makes .venv and installs what is pinned.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= eval,gcs,serve,tasks,test,tpu
WORKDIR ?= runs/demo
SIZE ?= 3.7 GB
# .venv holds libtpu, which would look for a TPU; JAX_PLATFORMS=tpu or cuda chooses another device.
export JAX_PLATFORMS ?= cpu

BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Slices that the configs of real runs are planned for, and boards of GPUs.
TPU_PLANS = glm_large_v5e:v5e:4x4 glm_10b_v5p:v5p:4x4x8 chatglm2_6b_v5e:v5e:8x8
GPU_PLANS = chatglm2_6b_h100:h100:8

.PHONY: demo serve test faults pods nightly mutate lint types format benchmarks plan-all plan-tpu plan-gpu plans clean help \
  proof-cloze proof-adapters proof-forgetting

help:
	@echo "make demo        train a small GLM on the bundled text and fill blanks (minutes, CPU)"
	@echo "make serve       serve the bundled model, and a page that fills blanks, at http://localhost:8000"
	@echo "make test        all tests"
	@echo "make faults      kill training at 20 random moments; it must end bit-equal"
	@echo "make nightly     the tests that take too long for every change, 100 kills among them"
	@echo "make pods        two processes train together; one is killed, both restarted, one ends it alone"
	@echo "make mutate      break the code on purpose, some 200 times in copies, and see a test go red each time"
	@echo "make lint types  ruff and mypy, as CI runs them"
	@echo "make format      rewrite the code in the house's format"
	@echo "make benchmarks  throughput of corruption, data pipeline, training step and import, one JSON line each"
	@echo "make proof-cloze proof-adapters proof-forgetting"
	@echo "                 what tuning does, on labelled reviews that pip fetches: one table each (docs/proofs.md);"
	@echo "                 proof-cloze pre-trains four models first, which wants a GPU"
	@echo "make plan-all    compile the configs of real runs for their devices, which need not be there: plan-tpu"
	@echo "                 (minutes each) and plan-gpu (which first installs CUDA in .venv-cuda, 4.7 GB)"

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else \
	  "glm_jax needs Python 3.11 or 3.12; $(PYTHON) is %d.%d (choose one: make PYTHON=python3.11)" % v)'
	@echo "Setting up $(VENV) ($(SIZE); some minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(READY)
	@$(BIN)/python -m glm_jax.train --config configs/demo_cpu.py --workdir $(WORKDIR)
	@$(BIN)/python tools/show_blanks.py $(WORKDIR)

serve: $(READY)
	@$(BIN)/python -m glm_jax.serve

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

faults: $(READY)
	@$(BIN)/python -m pytest -s -m nightly tests/test_faults.py -k random_moments

pods: $(READY)
	@$(BIN)/python tools/pods.py

nightly: $(READY)
	@$(BIN)/python -m pytest -n 2 -m nightly

mutate: $(READY)
	@$(BIN)/python tools/mutate.py

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

benchmarks: $(READY)
	@for name in import_time corruption pipeline train_step; do $(BIN)/python benchmarks/$$name.py; done

proof-cloze proof-adapters proof-forgetting: $(READY)
	@$(BIN)/python tools/prove_tuning.py $(@:proof-%=%)

plan-all: plan-tpu plan-gpu

plan-tpu:
	@$(MAKE) --no-print-directory plans PLANS="$(TPU_PLANS)"

# XLA's compiler for CUDA comes with all of CUDA, which nothing else here needs.
plan-gpu:
	@$(MAKE) --no-print-directory plans PLANS="$(GPU_PLANS)" VENV=.venv-cuda EXTRAS=cuda SIZE="4.7 GB"

plans: $(READY)
	@for plan in $(PLANS); do \
	  $(BIN)/python -m glm_jax.plan --config configs/$${plan%%:*}.py --topology $${plan#*:} || exit 1; \
	done

clean:
	rm -rf $(VENV) .venv-cuda runs
