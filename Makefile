# make demo    build the environment (once, a minute or two), run the main job on embedded data
# make test    build the environment, run the tests
# make test-vision   build a second environment (a few minutes, 6 GB), run the tests beside timm and torchvision
# make test-slow   the long harms: kills at random moments, ranks, Ray, servers that hang
# make check   lint and types, as CI runs them
# make bench   the ratios of benchmarks/RESULTS.md beside other formats, half an hour; tables, and JSON in data/
# make paper DATA=FOLDER   the paper's experiments on MNIST, hours; goes on where it was stopped; benchmarks/hinton2015.md
PYTHON ?= python3
VENV   ?= .venv
VISION_VENV ?= .venv-vision
JOBS   ?= 2
PYTEST_ARGS ?= -n 2 --dist worksteal
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RIVALS := $(VENV)/rivals
BENCH_STAMP := $(VENV)/.bench-installed
VISION_BIN   := $(VISION_VENV)/bin
VISION_STAMP := $(VISION_VENV)/.installed

.PHONY: demo test test-vision test-slow check bench paper clean

demo: $(STAMP)
	$(BIN)/softlabels demo

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-vision: $(VISION_STAMP)
	HF_HUB_OFFLINE=1 $(VISION_BIN)/python -m pytest $(PYTEST_ARGS) tests/vision tests/teachers/test_transformers.py

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BENCH_STAMP)
	$(BIN)/python -m benchmarks.ratios --json data/bench-ratios.json
	$(BIN)/python -m benchmarks.dumping --json data/bench-dumping.json
	PYTHONPATH=$(RIVALS) $(BIN)/python -m benchmarks.loading --json data/bench-loading.json

paper: $(STAMP)
	@test -n "$(DATA)" || { echo "say where MNIST is: make paper DATA=FOLDER, which holds train.parquet and test.parquet"; exit 2; }
	$(BIN)/python -m benchmarks.hinton2015 --data "$(DATA)" --jobs $(JOBS)

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "softlabels needs Python 3.11 or newer; try make PYTHON=python3.12")'
	@echo "installing into $(VENV), once: about a minute and a half, longer where torch has to be fetched"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt pip hatchling editables
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev,plot,ray,s3]'
	touch $@

# timm's and torchvision's wheels are built for one torch, which is not that of constraints.txt
$(VISION_STAMP): constraints-vision.txt pyproject.toml
	test -x $(VISION_BIN)/python || $(PYTHON) -m venv $(VISION_VENV)
	$(VISION_BIN)/python -m pip install -q -c constraints-vision.txt pip hatchling editables pytest pytest-xdist hypothesis
	$(VISION_BIN)/python -m pip install -q -c constraints-vision.txt --no-build-isolation -e '.[timm,torchvision,transformers]'
	touch $@

$(BENCH_STAMP): $(STAMP) constraints-bench.txt
	rm -rf $(RIVALS)
	$(BIN)/python -m pip install -q --no-deps --target $(RIVALS) -r constraints-bench.txt
	touch $@

clean:
	rm -rf $(VENV) $(VISION_VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist
