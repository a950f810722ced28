# make venv, demo, test, lint, bench, docs, clean. Needs Python 3.11 or later.
# make test SHARED=DIR also runs the tests that want real data, from DIR.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
SHARED ?=
JOBS   ?= 2

.PHONY: venv demo test lint format bench docs clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/torchvision_hook.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[vision,hf,demo,report,distributed,onnx,openvino,gguf,compressed-tensors,peft,entropy,tensorboard,tune,prune,browser,dev]'
	$(BIN)/python scripts/torchvision_hook.py
	touch $@

demo: $(STAMP)
	mkdir -p build
	$(BIN)/corank demo --report build/demo --record build/demo.json

# One torch thread in each of two workers beats two threads in one. Some hundred tests start a process of their own,
# which would compile the package anew where Python is told to keep no bytecode.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) $(if $(SHARED),--shared=$(SHARED))

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python bench/search_cost.py
	$(BIN)/python bench/resources.py
	$(if $(SHARED),$(BIN)/python bench/cifar.py --shared $(SHARED))
	$(if $(SHARED),$(BIN)/python bench/imagenet.py --shared $(SHARED))

docs: $(STAMP)
	$(BIN)/python -m pip install -q 'mkdocs-material>=9.5'
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf build dist site .pytest_cache .ruff_cache
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +
