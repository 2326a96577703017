# make demo    a flake to a seed image, and an offline build in it, on this machine
# make test    sets everything up and runs all tests
# See README.md.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup setup-demo demo test interop lint bench clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@printf 'make interop what needs programs built from Go modules\nmake lint    ruff, mypy\nmake bench   the benchmarks, into bench/RESULTS.md\nmake setup   the command in .venv, the programs that Debian offers\n'

setup: .venv/.ready
	@tools/install-debian demo test

setup-demo: .venv/.ready
	@tools/install-debian demo

.venv/.ready: pyproject.toml uv.lock
	@tools/make-venv $(PYTHON)
	@touch $@

# What bin/nix-seed installs where it is run from a checkout, by the action above all.
bin/requirements.txt: pyproject.toml uv.lock | .venv/.ready
	@tools/export-requirements >$@.new && mv $@.new $@

demo: setup-demo
	@tools/demo

test: setup
	@pytest -q -m 'not interop' $(PYTEST)

interop: setup
	@tools/install-debian interop
	@pytest -q -m interop $(PYTEST)

lint: .venv/.ready
	@ruff check .
	@ruff format --check .
	@mypy

bench: setup
	@python bench/run.py

clean:
	rm -rf .venv .demo .tools
