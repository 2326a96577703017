"""Workflow commands: what is quoted cannot become one; and the hashes Nix complains of."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from nix_seed.core.safe_text import safe_text
from nix_seed.setup.rules.ci_words import (
    Mismatch,
    annotation,
    find_mismatches,
    output_lines,
    start_group,
)

HOSTILE = [
    "::error::owned",
    "x\n::set-env name=PATH::/evil",
    "x\r::add-mask::secret",
    "x\r\n::stop-commands::x",
    "  ::warning::indented",
    "\u00a0::error::after a space that is none",
    "##[add-path]/evil",
    "text ##[set-env name=x]y",
    "x\u2028::error::line separator",
    "x\x85::error::next line",
    "x\x0b::error::vertical tab",
    "a,line=1::b",
    "%0A::error::encoded",
    "\x1b[31m::error::coloured",
]


def commands(text: str) -> list[str]:
    """The lines that GitHub's runner would take for commands, both spellings of them.

    It splits at every kind of break that .NET knows, trims, and looks for ``::`` at the beginning
    or for ``##[`` anywhere (actions/runner, ActionCommand.cs).
    """
    lines = re.split(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text)
    return [line for line in lines if line.strip().startswith("::") or "##[" in line]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_printed_is_no_command(text: str) -> None:
    assert commands(safe_text(text)) == []


@given(st.text(alphabet=st.sampled_from(":#[]% \t\n\r\x0b\x85\u2028ab"), max_size=40))
def test_nothing_that_is_printed_is_a_command(text: str) -> None:
    assert commands(safe_text(text)) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_an_annotation_is_one_command_whatever_it_quotes(text: str) -> None:
    line = annotation("error", text, text, file=text, line=3)
    assert len(commands(line)) <= 1
    assert "\n" not in line
    assert "\r" not in line
    # Properties end at the second `::`, and are divided by commas: none of either is the text's.
    head, _, _ = line.removeprefix("::error ").partition("::")
    assert [part.partition("=")[0] for part in head.split(",")] == ["title", "file", "line"]


def test_an_annotation_reads_as_github_documents_it() -> None:
    assert annotation("notice", "A: b, c", "50 %\nnext") == (
        "::notice title=A%3A b%2C c::50 %25%0Anext"
    )
    assert annotation("error", "T", "m", file="flake.nix", line=12) == (
        "::error title=T,file=flake.nix,line=12::m"
    )


def test_a_long_annotation_is_cut() -> None:
    assert len(annotation("error", "T", "x" * 100_000)) < 5000


def test_a_group_has_one_line() -> None:
    for shown in start_group("a\nb\r::error::x", "key", 1).values():
        assert "\n" not in shown
        assert len(commands(shown)) <= 1


@pytest.mark.parametrize("value", ["plain", "a=b", "a<<b", "<<EOF"])
def test_an_output_of_one_line(value: str) -> None:
    assert output_lines("name", value, "d") == f"name={value}\n"


def test_an_output_of_more_lines() -> None:
    assert output_lines("name", "a\nb", "dee") == "name<<dee\na\nb\ndee\n"
    assert output_lines("name", "a\rb", "dee") == "name<<dee\na\rb\ndee\n"


DRV = "/nix/store/zzhy9zl5m8p2dqdp9n8q1xq6wqvc2jmb-source.drv"
FIXED = f"""\
error: hash mismatch in fixed-output derivation '{DRV}':
         specified: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
            got:    sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=
error: 1 dependencies of derivation '/nix/store/x.drv' failed to build
"""
INPUT = (
    "error: NAR hash mismatch in input 'github:owner/repo/abc' (/nix/store/xyz-source), expected "
    "'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=', got "
    "'sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o='"
)
WANTED = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
GOT = "sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o="


def test_a_mismatch_names_its_replacement() -> None:
    [found] = find_mismatches(FIXED)
    assert found == Mismatch(f"fixed-output derivation '{DRV}'", WANTED, GOT)
    assert str(found).endswith(f"replace {WANTED} with {GOT}")


def test_a_mismatch_of_an_input() -> None:
    assert find_mismatches(INPUT) == (Mismatch("input 'github:owner/repo/abc'", WANTED, GOT),)


def test_mismatches_in_colour_and_twice() -> None:
    coloured = FIXED.replace("error:", "\x1b[31;1merror:\x1b[0m").replace(
        DRV, f"\x1b[35m{DRV}\x1b[0m"
    )
    assert len(find_mismatches(coloured + FIXED)) == 1


def test_older_spelling() -> None:
    text = (
        "hash mismatch in fixed-output derivation '/nix/store/a.drv':\n"
        "  wanted: sha256:0000000000000000000000000000000000000000000000000000\n"
        "  got:    sha256:1lqpdd6l3wh9mc6mfq8ksks6mqb0gk7jpvw6x3swnzafhsfqdfg4\n"
    )
    [found] = find_mismatches(text)
    assert found.got == "sha256:1lqpdd6l3wh9mc6mfq8ksks6mqb0gk7jpvw6x3swnzafhsfqdfg4"


def test_no_mismatch() -> None:
    assert find_mismatches("building\nerror: builder failed") == ()
    assert find_mismatches("hash mismatch in " * 20_000) == ()
