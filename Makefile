# What people type. Needs Python 3.11 or newer and make; everything else comes into .venv.
#
#   make run                 a witness with the public logs in ./state, and the daemon, until Ctrl-C
#   make run LOGS=none       the same without logs; NAME=witness.example/w1 gives it its name
#   make test                the whole test suite; ARGS="-k merkle" and the like go to pytest

PYTHON ?= python3
VENV   ?= .venv
STATE  ?= state
LOGS   ?= public
NAME   ?= $(shell uname -n)/witness
LISTEN ?= 127.0.0.1:7380
ARGS   ?=

BIN     := $(VENV)/bin
WITNESS := $(BIN)/witness --state $(STATE)

.PHONY: run test lint format types bench bench-short fuzz histories interop mldsa-token clean help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,5p'
	@echo "Further: lint, format, types, bench, bench-short, fuzz, histories, interop, mldsa-token, clean."

# --- What is installed; made again only when the dependencies change ---

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11" >&2; \
	    echo "hint: name a newer one: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# --- The witness ---

# The state is made once and never made again: without it this is a new witness, with it the same one.
$(STATE)/witness.yaml: | $(VENV)/.installed
	$(WITNESS) init --name '$(NAME)' --logs '$(LOGS)'

run: $(VENV)/.installed $(STATE)/witness.yaml
	@exec $(WITNESS) run --listen $(LISTEN)

# --- Checks ---

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.bench $(ARGS)

bench-short: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.bench --short --no-save $(ARGS)

# The long forms: hundreds of kills, long random walks. Hours are welcome.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --campaign -m campaign $(ARGS)

# Thousands of random lives of a witness against real cores: about half an hour on two cores. A failure names its
# seed, and ARGS="--seed N" plays that one again.
histories: $(VENV)/.installed-dev
	$(BIN)/python -m tests.histories $(ARGS)

# Against programs in Go, which a toolchain must be there to build; without one the tests skip and say so.
interop: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/interop -rs $(ARGS)

# A PKCS #11 token in software that signs with ML-DSA-44, for tests/core/keystore/test_mldsa_token.py: ten minutes.
mldsa-token: $(VENV)/.installed-dev
	tests/core/keystore/mldsa_token.sh .mldsa-token $(CURDIR)/$(BIN)/python

# Never the state: it is a witness's identity.
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .mldsa-token build dist
