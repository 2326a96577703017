"""What one meets in a day's work: the hint that is right, names in short, pipes, terminals."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nix_seed.cli.options import commit_named, image_or_commit
from nix_seed.core.errors import InputError, NixFailed
from nix_seed.flake.evaluate import evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.formats.oci.reference import parse_reference
from nix_seed.image.index import build_index
from nix_seed.registry.open import Stores
from support.distribution import commit, nix, nix_env
from support.engines import debian_nix
from support.programs import need
from support.seed_images import seed_image
from support.seeds import COMMAND
from support.terminal import in_terminal
from support.trust import World


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository with one commit, tagged v1, and a flake that Git does not track."""
    need("git")
    place = tmp_path / "project"
    place.mkdir()
    for words in (
        ("init", "--quiet"),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "-mx"),
        ("tag", "v1"),
    ):
        subprocess.run(["git", "-C", str(place), *words], check=True)
    (place / "flake.nix").write_text("{ outputs = _: { }; }\n")
    return place


def head(repository: Path) -> str:
    command = ["git", "-C", str(repository), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commits_are_named_as_git_knows_them(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    whole = head(repository)
    for name in ("HEAD", "v1", whole[:7], whole):
        assert str(commit_named(name)) == whole
        assert image_or_commit(name) == whole
    assert str(commit_named("ab" * 20)) == "ab" * 20, "it need not be here"
    assert image_or_commit("ghcr.io/o/r:v1") == "ghcr.io/o/r:v1"
    for name in ("HEAD~1", "0" * 7, "main/x", "--all", "v1^{tree}", ""):
        with pytest.raises(InputError, match="is no commit of the repository") as caught:
            commit_named(name)
        assert "HEAD" in (caught.value.hint or "")


def test_without_a_repository_a_commit_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="'HEAD' is no commit"):
        commit_named("HEAD")


@pytest.mark.parametrize("scheme", ["", "git+file://"])
def test_a_flake_that_git_does_not_track_is_what_is_said(
    repository: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("nix")
    monkeypatch.setenv("NIX_CONFIG", nix_env()["NIX_CONFIG"])
    nix = Nix(store=repository.parent / "store")
    flake = f"{scheme}{repository}"
    with pytest.raises(NixFailed) as caught:
        nix.metadata(flake)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Nix sees only what Git tracks: git -C ")
    command = caught.value.hint.partition(": ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert nix.metadata(flake).source.name == "source"


def test_a_file_that_git_does_not_track_is_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("nix")
    monkeypatch.setenv("NIX_CONFIG", nix_env()["NIX_CONFIG"])
    (repository / "flake.nix").write_text("{ outputs = _: import ./sub/more.nix; }")
    (repository / "sub").mkdir()
    (repository / "sub/more.nix").write_text("{ packages.x86_64-linux = { }; }")
    subprocess.run(["git", "-C", str(repository), "add", "flake.nix"], check=True)
    nix = Nix(store=repository.parent / "store")
    with pytest.raises(NixFailed) as caught:
        evaluate_flake(nix, str(repository), FlakeChoice(system="x86_64-linux"))
    hint = caught.value.hint or ""
    assert hint == f"Nix sees only what Git tracks: git -C {repository} add sub"
    subprocess.run(["sh", "-c", hint.partition(": ")[2]], check=True)
    with pytest.raises(InputError, match="no input with packages"):
        evaluate_flake(nix, str(repository), FlakeChoice(system="x86_64-linux"))
    # Where another tree lacks a file of that name, Git is not asked for it.
    empty = '"${builtins.path { path = ./.; name = "other"; filter = _: _: false; }}/sub/more.nix"'
    (repository / "flake.nix").write_text(f"{{ outputs = _: import {empty}; }}")
    with pytest.raises(NixFailed) as caught:
        evaluate_flake(nix, str(repository), FlakeChoice(system="x86_64-linux"))
    assert "-other/sub" in (caught.value.detail or "")
    assert "Git tracks" not in (caught.value.hint or "")


@pytest.mark.parametrize("suite", [None, "trixie", "sid"])
def test_a_file_of_a_submodule_is_said_to_be_one(
    suite: str | None, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git tracks the submodule already: to add the file would be the wrong advice."""
    need("nix")
    monkeypatch.setenv("NIX_CONFIG", nix_env()["NIX_CONFIG"])
    library = repository.parent / "library"
    subprocess.run(["git", "init", "-q", str(library)], check=True)
    (library / "more.nix").write_text("{ packages.x86_64-linux = { }; }")
    commit(library, "Start")
    (repository / "flake.nix").write_text("{ outputs = _: import ./lib/more.nix; }")
    allowed = ("git", "-c", "protocol.file.allow=always", "-C", str(repository))
    subprocess.run([*allowed, "submodule", "--quiet", "add", str(library), "lib"], check=True)
    commit(repository, "Have a library")
    programs = debian_nix(suite) if suite else None
    nix = Nix(store=repository.parent / "store", bin_dir=programs)
    with pytest.raises(NixFailed) as caught:
        evaluate_flake(nix, str(repository), FlakeChoice(system="x86_64-linux"))
    hint = f"lib is a submodule, which Nix leaves out: name the flake git+file://{repository}?"
    assert (caught.value.hint or "").startswith(f"{hint}submodules=1; or, for Nix 2.27")


def test_an_input_that_only_another_machine_has_is_said_to_be_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("nix")
    for name in ("NIX_CONFIG", "NIX_USER_CONF_FILES"):
        monkeypatch.setenv(name, nix_env()[name])
    beside = repository.parent / "beside"
    beside.mkdir()
    (beside / "flake.nix").write_text("{ outputs = _: { }; }")
    flake = f'{{ inputs.beside.url = "path:{beside}"; outputs = {{ beside, ... }}: beside; }}'
    (repository / "flake.nix").write_text(flake)
    subprocess.run(["git", "-C", str(repository), "add", "flake.nix"], check=True)
    nix("flake", "lock", cwd=repository)
    commit(repository, "Take what is beside")
    shutil.rmtree(beside)
    with pytest.raises(NixFailed) as caught:
        evaluate_flake(Nix(store=repository.parent / "store"), str(repository))
    hint = caught.value.hint or ""
    assert hint.startswith("an input lies outside of the flake's repository")


def test_an_output_that_a_flake_does_not_have_comes_with_what_to_do(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("nix")
    monkeypatch.setenv("NIX_CONFIG", nix_env()["NIX_CONFIG"])
    (repository / "flake.nix").write_text("{ outputs = _: { }; }")
    subprocess.run(["git", "-C", str(repository), "add", "flake.nix"], check=True)
    asked = ["path-info", "--derivation", "--", f"{repository}#nothing"]
    with pytest.raises(NixFailed) as caught:
        Nix(store=repository.parent / "store").run("nix", asked, "looking for .#nothing")
    assert caught.value.hint == "`nix flake show` lists what the flake has"


def test_a_repository_with_nothing_in_it_is_no_flake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("nix")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    with pytest.raises(NixFailed) as caught:
        Nix(store=tmp_path / "store").metadata(str(tmp_path))
    assert "`nix flake init` makes one" in (caught.value.hint or "")


def refusing(place: Path, said: str) -> Nix:
    """Return a Nix that says *said*, and fails."""
    text = 'case $* in --version) echo "nix (Nix) 2.3.16" ;; *) echo "$SAID" >&2; exit 1 ;; esac'
    (place / "nix").write_text(f'#!/bin/sh\nSAID="{said}"\n{text}\n')
    (place / "nix").chmod(0o755)
    return Nix(bin_dir=place)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("error: unable to download 'https://api.github.com/x': HTTP error 404 ('')", "access-tok"),
        ("error: unable to download 'https://api.github.com/x': Couldn't resolve host", "reaches"),
        (
            "git@x: Permission denied (publickey).\nerror: program 'git' failed",
            "ssh -T",
        ),
        (
            "fatal: could not read Username for 'x'\nerror: program 'git' failed",
            "ls-remote",
        ),
        ("warning: unable to download 'https://cache.example/nix-cache-info'\nerror: x", ""),
    ],
)
def test_what_is_out_of_reach_comes_with_what_to_do(said: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(NixFailed) as caught:
        refusing(tmp_path, said).metadata("github:owner/private")
    assert caught.value.detail == said
    assert hint in (caught.value.hint or "")
    assert bool(hint) is bool(caught.value.hint)


@pytest.mark.parametrize(
    "said",
    [
        "error: 'flake' is not a recognised command",
        "error: unrecognised flag '--log-format'",
        "error: This version of Nixpkgs requires Nix >= 2.18, please upgrade",
        "error: attribute 'fetchTree' missing, at /nix/store/x/flake.nix:1:2, in builtins",
    ],
)
def test_an_old_nix_is_called_old(said: str, tmp_path: Path) -> None:
    with pytest.raises(NixFailed) as caught:
        refusing(tmp_path, said).metadata("github:owner/repo")
    assert caught.value.detail == said
    hint = caught.value.hint or ""
    assert hint.startswith("this Nix is too old for that (nix (Nix) 2.3.16): install a newer one")
    assert "nixos.org/download" in hint


def test_an_index_names_every_image_that_lacks(tmp_path: Path) -> None:
    seed_image(tmp_path / "there", "seed")
    images = [f"oci:{tmp_path}/{name}:seed" for name in ("there", "one", "two")]
    target = parse_reference(f"oci:{tmp_path}/index:latest")
    with pytest.raises(InputError, match="2 images of the index are not there") as caught:
        build_index(Stores(), target, list(map(parse_reference, images)))
    assert caught.value.message.endswith("nothing was published")
    lines = (caught.value.detail or "").splitlines()
    assert [line.partition(": ")[0] for line in lines] == images[1:]
    assert "nix-seed build --push REF" in (caught.value.hint or "")
    with pytest.raises(InputError, match="1 image of the index is not there"):
        build_index(Stores(), target, list(map(parse_reference, images[:2])))
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    "arguments",
    [["doctor", "-q"], ["doctor", "--json"], ["policy", "show", "POLICY"]],
    ids=" ".join,
)
def test_a_reader_that_has_gone_ends_a_command_as_it_would_any_other(
    arguments: list[str], tmp_path: Path
) -> None:
    """141, as SIGPIPE gives; never 1, which is an answer. And not a word about it."""
    policy = str(World(tmp_path).write_policy())
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, *(policy if each == "POLICY" else each for each in arguments)],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_fits(columns: int) -> None:
    for arguments in (["--help"], ["run", "--help"], ["build", "--help"]):
        shown = in_terminal([*COMMAND[:3], *arguments], columns)
        assert shown.code == 0
        assert max(map(len, shown.lines)) <= columns, shown.plain


def test_errors_fit_the_terminal() -> None:
    shown = in_terminal([*COMMAND[:3], "inspect", "hello"], 60)
    assert shown.code == 2
    assert max(map(len, shown.lines)) <= 60, shown.plain
    assert "      image layout on disk oci:hello, otherwise" in shown.lines
