"""Trust roots of small flakes, by the command and a real Nix."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.distribution import EXAMPLES, nix, require_nix
from support.elf import elf
from support.seeds import Ran, nix_seed, remove_tree

FLAKE = """
{{
  outputs = {{ self }}:
    let
      system = "x86_64-linux";
      drv = name: builder: args: derivation {{ inherit name system builder args; }};
      fetched = derivation {{
        name = "seeds";
        system = "builtin";
        builder = "builtin:fetchurl";
        url = "https://there-is-none.example/seeds.tar";
        unpack = true;
        outputHashMode = "recursive";
        outputHashAlgo = "sha256";
        outputHash = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
      }};
    in
    {{
      packages.${{system}}.default = {output};
    }};
}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    require_nix()
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def write(project: Path, output: str, files: Mapping[str, str] | None = None) -> str:
    """Make *project* a flake with this *output*; return how it is named."""
    (project / "flake.nix").write_text(FLAKE.format(output=output))
    for name, text in (files or {}).items():
        (project / name).write_text(text)
        (project / name).chmod(0o755)
    return f"path:{project}"


def ask(flake: str, policy: str, tmp_path: Path) -> tuple[Ran, Any]:
    ran = nix_seed("roots", "--outputs", flake, "--policy", policy, "--json", cache=tmp_path)
    return ran, json.loads(ran.out or "null")


PROGRAM = "\x7fELF" + "." * 60


def test_a_program_that_is_not_here_is_of_no_size(project: Path, tmp_path: Path) -> None:
    """It was to be loaded by a small one, which alone could be looked at."""
    flake = write(project, 'drv "it" ./loader [ "${fetched}/bin/large" ]', {"loader": PROGRAM})
    ran, found = ask(flake, "executed-seed-max=1KiB", tmp_path)
    assert ran.code == 3, ran.err
    assert "/bin/large is not here to be looked at" in ran.err
    assert [(each["file"], each["size"]) for each in found["executed"]] == [
        ("bin/large", None),
        ("", 64),
    ]


@pytest.mark.parametrize(
    ("line", "program"), [("#!/bin/sh", "/bin/sh"), ("#! /usr/bin/env bash", "/usr/bin/env")]
)
def test_a_script_executes_the_hosts_shell(
    project: Path, tmp_path: Path, line: str, program: str
) -> None:
    flake = write(project, 'drv "it" ./build.sh [ ]', {"build.sh": f"{line}\nexit 0\n"})
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 1, ran.err
    assert f"no-host: {program}, by " in ran.err
    assert [each["program"] for each in found["host"]] == [program]


def test_a_script_that_was_built_executes_it_too(project: Path, tmp_path: Path) -> None:
    seed = (EXAMPLES / "bootstrap" / "hex0-seed").read_bytes()
    built = 'drv "it" (drv "built.sh" ./hex0 [ ./script.hex (builtins.placeholder "out") ]) [ ]'
    mark = uuid.uuid4().bytes.hex(" ")  # not here before this test builds it
    flake = write(project, built, {"script.hex": b"#!/bin/sh\n#".hex(" ") + f" {mark}\n"})
    (project / "hex0").write_bytes(seed)
    (project / "hex0").chmod(0o755)
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 3, ran.err
    assert [each[44:] for each in found["unread"]] == ["built.sh"]
    assert "built.sh is not here to be looked at" in ran.err
    nix("build", "--no-link", f"{flake}#default.builder")
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 1, ran.err
    assert [each["program"] for each in found["host"]] == ["/bin/sh"]


def test_the_interpreter_of_a_script_is_executed(project: Path, tmp_path: Path) -> None:
    script = 'builtins.toFile "build.sh" "#!${./shell} -e\n"'
    flake = write(project, f'drv "it" ({script}) [ "--with" ./shell ]', {"shell": PROGRAM})
    ran, found = ask(flake, "no-host,executed-seed-max=63", tmp_path)
    assert ran.code == 1
    assert "no-host" not in ran.err
    assert "shell has 64 bytes, more than 63" in ran.err
    assert {each["path"][44:] for each in found["executed"]} == {"build.sh", "shell"}
    # A shell that is no input is there only if the building machine has it.
    text = "builtins.unsafeDiscardStringContext ./shell"
    flake = write(project, f'drv "it" ({text}) [ ]', {"shell": PROGRAM})
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 1
    assert [each["program"][44:] for each in found["host"]] == ["shell"]


def test_the_loader_of_a_program_is_executed(project: Path, tmp_path: Path) -> None:
    """Linux starts the loader that an ELF file names, and that loads the file."""
    flake = write(project, 'drv "it" ./program [ ]')
    (project / "program").write_bytes(elf(b"/lib64/ld-linux-x86-64.so.2"))
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 1, ran.err
    assert [each["program"] for each in found["host"]] == ["/lib64/ld-linux-x86-64.so.2"]
    (project / "program").write_bytes(elf(None))
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 0, ran.err
    assert found["host"] == []


@pytest.mark.parametrize("below", ["sh", "../../../bin/dash"])
def test_links_of_a_builder_are_followed(project: Path, tmp_path: Path, below: str) -> None:
    flake = write(project, f'drv "it" "${{./tree}}/{below}" [ ]')
    (project / "tree").mkdir()
    (project / "tree" / "sh").symlink_to("/bin/dash")
    ran, found = ask(flake, "no-host", tmp_path)
    assert ran.code == 1, ran.err
    assert [Path(each["program"]).name for each in found["host"]] == ["dash"]


def test_the_digest_is_the_same_where_nothing_is(project: Path, tmp_path: Path) -> None:
    """What one builder built and another substituted, bootstrap files and all."""
    shutil.copytree(EXAMPLES / "bootstrap", project, dirs_exist_ok=True)
    flake = f"path:{project}"
    nix("build", "--no-link", flake)
    _, built = ask(flake, "no-impure", tmp_path)
    empty = tmp_path / "empty"
    try:
        arguments = ("roots", "--outputs", flake, "--store", empty, "--json")
        ran = nix_seed(*arguments, cache=tmp_path)
        assert ran.code == 0, ran.err
        absent = json.loads(ran.out)
    finally:
        remove_tree(empty)
    assert len(absent["absent"]) == built["built"] == 4
    assert absent["rootsDigest"] == built["rootsDigest"] is not None
