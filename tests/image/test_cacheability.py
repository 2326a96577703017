"""What changes an image, and what does not: on real flakes, built by real Nix."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nix_seed.formats.oci.reference import LayoutReference
from nix_seed.image.read.unpack import unpacked
from nix_seed.registry.layout import Image, open_image
from support.distribution import commit, make_project, upgraded, use_distribution
from support.engines import need, need_root
from support.seeds import (
    build,
    edit,
    names,
    nix_seed,
    plan,
    product_flake,
    store_paths,
    write_project,
)

KEYS = ("inputKey", "narHash", "digest")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layout") / "seed"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return product_flake(tmp_path_factory.mktemp("product") / "nix-seed")


@pytest.fixture(scope="module")
def original(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("project") / "two-packages"
    return make_project("two-packages", where, distribution)


@pytest.fixture(scope="module")
def seed(original: Path, cache: Path, layout: Path) -> dict[str, Any]:
    return build(original, "-o", layout, cache=cache)


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    """A checkout of one's own, to change."""
    return shutil.copytree(original, tmp_path / "checkout", symlinks=True)


@pytest.fixture
def base(layout: Path, seed: dict[str, Any]) -> str:
    return f"oci:{layout}:seed"


# A change of source


def change_greet(project: Path) -> None:
    edit(project, "greet/main.c", "int main", "/* changed */ int main")


def change_libgreet(project: Path) -> None:
    edit(project, "libgreet/greet.c", "#include <", "/* changed */\n#include <")


def change_both(project: Path) -> None:
    change_greet(project)
    change_libgreet(project)


def change_check(project: Path) -> None:
    edit(
        project, "nix/test_greet.py", "returncode == 2\nassert greet(", "returncode\nassert greet("
    )


def change_comment(project: Path) -> None:
    edit(project, "flake.nix", "{\n  description", "# A comment.\n{\n  description")


def change_version(project: Path) -> None:
    edit(project, "nix/libgreet.nix", 'version = "1.0"', 'version = "2.0"')


def add_file(project: Path) -> None:
    (project / "greet" / "more.h").write_text("int more(void);\n")
    commit(project, "Add a file")


def leave_uncommitted(project: Path) -> None:
    (project / "greet" / "main.c").write_text("not even C\n")


