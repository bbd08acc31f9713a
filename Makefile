# One line a target; `make train` and `make test` set up what they need.
PYTHON ?= python3
BIN := .venv/bin

install: $(BIN)/featherweight

$(BIN)/featherweight: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[transformers,excel,onnx,search,ray,serve,notebook,dev]'
	@touch $@

train: install
	$(BIN)/python train.py
	$(BIN)/python test.py

test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# As those have it who only answer texts: the package itself, without PyTorch.
core:
	$(PYTHON) -m venv --clear .venv-core
	.venv-core/bin/pip install --quiet -c constraints.txt .
	! .venv-core/bin/python -c 'import torch' 2> /dev/null
	cd "$$(mktemp -d)" && $(CURDIR)/.venv-core/bin/featherweight verify pretrained
	cd "$$(mktemp -d)" && $(CURDIR)/.venv-core/bin/featherweight predict "i feel so happy today" | grep joy

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: install
	$(BIN)/python benchmarks/render.py

stress: install
	$(BIN)/python benchmarks/stress.py

.PHONY: install train test core lint fix readme stress
