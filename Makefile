# The interface of the repository; every target works on a machine with only Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCKS  := deploy/locks
SIZE   ?= 1
FRAMEWORK ?= torch

.PHONY: help setup serve test fuzz test-faults soak check bench bench-serving bench-codec bench-folders bench-scale clients cluster-test frameworks examples zoo networks lock dist gpu-test image compose-test clean

help:           ## List the targets.
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infold needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# Hashes are checked for everything that comes from an index; the package itself is built from here.
$(VENV)/.serve: $(VENV)/.venv pyproject.toml $(LOCKS)/serve.txt $(LOCKS)/build.txt
	@echo "setting up $(VENV) (once)"
	$(PIP) install --require-hashes -r $(LOCKS)/serve.txt -r $(LOCKS)/build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.serve $(LOCKS)/dev.txt
	@echo "setting up development tools (once)"
	$(PIP) install --require-hashes -r $(LOCKS)/dev.txt
	touch $@

setup: $(VENV)/.dev   ## Create .venv with everything that development needs.

serve: $(VENV)/.serve ## Convert the trained digits network and serve it on 127.0.0.1:8080.
	rm -rf build/models
	$(BIN)/infold convert examples/digits/digits.onnx --samples examples/digits/samples.npz \
	    --repository build/models --name digits
	cp models/digits/model.toml models/digits/labels.txt build/models/digits/
	exec $(BIN)/infold serve build/models

test: $(VENV)/.dev    ## Run the tests.
	$(BIN)/python -m pytest -n 2 -m "not container and not networks and not frameworks and not clients and not fuzz and not faults and not cluster"

fuzz: $(VENV)/.dev    ## Ask a server what nobody should, and print what it leaves in memory (SIZE=0.1 in a hurry).
	FUZZ_SIZE=$(SIZE) $(BIN)/python -m pytest -m fuzz tests/fuzz

test-faults: $(VENV)/.dev ## Let everything go wrong under load, and check every answer (SIZE=0.1 in a hurry).
	FAULTS_SIZE=$(SIZE) $(BIN)/python -m pytest -m faults tests/faults

soak: $(VENV)/.dev    ## An hour of requests, swaps and bad clients; prints what a service takes, every minute.
	SOAK_SIZE=$(SIZE) $(BIN)/python -m pytest -m faults tests/faults/test_soak.py

check: $(VENV)/.dev   ## Lint, types, import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev   ## Measure serving for a minute: beside a bare loop, bare ASGI and plain FastAPI.
	$(BIN)/python benchmarks/serving/run.py --quick

# KServe's client wants older libraries than ours, and many; it lives in an environment of its own.
.venv-clients/.ready: $(LOCKS)/clients.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip --disable-pip-version-check --quiet install --no-compile --require-hashes -r $(LOCKS)/clients.txt
	touch $@

clients: $(VENV)/.dev .venv-clients/.ready ## Ask the service with KServe's client too.
	$(BIN)/python -m pytest -m clients

# onnxruntime for GPUs overwrites the one for CPUs, so it has an environment of its own; needs an NVIDIA GPU.
.venv-gpu/.ready: pyproject.toml $(LOCKS)/dev.txt
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $(LOCKS)/dev.txt
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes onnxruntime
	.venv-gpu/bin/python -m pip --disable-pip-version-check --quiet install --no-build-isolation --editable '.[gpu]'
	touch $@

gpu-test: .venv-gpu/.ready ## Run on a GPU what can only be shown there; fails where there is none.
	GPU_TESTS=required .venv-gpu/bin/python -m pytest -m gpu -rs tests/gpu

# Ray lives in an environment of its own; it is large, and no server of one process needs it.
.venv-cluster/.ready: pyproject.toml $(LOCKS)/dev.txt
	$(PYTHON) -m venv .venv-cluster
	.venv-cluster/bin/python -m pip --disable-pip-version-check --quiet install --no-compile --require-hashes -r $(LOCKS)/dev.txt
	.venv-cluster/bin/python -m pip --disable-pip-version-check --quiet install --no-compile --no-build-isolation --editable '.[ray]'
	touch $@

