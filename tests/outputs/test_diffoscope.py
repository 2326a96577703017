"""``nix-seed outputs check`` where diffoscope is installed: what it shows, and what bounds it."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nix_seed.cli.outputs.outputs import report_json, report_lines
from nix_seed.core.errors import CheckedFalse, CouldNotCheck
from nix_seed.formats.nix.nar import NarEntry
from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image import diffoscope
from nix_seed.outputs import compare
from nix_seed.outputs.check import check_outputs
from nix_seed.outputs.compare import show_nars
from nix_seed.outputs.rules.findings import OutputFinding
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.report.page.outputs import outputs_page
from support.nars import Directory, NarFile, Symlink, Tree, dump
from support.outputs import OutputsWorld, file_tree
from support.registries import needs
from support.trust import COMMIT

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def program() -> str:
    needs("bwrap", "bubblewrap")
    return needs("diffoscope", "diffoscope-minimal")


def difference(program: str, one: Tree, other: Tree) -> str:
    return show_nars(program, dump(one), dump(other))


def checked(root: Path) -> tuple[OutputFinding, str]:
    """Alice and Carol got different libraries: what is found of it, and the page."""
    world = OutputsWorld(root / "world")
    world.build("alice")
    world.build("carol", {"library": file_tree(lib="the library", about="built <at> 13:00\n")})
    by = verifiers_of(load_policy(world.write_policy(), NOW))
    report = check_outputs(by, [LayoutReference(str(world.directory))], COMMIT)
    [found] = [each for each in report.outputs if each.begins]
    assert [file.file for file in found.files] == ["about"]
    assert report_json(report)["outputs"][0].keys() >= {"unread", "diffoscope"}
    return found, outputs_page(report, NOW) + "\n".join(report_lines(report))


def test_it_shows_what_differs(program: str, tmp_path: Path) -> None:
    found, printed = checked(tmp_path)
    assert found.unread == ""
    assert "--- first/about" in found.diffoscope.replace("│ ", "")
    assert "-built <at> 13:00" in found.diffoscope
    assert "+version 1" in found.diffoscope
    assert "As diffoscope shows it" in printed
    assert "-built &lt;at&gt; 13:00" in printed
    assert "    │ -built <at> 13:00" in printed


def test_without_it_files_are_named_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nix_seed.outputs.check.diffoscope_at_hand", lambda: None)
    found, printed = checked(tmp_path)
    assert (found.unread, found.diffoscope) == ("", "")
    assert "diffoscope" not in printed


def fake(root: Path, script: str) -> str:
    """A diffoscope that does what *script* says."""
    path = root / "bin/diffoscope"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_one_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("bwrap", "bubblewrap")
    seconds = f"300.{os.getpid()}"
    endless = fake(tmp_path, f"sleep {seconds} &\nwait")
    monkeypatch.setattr(diffoscope, "_SECONDS", -9.5)
    monkeypatch.setattr("nix_seed.outputs.check.diffoscope_at_hand", lambda: endless)
    found, printed = checked(tmp_path)
    assert "diffoscope took more than" in found.unread
    assert "diffoscope took more than" in printed
    for _ in range(100):
        done = subprocess.run(["pgrep", "-f", f"^sleep {seconds}"], check=False)
        if done.returncode == 1:
            return
        time.sleep(0.05)
    pytest.fail("what it started still runs")


def test_it_reaches_neither_a_network_nor_this_users_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("bwrap", "bubblewrap")
    secret = tmp_path / "secret"
    secret.write_text("the key")
    monkeypatch.setenv("TOKEN", "the token")
    tries = [
        f"cat {secret} $HOME/.ssh/* {Path.home()}/*",
        "env; cat /proc/1/environ",
        "tail -n +3 /proc/net/dev",
        f"echo x > {secret}; echo x > first || echo denied",
        "touch /usr/x /x-was-here || echo denied",
        f"rm said errors || echo denied; ln -s {secret} $TMPDIR/said",
    ]
    program = fake(tmp_path, "{ " + "\n".join(tries) + "\n} 2>&1\nexit 1")
    shown = difference(program, NarFile(b"one"), NarFile(b"two"))
    assert "the key" not in shown
    assert "the token" not in shown
    assert shown.count("denied\n") + shown.endswith("denied") == 3, shown
    assert [line for line in shown.splitlines() if ": " in line and "lo:" in line], shown
    assert not [line for line in shown.splitlines() if "eth0" in line]
    assert secret.read_text() == "the key"
    assert not Path("/x-was-here").exists()


@pytest.mark.parametrize("target", ["/etc", "/", "/tmp"])
def test_an_output_that_is_a_link_opens_nothing_to_it(target: str, tmp_path: Path) -> None:
    """What bubblewrap binds it follows, and an output may be a link to anywhere."""
    needs("bwrap", "bubblewrap")
    program = fake(tmp_path, "readlink first; ls first/ first/etc\nexit 1")
    with TemporaryDirectory() as users:
        shown = difference(program, Symlink(os.fsencode(target)), NarFile(b"a file"))
    names = {*shown.split()}
    assert target in names
    assert names.isdisjoint({"passwd", "root", Path(users).name}), shown


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [
        (None, "there is no bubblewrap to confine it"),
        ("echo No permissions >&2; exit 1", "in its sandbox, with exit code 1: No permissions"),
    ],
    ids=["none", "forbidden"],
)
def test_where_nothing_confines_it_it_is_not_run(
    sandbox: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake(tmp_path, f"touch {tmp_path}/was-run")
    if sandbox is not None:
        (tmp_path / "bin/bwrap").write_text(f"#!/bin/sh\n{sandbox}\n")
        (tmp_path / "bin/bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("nix_seed.outputs.check.diffoscope_at_hand", lambda: program)
    found, printed = checked(tmp_path)
    assert words in found.unread
    assert words in printed
    assert not (tmp_path / "was-run").exists()


def test_programs_and_links_and_odd_names(program: str) -> None:
    one: dict[bytes, Tree] = {
        b"bin": Directory({b"run": NarFile(b"#!/bin/sh\necho 1\n", executable=True)}),
        b"link": Symlink(b"/etc/passwd"),
        b"up": Symlink(b"../../../../etc"),
        b"\x1b[31m": NarFile(b"one\n"),
    }
    other = one | {
        b"link": Symlink(b"/etc/shadow"),
        b"up": Symlink(b"../../../../root"),
        b"\x1b[31m": NarFile(b"two\n"),
    }
    shown = difference(program, Directory(one), Directory(other))
    assert "/etc/passwd" in shown
    assert "+two" in shown
    assert "\x1b" not in shown
    assert "root:" not in shown, "no link is followed"
    assert difference(program, Directory(one), Directory(one)) == ""


def test_an_archive_in_it_is_opened(program: str) -> None:
    import gzip

    one, other = (gzip.compress(text, mtime=0) for text in (b"inside one\n", b"inside two\n"))
    assert "+inside two" in difference(program, NarFile(one), NarFile(other))


def test_what_it_says_is_bounded(program: str) -> None:
    one, other = (b"".join(b"%d %d\n" % (n, m) for n in range(30_000)) for m in (1, 2))
    assert len(difference(program, NarFile(one), NarFile(other))) <= (64 << 10) + 20


def test_what_is_too_large_is_not_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compare, "LARGEST_SHOWN", 10)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(CouldNotCheck, match="is given outputs of up to"):
        difference("diffoscope", NarFile(b"x" * 11), NarFile(b"y"))
    with pytest.raises(CheckedFalse, match="is no NAR"):
        show_nars("diffoscope", [b"nothing of the kind" * 10], dump(NarFile(b"y")))
    needs("bwrap", "bubblewrap")
    with pytest.raises(CouldNotCheck, match="exit code"):
        difference("/bin/false", NarFile(b"x"), NarFile(b"y"))
    assert [*tmp_path.iterdir()] == []


def test_where_case_makes_no_difference_nothing_is_written_through_a_link(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On such a disk a link and a file may have one name; here they are given one."""
    (tmp_path / "mine").write_text("mine")
    entries = [
        NarEntry(b"", "directory"),
        NarEntry(b"a", "symlink", head=os.fsencode(tmp_path / "mine")),
        NarEntry(b"a", "file", 4, head=b"evil"),
    ]
    monkeypatch.setattr(compare, "read_nar", lambda *_: iter(entries))
    with pytest.raises(CouldNotCheck, match="unpacking for diffoscope"):
        show_nars("diffoscope", [], [])
    assert (tmp_path / "mine").read_text() == "mine"
