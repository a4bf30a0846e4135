# Both commands make .venv when it is missing and reuse it afterwards. Nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

HOROVOD := $(VENV)/.horovod

# A file of tests stays on one worker, so that what its tests share is made once; tests/conftest.py puts long files first.
XDIST := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo picture test test-long lint benchmark clean horovod

demo: $(STAMP)
	$(BIN)/eosr demo demo-output

# The picture of the README.
picture: demo
	mkdir -p docs/images
	cp demo-output/before-after.png docs/images/

test: lint
	@$(MAKE) --no-print-directory horovod || echo "Horovod cannot be built here: its tests are skipped"
	$(BIN)/pytest $(XDIST) -m "not long"

# The rest: tests that wait for time limits, and whole trainings. .ci/run runs both.
test-long: $(STAMP)
	@$(MAKE) --no-print-directory horovod || echo "Horovod cannot be built here: its tests are skipped"
	$(BIN)/pytest $(XDIST) -m long

# Horovod for the torch in $(VENV): minutes the first time, from the cache in ~/.cache/eosr afterwards.
horovod: $(HOROVOD)

$(HOROVOD): $(STAMP) hpc/build_horovod.sh
	PYTHON=$(abspath $(BIN)/python) hpc/build_horovod.sh
	touch $@

# The frozen evaluation. DATA: folder of the BigEarthNet pack (without it only the sample block is judged); DSEN2: folder
# of DSen2's published TorchScript files, which are not ours to ship. docs/benchmark.md is made anew with both only;
# otherwise the page is benchmark-output/benchmark.md.
benchmark: $(STAMP)
	$(BIN)/python benchmarks/frozen_evaluation.py $(if $(DATA),--data $(DATA)) $(if $(DSEN2),--dsen2 $(DSEN2)) $(FLAGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Debian without python3-venv has no ensurepip: there pip itself goes into the environment with `pip --python`.
# torch first and pinned: without the pin pip would take the newest build, with gigabytes of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "eosr needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing eosr into $(VENV) (minutes, the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@test -x $(BIN)/pip || $(PYTHON) -m pip --quiet --python $(BIN)/python install pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf demo-output build dist
