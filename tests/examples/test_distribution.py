"""The flake of Debian packages, on real Nix: what it builds runs, and refers to what it should."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.distribution import build, make, nix, nix_env, upgraded

SYSTEM = "x86_64-linux"
OTHERS = "aarch64-linux x86_64-darwin aarch64-darwin"
CORE = {
    "bash": ("bash", "--version"),
    "coreutils": ("ls", "--version"),
    "gnugrep": ("grep", "--version"),
    "gnused": ("sed", "--version"),
    "gawk": ("gawk", "--version"),
    "findutils": ("find", "--version"),
    "diffutils": ("diff", "--version"),
    "gnutar": ("tar", "--version"),
    "gzip": ("gzip", "--version"),
    "xz": ("xz", "--version"),
    "zstd": ("zstd", "--version"),
    "gitMinimal": ("git", "--version"),
    "nix": ("nix", "--version"),
    "python3": ("python3", "-c", "import ctypes, lzma, sqlite3, ssl"),
    "gcc": ("cc", "--version"),
    "binutils": ("ld", "--version"),
    "gnumake": ("make", "--version"),
    "patchelf": ("patchelf", "--version"),
    "busybox": ("awk", "BEGIN { exit 0 }"),
    "openssl": ("openssl", "version"),
    "pkg-config": ("pkg-config", "--version"),
    "gdb": ("gdb", "--batch", "-ex", "python print(1)"),
    "curl": ("curl", "--version"),
}


def references(path: Path) -> set[str]:
    command = ["nix-store", "--query", "--references", str(path)]
    done = subprocess.run(command, env=nix_env(), check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def closure(path: Path) -> list[Path]:
    command = ["nix-store", "--query", "--requisites", str(path)]
    done = subprocess.run(command, env=nix_env(), check=True, capture_output=True, text=True)
    return [Path(line) for line in done.stdout.split()]


def in_closure(path: Path, *command: str, more: tuple[str, ...] = ()) -> str:
    """Run a command where nothing exists but the closure of its package."""
    mounts = [a for p in closure(path) for a in ("--ro-bind", str(p), str(p))]
    alone = ["bwrap", "--unshare-all", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    done = subprocess.run(
        [
            *alone,
            "--clearenv",
            "--setenv",
            "HOME",
            "/tmp",
            *mounts,
            *more,
            str(path / "bin" / command[0]),
            *command[1:],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("attribute", CORE)
def test_program_runs_in_its_closure_alone(distribution: Path, attribute: str) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bwrap: apt-get install bubblewrap")
    command = CORE[attribute]
    in_closure(build(f"{distribution}#{attribute}"), *command)


def test_the_lock_names_no_host(distribution: Path) -> None:
    for file in distribution.rglob("*"):
        if file.name != "packages.json" and file.is_file():
            assert "http" not in file.read_text()
    packages = json.loads((distribution / "packages.json").read_text())["packages"]
    assert all(p["filename"].startswith("pool/") for p in packages.values())


def test_references_are_debians_dependencies(distribution: Path) -> None:
    lock = json.loads((distribution / "packages.json").read_text())["packages"]
    package = f"{distribution}#debianPackages.{SYSTEM}."
    found = references(build(f"{package}curl"))
    for name in lock["curl"]["depends"]:
        assert str(build(f"{package}{name}")) in found
    # libc, at the bottom, refers to nothing, not even to itself by way of libgcc.
    assert references(build(f"{distribution}#glibc")) <= {str(build(f"{distribution}#glibc"))}


def test_meta_tells_licence_and_description(distribution: Path) -> None:
    meta = json.loads(nix("eval", "--json", f"{distribution}#coreutils.meta"))
    assert meta["license"] == [
        {
            "free": True,
            "fullName": "see share/doc/coreutils/copyright",
            "spdxId": "GPL-3.0-or-later",
        }
    ]
    assert meta["description"] == "GNU core utilities"


def compile_in_sandbox(distribution: Path, directory: Path, command: str, source: str) -> Path:
    """Compile with nothing but stdenv's compiler; return the output, whose bin/it was run."""
    expression = directory / "it.nix"
    expression.write_text(f"""
      let pkgs = (builtins.getFlake "path:{distribution}").legacyPackages.{SYSTEM}; in
      pkgs.stdenv.mkDerivation {{
        name = "it";
        source = builtins.toFile "it.cc" (builtins.readFile {directory}/source);
        buildCommand = ''
          mkdir -p $out/bin
          cp $source it.cc
          {command} -o $out/bin/it
          $out/bin/it > $out/said
        '';
      }}
    """)
    (directory / "source").write_text(source)
    built = json.loads(nix("build", "--json", "--no-link", "--impure", "--file", str(expression)))
    return Path(built[0]["outputs"]["out"])


def test_c_compiles_in_the_sandbox(distribution: Path, tmp_path: Path) -> None:
    source = "#include <math.h>\n#include <stdio.h>\nint main(int n, char **v)"
    source += '{ printf("%.1f\\n", sqrt(n * 4)); return v == 0; }'
    built = compile_in_sandbox(distribution, tmp_path, "cc -x c it.cc -lm", source)
    assert (built / "said").read_text() == "2.0\n"
    assert references(built) == {str(build(f"{distribution}#glibc"))}


