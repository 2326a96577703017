"""What spares the tests waiting does spare them: it goes by names of modules, which may move."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from nix_seed.registry.errors import Patience, Unreachable
from support.quick.sitecustomize import PATIENT

# Two seconds, four times; spared, less than a fifth of one.
SLOW = "Patience(base=2, longest=2, chance=lambda: 1.0)"
PROGRAM = f"""
from nix_seed.registry.errors import Patience, Unreachable
def fail(): raise Unreachable("away")
try: {SLOW}.retry(fail)
except Unreachable: print("gave up")
"""


def test_another_attempt_hardly_waits() -> None:
    def fail() -> None:
        raise Unreachable("away")

    begun = time.monotonic()
    with pytest.raises(Unreachable):
        Patience(base=2, longest=2, chance=lambda: 1.0).retry(fail)
    assert time.monotonic() - begun < 8


def test_nor_does_it_in_what_tests_start() -> None:
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b"gave up\n"
    assert time.monotonic() - begun < 8


def test_each_module_named_is_there_and_waits() -> None:
    for name in PATIENT:
        assert "sleep(" in Path(str(import_module(name).__file__)).read_text(), name