@pytest.mark.parametrize(
    "change",
    [
        change_greet,
        change_libgreet,
        change_both,
        change_check,
        change_comment,
        change_version,
        add_file,
        leave_uncommitted,
    ],
)
def test_source_changes_nothing(
    change: Callable[[Path], None], project: Path, seed: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    # libgreet was never built in any of its new versions: a seed does not need it to be.
    change(project)
    again = build(project, "-o", tmp_path / "again", cache=cache)
    assert {key: again[key] for key in KEYS} == {key: seed[key] for key in KEYS}
    assert all(layer["reused"] for layer in again["layers"])


# A change of dependencies


def add_dependency(project: Path) -> None:
    edit(project, "nix/greet.nix", "[ libgreet ]", "[ libgreet pkgs.openssl ]")


def check_only_new(new: Mapping[str, Any], old: Mapping[str, Any]) -> set[str]:
    """Assert that layers changed only where new paths lie; return those paths."""
    before = {layer["digest"] for layer in old["layers"]}
    added = set(store_paths(new)) - set(store_paths(old))
    changed = [layer for layer in new["layers"] if layer["digest"] not in before]
    assert changed[-1]["tier"] == "container"
    assert all(added & set(layer["paths"]) for layer in changed[:-1])
    return added


def test_a_dependency_changes_only_layers_that_hold_it(
    project: Path, seed: dict[str, Any], base: str, cache: Path, tmp_path: Path
) -> None:
    add_dependency(project)
    alone = build(project, "-o", tmp_path / "alone", cache=cache)
    on_base = build(project, "-o", tmp_path / "on-base", "--base", base, cache=cache)
    for image in (alone, on_base):
        added = {Path(path).name[33:].split("-")[0] for path in check_only_new(image, seed)}
        assert "openssl" in added
        # Of openssl's own packages only: its C library and compiler were there.
        assert not added & {"libc6", "gcc", "bash"}
        assert image["inputKey"] != seed["inputKey"]
    # A base is not part of the key: it changes nothing of what is needed.
    assert alone["inputKey"] == on_base["inputKey"]

    told = plan(project, "--base", base, cache=cache)["pull"]
    pulled = [
        n
        for n, layer in enumerate(on_base["layers"][:-1])
        if layer["digest"] not in {old["digest"] for old in seed["layers"]}
    ]
    assert told["layers"] == len(pulled)
    assert {n for culprit in told["culprits"] for n in culprit["layers"]} == set(pulled)
    assert all(culprit["input"] is None for culprit in told["culprits"])

    edit(project, "nix/greet.nix", "[ libgreet pkgs.openssl ]", "[ libgreet ]")
    back = build(project, "-o", tmp_path / "back", cache=cache)
    assert {key: back[key] for key in KEYS} == {key: seed[key] for key in KEYS}
    back_on_base = build(project, "-o", tmp_path / "back", "--base", base, cache=cache)
    assert back_on_base["digest"] == seed["digest"]


def test_a_changed_input_is_named_with_the_package_it_brought(
    project: Path, seed: dict[str, Any], base: str, cache: Path, tmp_path: Path
) -> None:
    use_distribution(project, upgraded("libipt2"))
    told = plan(project, "--base", base, cache=cache)["pull"]
    ours = next(culprit for culprit in told["culprits"] if culprit["input"] == "nixpkgs")
    change = next(root for root in ours["roots"] if root["package"] == "libipt2")
    assert change["new"].endswith("+upgraded1")
    assert change["old"] in store_paths(seed)
    dragged = {item["package"] for item in ours["dependents"]}
    assert {"gdb", "gdb-wrapped"} <= dragged

    ran = nix_seed("plan", project, "--base", base, cache=cache)
    old, new = (Path(change[key]).name[33:] for key in ("old", "new"))
    assert "input nixpkgs changed: " in ran.out
    assert f"{old} → {new}" in ran.out
    assert f"whoever has {base} pulls {told['layers']} layers" in ran.out

    image = build(project, "-o", tmp_path / "new", "--base", base, cache=cache)
    reused = [layer["reused"] for layer in image["layers"][:-1]]
    assert len(reused) - sum(reused) == told["layers"]
    assert sum(reused) > len(reused) * 3 / 4


# What is the project's own, though no output names it

HIDDEN = """
      packages.${system}.default =
        let
          generated = pkgs.runCommand "generated" { src = ./src; } "cp -r $src $out";
          filtered = builtins.path {
            name = "filtered-source";
            path = ./.;
            filter = path: type: baseNameOf path != "flake.nix";
          };
          picked = builtins.filterSource (path: type: baseNameOf path != "README") ./src;
          again = pkgs.runCommand "twice-generated" { inherit generated; } "cp -r $generated $out";
        in
        pkgs.runCommand "final" { inherit again filtered picked; } "cp -r $again $out";
      apps.${system}.default =
        let
          wrapper = pkgs.runCommand "wrapper" { own = self.packages.${system}.default; }
            "mkdir -p $out/bin; echo $own > $out/bin/start; chmod 555 $out/bin/start";
        in
        { type = "app"; program = "${wrapper}/bin/start"; };
      devShells.${system}.default = pkgs.mkShell { packages = [ pkgs.zstd ]; };
"""


SOURCES = {"src/main.txt": "source\n", "src/README": "read me\n", "data/table": "1 2 3\n"}


def test_unnamed_derivations_of_the_project_do_not_enter_the_seed(
    distribution: Path, cache: Path, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "hidden", distribution, HIDDEN, SOURCES)
    before = plan(project, cache=cache)
    own = {"generated", "twice-generated", "wrapper", "final", "filtered-source", "src"}
    assert not own & names(before)
    assert any(name.startswith("zstd-") for name in names(before))
    for file, text in SOURCES.items():
        edit(project, file, text, f"{text}more\n")
        after = plan(project, cache=cache)
        assert (after["inputKey"], after["narHash"]) == (before["inputKey"], before["narHash"])


FETCHED = """
      packages.${system} = {
        zlib = pkgs.zlib;
        default =
          let
            # What language package managers do: fetched by a lock file, fixed by a hash.
            vendored = derivation {
              name = "vendored";
              inherit system;
              builder = "${pkgs.bash}/bin/bash";
              args = [ "-c" "echo fetched > $out" ];
              lock = ./deps.lock;
              outputHashMode = "flat";
              outputHashAlgo = "sha256";
              outputHash = builtins.hashString "sha256" "fetched\\n";
            };
          in
          pkgs.runCommand "final" { inherit vendored; src = ./src; } "cp -r $src $out";
      };
"""


def test_fetched_and_foreign_outputs_are_baked(
    distribution: Path, cache: Path, tmp_path: Path
) -> None:
    files = {"deps.lock": "one\n", "src/main.txt": "source\n"}
    project = write_project(tmp_path / "fetched", distribution, FETCHED, files)
    before = plan(project, cache=cache)
    assert "vendored" in names(before)
    assert "final" not in names(before)
    # An output that is the package set's own is a dependency like any other.
    assert any(name.startswith("zlib-joined-") for name in names(before))
    edit(project, "src/main.txt", "source\n", "changed\n")
    after = plan(project, cache=cache)
    assert (after["inputKey"], after["narHash"]) == (before["inputKey"], before["narHash"])
    # Another lock file, another derivation, but the same content: the same image by the same key.
    edit(project, "deps.lock", "one\n", "two\n")
    relocked = plan(project, cache=cache)
    assert (relocked["inputKey"], relocked["narHash"]) == (before["inputKey"], before["narHash"])


# What a recipe can ask for

OPTIONS = """
      packages.${system} =
        let
          tool = pkgs.runCommand "tool" { src = ./tool; } ''
            mkdir -p $out/bin
            sed "1s|.*|#!${pkgs.bash}/bin/bash|" $src > $out/bin/tool
            chmod 555 $out/bin/tool
          '';
          helper = pkgs.runCommand "helper" { text = builtins.readFile ./note; }
            "echo $text > $out";
        in
        {
          default = pkgs.runCommand "app" { inherit helper tool; } "cp -r $tool $out";
          docs = pkgs.runCommand "docs" { tools = [ pkgs.gdb ]; } "touch $out";
          everything = seeds.mkSeed {
            inherit self system;
            name = "everything";
            extraProject = [ helper ];
            exclude = [ "packages.docs" ];
            contents.toolchain = [ pkgs.gnumake ];
            contents.packages = [ pkgs.patchelf ];
            nixConf = "max-jobs = 7\\n";
            excludeInputs = [ "nix-seed" ];
            config = {
              env.GREETING = "hello there";
              entrypoint = [ "/usr/bin/env" ];
              cmd = [ "true" ];
              workingDir = "/work";
              user = "nobody";
              labels."org.example.purpose" = "test";
            };
          };
          plain = seeds.mkSeed { inherit self system; include = [ "packages.default" ]; };
          ship = seeds.mkRun { inherit self system; package = tool; name = "ship"; };
        };
      wrong = seeds.mkSeed { inherit self system; contents.tools = [ pkgs.gnumake ]; };
"""


TOOL = 'first line, to be replaced\necho "shipped: $*, $0"\n'


@pytest.fixture(scope="module")
def options(distribution: Path, product: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("options") / "project"
    return write_project(
        where, distribution, OPTIONS, {"tool": TOOL, "note": "one\n"}, product=product
    )


@pytest.fixture(scope="module")
def everything(options: Path, cache: Path) -> tuple[dict[str, Any], Image]:
    return _opened(options, cache, "--attr", "everything")


def _opened(project: Path, cache: Path, *arguments: str) -> tuple[dict[str, Any], Image]:
    built = build(project, *arguments, cache=cache)
    reference = LayoutReference.parse(built["reference"])
    return built, open_image(reference)


def test_what_the_seed_holds_is_chosen(
    options: Path, everything: tuple[dict[str, Any], Image], cache: Path
) -> None:
    built, _ = everything
    tier_of = {
        Path(path).name[33:].split("-")[0]: layer["tier"]
        for layer in built["layers"]
        for path in layer["paths"]
    }
    assert built["name"] == "everything"
    assert tier_of["make"] == "toolchain"
    assert tier_of["patchelf"] == "packages"
    assert not {"helper", "tool", "app", "gdb"} & tier_of.keys()
    # Without being named as the project's either: its text was read from a file of the project.
    assert "helper" not in names(plan(options, "--attr", "plain", cache=cache))
    assert any(name.startswith("gdb-") for name in names(plan(options, cache=cache)))


@pytest.mark.parametrize("attr", ["everything", "plain"])
def test_text_that_is_read_into_a_derivation_may_change(
    attr: str, options: Path, cache: Path, tmp_path: Path
) -> None:
    before = plan(options, "--attr", attr, cache=cache)
    project = shutil.copytree(options, tmp_path / "checkout", symlinks=True)
    edit(project, "note", "one\n", "two\n")
    after = plan(project, "--attr", attr, cache=cache)
    assert (after["inputKey"], after["narHash"]) == (before["inputKey"], before["narHash"])


def test_what_the_image_says_is_chosen(everything: tuple[dict[str, Any], Image]) -> None:
    _, image = everything
    config = image.config["config"]
    assert image.environment["GREETING"] == "hello there"
    assert "max-jobs = 7\n" in image.environment["NIX_CONFIG"]
    assert config["Entrypoint"] == ["/usr/bin/env"]
    assert config["Cmd"] == ["true"]
    assert (config["WorkingDir"], config["User"]) == ("/work", "nobody")
    assert config["Labels"]["org.example.purpose"] == "test"
    assert config["Labels"]["io.nix-seed.name"] == "everything"
    assert image.config["created"] == "1970-01-01T00:00:01Z"


def test_inputs_are_in_the_seed_unless_excluded(
    options: Path, product: Path, everything: tuple[dict[str, Any], Image], cache: Path
) -> None:
    sources = {
        attr: sum(path.endswith("-source") for path in store_paths(found))
        for attr, found in (("all", plan(options, cache=cache)), ("fewer", everything[0]))
    }
    assert sources == {"all": 2, "fewer": 1}


def test_an_attribute_is_named_in_either_way(options: Path, cache: Path) -> None:
    by_option = plan(options, "--attr", "plain", cache=cache)
    assert plan(f"{options}#plain", cache=cache) == by_option
    ran = nix_seed("plan", f"{options}#plain", "--attr", "plain", cache=cache)
    assert ran.code == 2
    assert f"{options}#plain names the attribute plain, and --attr plain" in ran.err


def test_an_unknown_tier_is_refused_with_those_there_are(options: Path, cache: Path) -> None:
    ran = nix_seed("build", options, "--attr", "wrong", cache=cache)
    assert ran.code == 4
    assert "mkSeed: contents names no tier of a seed: tools; tiers are base toolchain" in ran.err


def test_a_run_image_starts_its_program_and_shares_the_seeds_base(
    options: Path, everything: tuple[dict[str, Any], Image], cache: Path, tmp_path: Path
) -> None:
    built, image = _opened(options, cache, "--kind", "run", "--attr", "ship")

    def base(of: Mapping[str, Any]) -> list[str]:
        return [layer["digest"] for layer in of["layers"] if layer["tier"] == "base"]

    assert base(built) == base(everything[0])
    assert [tier for tier in _tiers(built) if tier != "lib"] == ["base", "app", "container"]
    assert "helper" not in names(built)
    need_root()
    entrypoint = image.config["config"]["Entrypoint"]
    done = subprocess.run(
        [need("chroot", "coreutils"), str(unpacked(image, tmp_path)), *entrypoint, "a", "b"],
        env=image.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"shipped: a b, {entrypoint[0]}\n"


def _tiers(built: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(layer["tier"] for layer in built["layers"]))


def test_a_kind_that_the_attribute_is_not_is_refused(options: Path, cache: Path) -> None:
    ran = nix_seed("build", options, "--attr", "ship", cache=cache)
    assert ran.code == 2
    assert f"ship of {options} is a run image, not a seed image" in ran.err
    assert "ask for it with --kind run" in ran.err
