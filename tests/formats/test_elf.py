"""Which loader an ELF file names: real programs, both sizes, both orders, and what is damaged."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nix_seed.formats.elf import find_loader
from support.elf import elf
from support.registries import needs


def loader_of(data: bytes) -> str:
    return find_loader(io.BytesIO(data))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_loader_is_found(bits: int, order: str) -> None:
    for loader in (b"/lib/ld.so", b"/nix/store/x-glibc/lib/ld-linux.so.2"):
        assert loader_of(elf(loader, bits=bits, order=order)) == loader.decode()
    assert loader_of(elf(None, bits=bits, order=order)) == ""


@pytest.mark.parametrize("name", ["sh", "env", "git"])
def test_of_real_programs(name: str) -> None:
    patchelf = needs("patchelf", "patchelf")
    path = needs(name, "git")
    said = subprocess.check_output([patchelf, "--print-interpreter", path], text=True)
    with Path(path).open("rb") as file:
        assert find_loader(file) == said.strip()


def test_a_static_program_has_none() -> None:
    with Path(needs("busybox", "busybox-static")).open("rb") as file:
        assert find_loader(file) == ""


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_whatever_is_damaged_names_none_and_breaks_nothing(start: bytes, rest: bytes) -> None:
    assert loader_of(start) == "" or start.startswith(b"\x7fELF")
    for bits in (1, 2):
        loader_of(b"\x7fELF" + bytes([bits, 1]) + rest)


@given(st.integers(0, 120), st.integers(0, 255))
def test_no_byte_of_the_headers_can_be_changed_to_break_it(where: int, to: int) -> None:
    good = bytearray(elf(b"/lib/ld.so"))
    good[where] = to
    loader_of(bytes(good))
    loader_of(bytes(good[: where + 1]))
