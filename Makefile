# `make demo` and `make test` work on a fresh clone; the other targets are for development.
# They share .venv through stamp files: nothing is installed twice unless pyproject.toml or
# constraints.txt changed. The interpreter can be chosen: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt

# Everything these targets fit is small: threads would only wait for each other.
export OMP_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1

# A module of tests stays in one process, which fits its models once.
PROCESSES ?= 2
PYTEST = $(BIN)/pytest --numprocesses $(PROCESSES) --dist loadscope

# What rounding could decide, under the kernels of processors without AVX-512 and of the oldest.
KERNEL_TESTS := tests/test_anchors.py tests/bulk/test_joint_fit.py \
    $(addprefix tests/confounder/test_, confounder_solvers.py effects.py glm.py)
AVX2 := OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2

.PHONY: demo test test-slow test-kernels benchmarks lint imports
.PHONY: docs links figures tutorials package clean

demo: $(VENV)/.package
	$(BIN)/scovert demo -o demo --overwrite

test: $(VENV)/.test
	$(PYTEST)

test-slow: $(VENV)/.test
	$(PYTEST) -m slow

test-kernels: $(VENV)/.test
	$(AVX2) $(BIN)/pytest $(KERNEL_TESTS)
	ATEN_CPU_CAPABILITY=default $(BIN)/pytest $(KERNEL_TESTS)

# Smoke runs, whose numbers mean nothing; that of bulk needs the data of benchmarks/README.md.
benchmarks: $(addprefix benchmark-, paired confounder speed bulk)

benchmark-%: $(VENV)/.package
	$(BIN)/python -m benchmarks.$* --quick

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# Pages of names that are gone would be warned of.
docs: $(VENV)/.dev
	rm -rf docs/generated
	$(BIN)/sphinx-build --quiet --builder html --fail-on-warning --keep-going --fresh-env docs docs/_build/html

# Needs the network: every link of the documentation is followed.
links: $(VENV)/.dev
	$(BIN)/sphinx-build --quiet --builder linkcheck --keep-going docs docs/_build/links

figures: $(VENV)/.dev
	MPLBACKEND=agg $(BIN)/python docs/figures.py

tutorials: $(VENV)/.dev
	$(BIN)/jupyter nbconvert --to notebook --execute --output-dir build/tutorials tutorials/*.ipynb

# The command line must answer before torch is there, so the wheel is tried with typer alone.
package: $(VENV)/.dev
	rm -rf dist build/wheel-venv
	$(BIN)/python -m build
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet typer
	build/wheel-venv/bin/python -m pip install --quiet --no-deps dist/*.whl
	build/wheel-venv/bin/scovert --help
	rm -rf build/wheel-venv

clean:
	rm -rf build demo dist docs/_build docs/generated
	rm -rf .import_linter_cache .pytest_cache .ruff_cache

# torch comes first and alone, at the version of constraints.txt: what follows finds it there.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(INSTALL) torch
	touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml
	$(INSTALL) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.package
	$(INSTALL) --group test
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(INSTALL) --group dev
	touch $@
