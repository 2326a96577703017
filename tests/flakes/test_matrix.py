"""One key from every Nix, however the flake is checked out, and no commit moves it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nix_seed.core.errors import NixFailed
from nix_seed.flake.evaluate import Evaluation, evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.recipe import input_key
from support.distribution import commit
from support.engines import debian_nix
from support.seeds import remove_tree, write_project

OUTPUTS = """
      packages.${system} = rec {
        default = pkgs.runCommand "app" { src = ./src; gen = helper; tools = [ pkgs.zlib ]; } "";
        helper = pkgs.runCommand "helper" { } (builtins.readFile ./gen.sh);
        passed = pkgs.zstd;
      };
      devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.patchelf ]; };
"""
FILES = {"src/a": "a\n", "gen.sh": "true\n"}
# An input that lies in the flake's own tree, which Nix knows since 2.26.
RELATIVE = {
    "sub/flake.nix": '{ inputs.nixpkgs.follows = ""; outputs = { self, ... }: {'
    " lib.text = builtins.readFile ./text; lib.src = ./.; }; }\n",
    "sub/text": "hello\n",
    "src/a": "a\n",
}
RELATIVE_OUTPUTS = """
      packages.${system}.default =
        let sub = inputs.sub.lib; in
        pkgs.runCommand "app" { inherit (sub) text; srcs = [ ./src sub.src ]; } "";
"""


@pytest.fixture(scope="module")
def project(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("matrix") / "project"
    return write_project(where, distribution, OUTPUTS, FILES)


@pytest.fixture(scope="module")
def project_key(project: Path) -> str:
    """What the system's Nix says of the project itself."""
    return key(Nix(), project)


@pytest.fixture(scope="module", params=["the system's", "trixie", "sid"])
def nix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nix]:
    """Nix 2.8 on the machine's store, and newer ones on stores of their own."""
    if request.param == "the system's":
        yield Nix()
        return
    store = tmp_path_factory.mktemp("store")
    yield Nix(store=store, bin_dir=debian_nix(request.param))
    remove_tree(store)


def evaluated(nix: Nix, flake: Path | str) -> Evaluation:
    found = evaluate_flake(nix, str(flake), FlakeChoice(system="x86_64-linux"))
    assert found.ownership.twin.problem is None
    assert found.recipe.walked == ()
    return found


def key(nix: Nix, flake: Path | str) -> str:
    return input_key(evaluated(nix, flake).recipe, {"name": "zstd"}, 64)


def git(directory: Path, *arguments: str | Path) -> None:
    settings = ("-c", "protocol.file.allow=always", "-c", "user.name=T", "-c", "user.email=t@host")
    command = ["git", "-C", str(directory), *settings, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def clone(project: Path, into: Path) -> Path:
    git(project, "clone", "-q", project, into)
    return into


def plain(project: Path, where: Path) -> str:
    return str(clone(project, where / "clone"))


def committed(project: Path, where: Path) -> str:
    made = clone(project, where / "clone")
    (made / "src/a").write_text("another\n")
    (made / "gen.sh").write_text("false\n")
    commit(made, "Change")
    return str(made)


def changed(project: Path, where: Path) -> str:
    made = clone(project, where / "clone")
    (made / "src/a").write_text("changed, not committed\n")
    return str(made)


def link(project: Path, where: Path) -> str:
    (where / "link").symlink_to(clone(project, where / "clone"))
    return str(where / "link")


def worktree(project: Path, where: Path) -> str:
    git(clone(project, where / "clone"), "worktree", "add", "-q", where / "tree")
    return str(where / "tree")


def shallow(project: Path, where: Path) -> str:
    git(project, "clone", "-q", "--depth", "1", f"file://{project}", where / "clone")
    return f"git+file://{where}/clone?shallow=1"


def with_submodule(project: Path, where: Path) -> str:
    made, other = clone(project, where / "clone"), where / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "file").write_text("text\n")
    commit(other, "Start")
    git(made, "submodule", "add", "-q", other, "theirs")
    commit(made, "Add a submodule")
    return str(made)


def no_repository(project: Path, where: Path) -> str:
    shutil.copytree(project, where / "copy", ignore=shutil.ignore_patterns(".git"))
    return f"path:{where}/copy"


def below(project: Path, where: Path) -> Path:
    """Put the flake into a directory of another repository."""
    made = where / "repository"
    shutil.copytree(project, made / "in/here", ignore=shutil.ignore_patterns(".git"))
    git(made, "init", "-q")
    (made / "README").write_text("text\n")
    commit(made, "Start")
    return made


def subdirectory(project: Path, where: Path) -> str:
    return str(below(project, where) / "in/here")


def named_subdirectory(project: Path, where: Path) -> str:
    return f"git+file://{below(project, where)}?dir=in/here"


def changed_subdirectory(project: Path, where: Path) -> str:
    made = below(project, where)
    (made / "in/here/src/a").write_text("changed\n")
    return str(made / "in/here")


@pytest.mark.parametrize(
    "checked_out",
    [
        plain,
        committed,
        changed,
        link,
        worktree,
        shallow,
        with_submodule,
        no_repository,
        subdirectory,
        named_subdirectory,
        changed_subdirectory,
    ],
)
def test_one_key(
    checked_out: Callable[[Path, Path], str],
    nix: Nix,
    project: Path,
    project_key: str,
    tmp_path: Path,
) -> None:
    assert key(nix, checked_out(project, tmp_path)) == project_key


def test_a_strange_name(nix: Nix, project: Path, project_key: str, tmp_path: Path) -> None:
    made = clone(project, tmp_path / "with space, ünïcode")
    if nix.bin_dir is None:
        with pytest.raises(NixFailed) as caught:
            key(nix, made)
        assert "rename it, or use a newer Nix" in (caught.value.hint or "")
        return
    assert key(nix, made) == project_key


# Relative inputs are known since 2.26.
@pytest.mark.parametrize("nix", ["trixie", "sid"], indirect=True)
def test_an_input_in_the_flakes_own_tree(
    nix: Nix, distribution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(nix.bin_dir), prepend=":")
    inputs = ' inputs.sub.url = "path:./sub";'
    project = write_project(
        tmp_path / "project", distribution, RELATIVE_OUTPUTS, RELATIVE, inputs=inputs
    )
    found = evaluated(nix, project)
    assert list(found.recipe.outline.inputs) == ["nixpkgs"]
    before = key(nix, project)
    (project / "sub/text").write_text("other\n")
    assert key(nix, project) == before
    commit(project, "Change what the input holds")
    assert key(nix, project) == before


def test_a_trace_holds_no_step_of_our_own(nix: Nix, distribution: Path, tmp_path: Path) -> None:
    """Newer Nix shows what it was at, down from the code that calls the flake."""
    outputs = "packages.${system}.bad = import ./default.nix;"
    files = {"default.nix": "{ }.missing\n"}
    made = write_project(tmp_path / "made", distribution, outputs, files)
    with pytest.raises(NixFailed) as caught:
        evaluate_flake(nix, str(made), FlakeChoice(system="x86_64-linux"))
    detail = caught.value.detail or ""
    assert "'missing' missing" in detail
    assert "default.nix:1:" in detail
    assert "'outline'" not in detail
    assert "then answer" not in detail
