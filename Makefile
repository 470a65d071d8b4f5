# Two commands do everything: `make demo` and `make test`. Both make the environment they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Other people's packages only as .ci/lock has pinned them, by the hashes of their files; then our own,
# built with what is among them.
LOCKED := $(PIP_INSTALL) --require-hashes -r
OWN := $(PIP_INSTALL) --no-deps --no-build-isolation -e .

.PHONY: demo test smoke thorough soak year identity bench lint types check docs clean

demo: $(VENV)/.run
	$(BIN)/enroll demo demo

# Compiled tests and modules are kept for the next time, whatever the environment says: each of the
# workers compiles them all.
unexport PYTHONDONTWRITEBYTECODE

# More workers than most machines have cores: many tests wait for a disk, a call or a process.
WORKERS ?= 6
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not benchmark and not thorough"

# What is real and long, and of which `make test` has a part or nothing: every boundary at which a command can
# be killed, say; nights that go wrong, and which alerts fire; the image that Buildah makes of
# docs/container/Containerfile on a root by mmdebstrap, and nights of its pods, which need root.
thorough: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m thorough

# The benchmarks at a tiny size: that they still run, not what they measure.
smoke: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m benchmark

# Twenty archives, each through faults and kills: some 25 minutes. make soak SEEDS=1 is one.
# DATABASE=local has the ledgers in a PostgreSQL server that is started for them, and killed.
SEEDS ?= 20
DATABASE ?=
IN_DATABASE := $(if $(DATABASE),--database $(DATABASE))
soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py --seeds $(SEEDS) $(IN_DATABASE)

# A year of nights of a company of 500: some 20 minutes. make year NIGHTS=30 is a month.
NIGHTS ?= 365
year: $(VENV)/.dev
	$(BIN)/python benchmarks/year.py --nights $(NIGHTS) $(IN_DATABASE)

# People under two ids and photos under the wrong id among 20,000, looked for: less than ten
# minutes. make identity PEOPLE=2000 FAULTS=50 is a minute.
PEOPLE ?= 20000
FAULTS ?= 500
identity: $(VENV)/.dev
	$(BIN)/python benchmarks/identity.py --people $(PEOPLE) --faults $(FAULTS)

# What enroll costs and how fast it is, beside what a user would pick instead: a quarter of an hour.
# make bench SIZE=full takes two hours or so, and 8 GB in bench-results.
SIZE ?= quick
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/performance.py --size $(SIZE)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

check: lint types test smoke thorough

# The site, in build/site. A broken link is an error, and nothing is read from the network.
docs: $(VENV)/.docs
	$(BIN)/python docs/build_site.py

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("enroll needs Python 3.11 or newer; try make PYTHON=python3.13" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml .ci/locked-run.txt
	$(LOCKED) .ci/locked-run.txt
	$(OWN)
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml .ci/locked-dev.txt .ci/locked-source.txt
	$(LOCKED) .ci/locked-source.txt
	$(PIP_INSTALL) --no-build-isolation --require-hashes -r .ci/locked-dev.txt
	$(OWN)
	touch $@ $(VENV)/.run

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml .ci/locked-docs.txt
	$(LOCKED) .ci/locked-docs.txt
	$(OWN)
	touch $@

clean:
	rm -rf $(VENV) demo bench-results build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