cluster-test: .venv-cluster/.ready ## Start a Ray cluster of three nodes on this machine, and take it apart under load.
	.venv-cluster/bin/python -m pytest -m cluster tests/cluster

# Frameworks live in an environment of their own; they are heavy and no server needs them.
.venv-frameworks/.ready: pyproject.toml $(LOCKS)/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infold needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv-frameworks
	.venv-frameworks/bin/python -m pip --disable-pip-version-check --quiet install --no-compile --require-hashes -r $(LOCKS)/dev.txt
	.venv-frameworks/bin/python -m pip --disable-pip-version-check --quiet install --no-compile --no-build-isolation --editable '.[keras,tensorflow,torch]'
	touch $@

frameworks: .venv-frameworks/.ready ## Convert straight from Keras, TensorFlow and PyTorch.
	.venv-frameworks/bin/python -m pytest -n 2 -m frameworks

STORIES := pytorch_digits keras_digits tensorflow_digits
.PHONY: $(STORIES)
examples: $(STORIES)  ## Run each framework's example, from training to curl (-j2 runs two at a time).

$(STORIES): .venv-frameworks/.ready
	.venv-frameworks/bin/python examples/$@.py

zoo: .venv-frameworks/.ready ## Convert whole architectures; writes docs/networks.md (a quarter of an hour).
	.venv-frameworks/bin/python tests/networks/zoo.py

networks: .venv-frameworks/.ready ## Fold whole networks of Keras and PyTorch, and prove each.
	.venv-frameworks/bin/python -m pytest -n 2 -m networks tests/networks -k "$(ONLY)"

bench-serving: $(VENV)/.dev ## Compare with other model servers; prints tables (hours; needs a C compiler).
	$(BIN)/python benchmarks/serving/peers.py
	$(BIN)/python benchmarks/serving/run.py
	$(BIN)/python benchmarks/serving/cold.py

bench-codec: $(VENV)/.dev ## Time reading and writing tensors beside the fastest JSON libraries (ten minutes).
	$(BIN)/python benchmarks/codec/run.py

bench-folders: $(VENV)/.dev ## Compare with other converters; prints a table.
	$(BIN)/python benchmarks/folders/peers.py
	$(BIN)/python benchmarks/folders/run.py

bench-scale: $(VENV)/.dev ## Measure service times, simulate 10^5 requests/s; writes docs/scale.md (five minutes).
	$(BIN)/python benchmarks/scale/measure.py
	$(BIN)/python benchmarks/scale/simulate.py --write

dist: $(VENV)/.dev    ## Build wheel and sdist into dist/.
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

# Torch's build for CPUs is not in the usual index: EXTRA_INDEX names one that has it, or WHEELS a folder
# (by default what pip itself is told to look at).
WHEELS ?= $(firstword $(wildcard $(PIP_FIND_LINKS)))
IMAGE  := docker build --build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(git log -1 --format=%cI)

image:          ## Build the images infold:cpu and infold:convert; needs a Docker engine.
	$(IMAGE) --tag infold:cpu .
	$(IMAGE) --tag infold:convert --target convert --build-arg FRAMEWORK=$(FRAMEWORK) \
	    --build-arg EXTRA_INDEX=$(EXTRA_INDEX) $(if $(WHEELS),--build-context wheels=$(WHEELS)) .

compose-test: $(VENV)/.dev image ## Run the images and the compose file for real.
	$(BIN)/python -m pytest -m container tests/containers --durations=0

lock: $(VENV)/.dev    ## Pin dependencies anew, with hashes and without any registry's address.
	$(BIN)/python deploy/locks/lock.py

clean:
	rm -rf $(VENV) .venv-clients .venv-cluster .venv-frameworks .venv-gpu build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
