"""Random commits to files of a project never move the key; each file may be of any kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from nix_seed.flake.evaluate import evaluate_flake
from nix_seed.flake.nix import Nix
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.recipe import input_key
from support.distribution import commit
from support.seeds import write_project

OUTPUTS = """
      packages.${system} =
        let
          read = name: builtins.readFile (./. + "/${name}");
          listed = builtins.toJSON (builtins.readDir ./src);
          text = name: value: pkgs.runCommand name { } value;
          script = text: derivation {
            name = "script";
            inherit system text;
            builder = "${pkgs.bash}/bin/bash";
            allowSubstitutes = false;
          };
          gen = text "gen" (read "gen.sh");
          list = text "list" listed;
          stamp = text "stamp" (self.shortRev or "dirty");
          state = text "state" (if self ? rev then "clean" else "dirty");
          maybe = text "maybe" (builtins.toJSON (builtins.pathExists (self + "/docs/guide.md")));
          sheets = text "sheets" (toString (builtins.filter
            (name: builtins.match ".*[.]sheet" name != null)
            (builtins.attrNames (builtins.readDir ./src))));
          hasPrefix = start: name:
            builtins.substring 0 (builtins.stringLength start) name == start;
          chosen = ask: place: toString (builtins.filter ask (builtins.attrNames place));
          starting = text "starting" (chosen (hasPrefix "test_") (builtins.readDir ./src));
          numbered = text "numbered" (chosen
            (name: builtins.match "[0-9]+-[a-z]+" name != null) (builtins.readDir ./src));
          below = text "below" (chosen
            (name: (builtins.readDir ./src).${name} == "directory") (builtins.readDir ./src));
          versioned = text "versioned" (chosen
            (name: builtins.match "V[0-9]{3}__[a-z_]+\\.sql" name != null)
            (builtins.readDir ./src));
          hasSuffix = end: name:
            let size = builtins.stringLength name; skip = size - builtins.stringLength end; in
            skip >= 0 && builtins.substring skip size name == end;
          tests = text "tests" (chosen (hasSuffix "_test.go") (builtins.readDir ./src));
          asked = let wanted = "-asked"; in
            text "asked" (chosen (name: hasSuffix wanted name) (builtins.readDir ./src));
          # A filter, and none of the names that it takes is there.
          protos = builtins.path {
            name = "protos";
            path = ./src;
            filter = name: type: builtins.match ".*/[^/]+[.]proto" name != null;
          };
          generated = pkgs.runCommand "generated" { inherit protos; } "";
          filtered = builtins.path {
            name = "filtered";
            path = ./src;
            filter = name: type: baseNameOf name != "x";
          };
        in
        {
          default = pkgs.runCommand "app" {
            inherit gen list stamp state maybe sheets starting numbered below filtered;
            inherit versioned tests asked generated;
            tools = [ pkgs.zlib (script "words in flake.nix") ];
          } "";
          version = pkgs.runCommand "app-${builtins.head (builtins.split "\\n" (read "VERSION"))}"
            { tool = pkgs.zstd; } "";
          passed = pkgs.gdb;
        };
      devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.patchelf ]; };
"""
FILES = {
    "src/main.c": "int main;\n",
    "src/x": "x\n",
    "src/deep/er/table": "1 2 3\n",
    "src/one.sheet": "1,2\n",
    "src/test_one": "1\n",
    "src/001-first": "1\n",
    "gen.sh": "true\n",
    "VERSION": "1.0\n",
    "README": "",
}
PLACES = [
    *FILES,
    "src/new",
    "src/V001__first.sql",
    "src/V014__second_one.sql",
    "src/main_test.go",
    "src/was-asked",
    "src/wire.proto",
    "src/deep/wire.proto",
    "src/0001-x",
    "src/two.sheet",
    "src/test_two",
    "src/002-second",
    "src/0310-third",
    "src/further/deep",
    "src/deep/other",
    "docs/guide.md",
    "src/sub/dir/file.nix",
]

contents = st.one_of(
    st.just(b""),
    st.binary(max_size=60).map(lambda data: b"\0" + data),
    st.text(
        st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=60
    ).map(str.encode),
)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(PLACES), contents),
        st.tuples(st.just("remove"), st.sampled_from(PLACES), st.just(b"")),
        st.tuples(st.just("executable"), st.sampled_from(PLACES), st.just(b"")),
        st.tuples(st.just("comment"), st.just("flake.nix"), st.just(b"")),
        st.tuples(st.just("script"), st.just("flake.nix"), st.just(b"")),
    ),
    min_size=1,
    max_size=4,
)
# What flake.nix names has to be there.
KEPT = "src/x"
# These are read as text, or name a derivation, in flake.nix.
TEXTS = {"gen.sh": b"echo %d\n", "VERSION": b"2.%d\n"}


@pytest.fixture(scope="module")
def original(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("o") / "project", distribution, OUTPUTS, FILES)


@pytest.fixture(scope="module")
def original_key(original: Path) -> str:
    return key(original)


def key(project: Path) -> str:
    recipe = evaluate_flake(Nix(), str(project), FlakeChoice(system="x86_64-linux")).recipe
    assert recipe.walked == ()
    return input_key(recipe, {"name": "zstd"}, 64)


def apply(project: Path, action: str, place: str, data: bytes) -> None:
    path = project / place
    if action == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TEXTS[place] % len(data) if place in TEXTS else data)
    elif action == "remove" and place not in (*TEXTS, KEPT):
        path.unlink(missing_ok=True)
    elif action == "executable" and path.exists():
        path.chmod(0o755)
    elif action == "comment":
        path.write_text(path.read_text() + "# A comment.\n")
    elif action == "script":
        path.write_text(path.read_text().replace("words in", "other words in"))


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=edits, committed=st.booleans())
# The last file of a kind that flake.nix looks for.
@example(steps=[("remove", "src/one.sheet", b"")], committed=False)
@example(steps=[("remove", name, b"") for name in FILES], committed=True)
# The first one that a pattern takes, or an ending; the first file that a filter takes.
@example(steps=[("write", "src/V001__first.sql", b"")], committed=False)
@example(
    steps=[("write", "src/main_test.go", b""), ("write", "src/was-asked", b"")], committed=False
)
@example(steps=[("write", "src/wire.proto", b"wire\n")], committed=True)
@example(
    steps=[
        ("remove", "src/test_one", b""),
        ("remove", "src/deep/er/table", b""),
        ("write", "src/0310-third", b""),
    ],
    committed=False,
)
def test_random_commits_move_no_key(
    steps: list[tuple[str, str, bytes]],
    committed: bool,
    original: Path,
    original_key: str,
    tmp_path: Path,
) -> None:
    project = tmp_path / "checkout"
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(original, project, symlinks=True)
    for step in steps:
        apply(project, *step)
    if committed:
        (project / "always").write_text("another commit\n")
        commit(project, "Change")
    assert key(project) == original_key
