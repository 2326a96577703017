"""Every part of the benchmark runs, on something small; nothing is asserted of speed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.distribution import require_nix
from support.engines import need
from support.registries import needs

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.context import Context, working
from bench.run import PARTS, head, measure
from bench.table import Section, Verdict, document, markdown

# With the peers it takes a minute and more, and some of them are built from Go modules.
pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    """One context for all parts, so that the small flake is made once."""
    with working(lambda _line: None, quick=True) as made:
        yield made


NEEDS = {
    "blobs": ("nix", "zstd"),
    "push": ("nix", "docker-registry"),
    "first-build": ("nix", "docker-registry", "bwrap"),
    "unpack": ("nix", "docker-registry", "curl", "zstd"),
    "shaped": ("nix", "docker-registry"),
}
FIRST = {
    "blobs": "nix-seed, zstd",
    "push": "nix-seed build --push",
    "planning": "plan 200 paths",
    "history": "ours, on the previous image",
    "first-build": "1 Gbit/s, 0 ms",
    "unpack": "nix-seed hydrate",
    "shaped": "nix-seed build --push",
    "verify": "verify, 3 builders x 4 systems, offline, start-up included",
}


@pytest.mark.parametrize("part", [*FIRST])
def test_part_runs(part: str, context: Context) -> None:
    for program in NEEDS.get(part, ()):
        if program == "nix":
            require_nix()
        else:
            needs(program, program)
    section = measure(part, context)
    if part in ("shaped", "first-build") and not section.rows:
        need("tc", "iproute2")
        pytest.skip(" ".join(section.notes))
    assert section.rows[0][0] == FIRST[part]
    assert all(len(row) == len(section.columns) for row in section.rows)
    # What is small says nothing of what is wanted.
    assert not section.verdicts


def test_a_push_sends_only_what_changed(context: Context) -> None:
    require_nix()
    needs("docker-registry", "docker-registry")
    section = measure("push", context)
    sent = section.columns.index("sent, MB")
    ours = section.rows[0]
    again = ours[section.columns.index("again, s") + 2]
    assert float(again) < float(ours[sent]) / 2
    assert section.notes[0].startswith("Ours read 2 of ")


def test_the_report_shows_verdicts_first_and_says_why_one_is_missed() -> None:
    verdicts = (
        Verdict("work", "a | b", "2.0 ×", "1.0 ×", False, "it is slow"),
        Verdict("other", "–", "–", "0.5 s", None),
    )
    section = Section("Part", "About.", ("contender", "s"), (("ours", "1"),), verdicts, ("note",))
    report = document("# Results", [section])
    assert "| work | a \\| b | 2.0 × | 1.0 × | **no** |" in report
    assert "| other | – | – | 0.5 s | not measured |" in report
    assert "* **work**, against a | b: it is slow" in report
    assert report.index("| work |") < report.index("## Part") < report.index("* note")
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"


def test_the_head_names_no_machine() -> None:
    name = subprocess.run(["uname", "-n"], capture_output=True, text=True, check=True).stdout
    assert name.strip() not in head()
    assert str(Path.home()) not in head()
    assert str(ROOT) not in head()


def test_the_command_writes_a_quick_report(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    command = [sys.executable, str(ROOT / "bench/run.py"), "--quick", "--only", "planning"]
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("planning:\n")
    assert "| plan 200 paths |" in output.read_text()


def test_an_unknown_part_is_refused_by_name() -> None:
    command = [sys.executable, str(ROOT / "bench/run.py"), "--only", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(part in done.stderr for part in PARTS)