def test_cxx_with_exceptions_compiles_in_the_sandbox(distribution: Path, tmp_path: Path) -> None:
    source = "#include <iostream>\n#include <stdexcept>\n"
    source += 'int main() { try { throw std::runtime_error("caught"); }'
    source += "catch (std::exception &e) { std::cout << e.what(); } }"
    built = compile_in_sandbox(distribution, tmp_path, "c++ it.cc", source)
    assert (built / "said").read_text() == "caught"
    packages = f"{distribution}#debianPackages.{SYSTEM}."
    libraries = [f"{distribution}#glibc", f'{packages}"libstdc++6"', f"{packages}libgcc-s1"]
    assert references(built) == {str(build(library)) for library in libraries}


def test_static_programs_link(distribution: Path, tmp_path: Path) -> None:
    source = '#include <stdio.h>\nint main(void) { puts("static"); return 0; }'
    built = compile_in_sandbox(distribution, tmp_path, "cc -static -x c it.cc", source)
    assert (built / "said").read_text() == "static\n"
    assert references(built) == set()


def test_compiler_libraries_are_where_nixpkgs_has_them(distribution: Path) -> None:
    libraries = build(f"{distribution}#stdenv.cc.cc.lib") / "lib"
    assert (libraries / "libstdc++.so.6").is_file()
    assert (libraries / "libgcc_s.so.1").is_file()
    libc = build(f"{distribution}#glibc") / "lib"
    for name in ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"):
        assert (libc / name).is_file()


def test_certificates_are_one_bundle(distribution: Path) -> None:
    bundle = build(f"{distribution}#cacert") / "etc/ssl/certs/ca-bundle.crt"
    assert bundle.read_text().count("-----BEGIN CERTIFICATE-----") > 100


def test_its_nix_builds_where_only_its_closure_exists(distribution: Path, tmp_path: Path) -> None:
    """A new store, in a root that holds nothing else: no /usr, no /etc, no network."""
    if shutil.which("bwrap") is None:
        pytest.skip("needs bwrap: apt-get install bubblewrap")
    path, bash = build(f"{distribution}#nix"), build(f"{distribution}#bash")
    nix("copy", "--no-check-sigs", "--to", str(tmp_path), str(path), str(bash))
    expression = f"""derivation {{
      name = "x"; system = "{SYSTEM}"; builder = builtins.storePath "{bash}" + "/bin/bash";
      args = [ "-c" "echo built > $out" ];
    }}"""
    config = nix_env(sandbox="false")["NIX_CONFIG"]
    mounts = ["--bind", f"{tmp_path}/nix", "/nix", "--dev", "/dev", "--proc", "/proc"]
    # With no /etc/passwd, Nix takes both of these from the environment.
    env = {"HOME": "/tmp", "USER": "root", "NIX_CONFIG": config}
    mounts += [word for name in env for word in ("--setenv", name, env[name])]
    alone = ["bwrap", "--unshare-all", "--clearenv", "--tmpfs", "/tmp", *mounts]
    done = subprocess.run(
        [
            *alone,
            str(path / "bin/nix"),
            "build",
            "--impure",
            "--json",
            "--no-link",
            "--expr",
            expression,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)[0]["outputs"]["out"]
    assert Path(f"{tmp_path}{built}").read_text() == "built\n"
    assert "hook" not in done.stderr


def test_two_stores_hold_the_same_bytes(distribution: Path, tmp_path: Path) -> None:
    flake = make("distribution", tmp_path / "flake", "--store", tmp_path / "root")
    nix("build", "--no-link", f"{flake}#coreutils", "--store", str(tmp_path / "root"))
    build(f"{distribution}#coreutils")
    ours, theirs = (
        json.loads(nix("path-info", "--json", "-r", f"{flake}#coreutils", *store))
        for store in ([], ["--store", str(tmp_path / "root")])
    )
    assert {(p["path"], p["narHash"]) for p in ours} == {(p["path"], p["narHash"]) for p in theirs}


def test_an_upgrade_changes_what_depends_on_it_and_nothing_else(distribution: Path) -> None:
    newer = upgraded("zlib1g")
    packages = f"debianPackages.{SYSTEM}"

    def path(flake: Path, name: str) -> str:
        return nix("eval", "--raw", f"{flake}#{packages}.{name}.outPath")

    for name in ("zlib1g", "git"):
        assert path(distribution, name) != path(newer, name)
    for name in ("libc6", "bash", "make"):
        assert path(distribution, name) == path(newer, name)
    built = build(f"{newer}#{packages}.zlib1g")
    assert built.name.endswith("+upgraded1")
    assert (built / "share/doc/upgraded").is_file()
    assert upgraded("zlib1g") == newer


def test_other_systems_are_the_same_content_under_another_label(distribution: Path) -> None:
    names = [f"{distribution}#debianPackages.{system}.dash" for system in (SYSTEM, *OTHERS.split())]
    built = [build(name, extra_platforms=OTHERS) for name in names]
    assert len(set(built)) == 4
    sizes = {(path / "bin/dash").stat().st_size for path in built}
    assert len(sizes) == 1


def test_no_two_paths_of_a_closure_share_a_name(distribution: Path) -> None:
    """Else what goes by package name, such as keeping its layer, could not tell them apart."""
    tops = [build(f"{distribution}#{name}") for name in (*CORE, "stdenv", "cacert", "zlib")]
    lock = json.loads((distribution / "packages.json").read_text())["packages"]
    names = [path.name[33:] for path in {p for top in tops for p in closure(top)}]
    assert sorted(names) == sorted(set(names))
    assert len(names) > len(lock) / 2
