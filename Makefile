# make install nix-seed on your PATH, for your own flake: needs Python 3.11 to 3.14, and Nix
# make demo    a flake to a seed image, and an offline build in it, on this machine (Debian)
# make check   the linters, and the tests that need no other program, in a minute
# make test    sets everything up and runs all tests (Debian)
# See README.md.

PYTHON ?= python3
BIN := .venv/bin
USERS_PATH := $(PATH)
export PATH := $(CURDIR)/$(BIN):$(PATH)

PREFIX ?= $(HOME)/.local

.PHONY: help install setup setup-demo demo demo-trust check test interop lint bench clean

help:
	@sed -n 's/^# make/make/p' Makefile
	@printf 'make demo-trust three builders, one tampered with; a release, its audit, a forged one\nmake interop what needs programs built from Go modules\nmake arm64   the compiler of the example, on an emulated ARM64\nmake lint    ruff, mypy\nmake bench   the benchmarks, into bench/RESULTS.md\nmake field   NIXPKGS=DIR FLAKES=DIR: seeds of published flakes; docs/field.md\nmake reference the reference and the manual pages, from the code\nmake site   the documents as a static site, in .site\nmake setup   what demo and tests need: .venv, the programs that Debian offers\n'

# The command alone, run from this checkout, in an environment of its own.
install:
	@PATH="$(USERS_PATH)" $(PYTHON) -IS -c 'import sys; sys.path.insert(0, "bin"); from launch import install; install(*sys.argv[1:])' \
	  "$(CURDIR)" "$(PREFIX)"
	@echo "installed: $(PREFIX)/bin/nix-seed, which runs this checkout"
	@PATH="$(USERS_PATH)" command -v nix-seed >/dev/null || \
	  echo "hint: put $(PREFIX)/bin on your PATH"

# Programs first: all that is missing is named at once.
setup:
	@PYTHON="$(PYTHON)" tools/install-debian venv demo test
	@$(MAKE) --no-print-directory -s .venv/.ready

setup-demo:
	@PYTHON="$(PYTHON)" tools/install-debian venv demo
	@$(MAKE) --no-print-directory -s .venv/.ready

.venv/.ready: pyproject.toml uv.lock
	@tools/make-venv $(PYTHON)
	@touch $@

# What bin/nix-seed installs where it is run from a checkout, by the action above all.
bin/requirements.txt: pyproject.toml uv.lock | .venv/.ready
	@tools/export-requirements >$@.new && mv $@.new $@

# Commands, variables, exit codes, recipe and policy, and the manual pages: from the code.
.PHONY: reference
reference: .venv/.ready
	@python tools/make-reference

# The documents as a static site, in .site: it fetches nothing.
.PHONY: site
site: .venv/.ready
	@sphinx-build -q -W --keep-going -c tools/site docs .site
	@echo .site/index.html

demo: setup-demo
	@tools/demo

# On what demo left; makes that first where it is not there.
demo-trust: setup-demo
	@[ -e "$${NIX_SEED_DEMO:-.demo}/after.json" ] || tools/demo
	@tools/demo-trust

# For two cores: a third of the time of tests that start programs is waiting, hence three processes.
# The tests of a file, and of some directories, stay in one: they share what they made. What takes
# longest begins first (tests/support/kinds.py), so that all end at about the same time.
WORKERS ?= 3
RUN_TESTS = pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 --durations-min=1

check: .venv/.ready
	@$(MAKE) --no-print-directory -j2 --output-sync lint pure

# Pure tests wait for nothing.
.PHONY: pure
pure: WORKERS = 2
pure: .venv/.ready
	@tools/in-memory 1 $(RUN_TESTS) --durations=5 -m 'check and not slow and not interop' $(PYTEST)

# A run has some GB at once; the programs that tests start need the rest.
test: setup
	@tools/in-memory 12 $(RUN_TESTS) -m 'not interop and not arm64' $(PYTEST)

interop: setup
	@tools/install-debian interop
	@tools/in-memory 12 $(RUN_TESTS) -m interop $(PYTEST)

# A compiler and its friends under qemu, where the machine is no ARM64 itself.
.PHONY: arm64
arm64: setup
	@pytest -q --durations=25 --durations-min=1 -m arm64 $(PYTEST)

.PHONY: fuzz
fuzz: .venv/.ready
	@tools/fuzz $(FUZZ)

lint: .venv/.ready
	@ruff check .
	@ruff format --check .
	@mypy

# Plans seeds of flakes that people published: clones in FLAKES, on the tree NIXPKGS.
.PHONY: field
field: .venv/.ready
	@tools/field "$(NIXPKGS)" "$(FLAKES)" $(ONLY)

bench: setup
	@python bench/run.py

clean:
	rm -rf .venv .demo .site .tools
