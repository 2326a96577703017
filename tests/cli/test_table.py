from __future__ import annotations

import pytest

from nix_seed.cli.say import error_lines, folded, hanging, table
from nix_seed.core.errors import NixFailed
from nix_seed.core.words import plural, shortened

TITLES = ["layer", "tier", "unpacked", "pull", "holds"]
ROWS = [
    ["1", "base", "1.2 MB", "pull", "bash-5.2, coreutils-9.4, glibc-2.38 and 4 more"],
    ["12", "toolchain", "382.9 MB", "", "a-package-of-a-very-long-name-that-fits-no-line-1.0"],
]


def test_off_a_terminal_a_row_is_a_line_and_nothing_is_cut() -> None:
    lines = list(table(TITLES, ROWS, right=(0, 2)))
    assert lines == [
        "layer  tier       unpacked  pull  holds",
        "    1  base         1.2 MB  pull  bash-5.2, coreutils-9.4, glibc-2.38 and 4 more",
        "   12  toolchain  382.9 MB        a-package-of-a-very-long-name-that-fits-no-line-1.0",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_no_column_vanishes(width: int) -> None:
    lines = list(table(TITLES, ROWS, right=(0, 2), width=width))
    # A name that is wider than its column is broken, not cut.
    shown = "".join(line.strip() for line in lines)
    for word in (*TITLES, *(word for row in ROWS for cell in row for word in cell.split())):
        assert word in shown
    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith("    1  base         1.2 MB  pull  bash-5.2,")


def test_what_is_foreign_is_harmless() -> None:
    assert "\x1b" not in "\n".join(table(["a", "b"], [["\x1b[2J", "x\ny"]], width=60))


def test_text_hangs_below_itself() -> None:
    text = "one two three four five six seven eight nine"
    assert list(hanging("why: ", text, 30)) == [
        "why: one two three four five",
        "     six seven eight nine",
    ]
    assert list(hanging("a very long beginning: ", text, 30)) == [
        "a very long beginning:",
        "    one two three four five",
        "    six seven eight nine",
    ]
    assert list(hanging("why: ", "one two", None)) == ["why: one two"]


def test_counts_are_words() -> None:
    assert plural(1, "builder") == "1 builder"
    assert plural(0, "builder") == "0 builders"
    assert plural(1, "entry", "entries") == "1 entry"
    assert plural(2, "entry", "entries") == "2 entries"
    assert shortened(["a", "b", "c"], 3) == "a, b, c"
    assert shortened(["a", "b", "c"], 2) == "a, b and 1 more"
    assert shortened(["a", "b", "c"], None) == "a, b, c"


def test_an_error_folds_on_words_and_keeps_commands_and_foreign_words_whole() -> None:
    error = NixFailed(
        "reading the flake of a stranger: error: hint: run this instead",
        detail="error: at /nix/store/00000000000000000000000000000000-source/flake.nix:33:1:",
        hint="what Git does not track is not seen: git -C /home/me/a/project add flake.nix;"
        " or look at it by `nix-seed plan . --why flake.nix`, and at the runbook",
    )
    assert list(folded(error_lines(error), 40)) == [
        "error: reading the flake of a stranger:",
        "       error: hint: run this instead",
        "  | error: at /nix/store/00000000000000000000000000000000-source/flake.nix:33:1:",
        "hint: what Git does not track is not",
        "      seen:",
        "      git -C /home/me/a/project add flake.nix;",
        "      or look at it by",
        "      `nix-seed plan . --why flake.nix`,",
        "      and at the runbook",
    ]
    assert list(folded(error_lines(error), None)) == list(error_lines(error))
