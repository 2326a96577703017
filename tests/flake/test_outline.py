from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from nix_seed.core.errors import InputError
from nix_seed.flake.rules.outline import SPEC_PATH, File, Outline, check_files

HASH = "0123456789abcdfghijklmnpqrsvwxyz"
VALUE: dict[str, Any] = {
    "name": "seed",
    "system": "x86_64-linux",
    "kind": "seed",
    "source": f"/nix/store/{HASH}-source",
    "inputs": {"nixpkgs": f"/nix/store/{HASH}-source/sub"},
    "project": {"packages": [{"output": "packages.default", "context": {}}], "devShells": []},
    "tiers": [{"name": "base", "roots": {f"/nix/store/{HASH}-a.drv": {"outputs": ["out"]}}}],
    "compilers": {},
    "config": {"env": {"A": "b"}, "workingDir": "/src"},
    "container": {"files": [{"path": "bin", "link": "/usr/bin"}], "env": {"PATH": "/bin"}},
}


def changed(path: str, value: Any) -> Any:
    """VALUE with one member, named as ``config.env``, replaced."""
    result = copy.deepcopy(VALUE)
    *parents, last = path.split(".")
    inner = result
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return result


def files(*given: File) -> list[File]:
    return list(given)


def test_an_outline_is_read() -> None:
    outline = Outline.from_json(json.loads(json.dumps(VALUE)))
    assert outline.config.working_dir == "/src"
    assert outline.project.packages[0].output == "packages.default"
    assert outline.container.files == (File("bin", link="/usr/bin"),)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("name", "", "'' cannot be the name of an image"),
        ("name", "Seed", "'Seed' cannot be the name of an image"),
        ("name", "a/b", "cannot be the name of an image"),
        ("name", "seed\n", "cannot be the name of an image"),
        ("name", "a" * 65, "cannot be the name of an image"),
        ("name", 1, "Expected `str`, got `int` - at `$.name`"),
        ("kind", "both", "Invalid enum value 'both' - at `$.kind`"),
        ("more", 1, "unknown field `more`"),
        ("config.envs", {}, "unknown field `envs` - at `$.config`"),
        ("config.env", {"A": 1}, "at `$.config.env[...]`"),
        ("config.env", {"A=B": ""}, "the environment variable 'A=B' cannot be set"),
        ("config.env", {"": "b"}, "the environment variable '' cannot be set"),
        ("container.env", {"A": "\0"}, "the environment variable 'A' cannot be set"),
        ("inputs", {"x": "/etc/passwd"}, "'/etc/passwd' is not a path in /nix/store"),
        ("container.files", [{"path": "a", "text": 1}], "at `$.container.files[0].text`"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, why: str) -> None:
    with pytest.raises(InputError) as caught:
        Outline.from_json(changed(path, value))
    assert why in caught.value.message


@pytest.mark.parametrize(
    "path", ["", "/etc/x", "etc/", "etc//x", "./x", "../x", "a/../b", "nix", "nix/store/x", "a\nb"]
)
def test_a_path_that_is_no_place_for_a_file_is_refused(path: str) -> None:
    with pytest.raises(InputError, match="cannot be a file of an image"):
        check_files([File(path, text="")])


@pytest.mark.parametrize("mode", ["", "644", "4755", "2755", "06444", "0648", "rwx", "0644\n"])
def test_a_mode_has_four_digits_and_gives_no_rights_of_others(mode: str) -> None:
    with pytest.raises(InputError, match="is not a mode of four octal digits"):
        check_files([File("etc/x", text="", mode=mode)])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            files(File("bin", link="usr/bin"), File("bin/sh", link="bash")),
            "bin/sh cannot be in the image: bin is a link, not a directory",
        ),
        (
            files(File("bin/a/b", text=""), File("bin", link="usr/bin")),
            "bin/a/b cannot be in the image: bin is a link, not a directory",
        ),
        (
            files(File("etc/x", text=""), File("etc/x/y")),
            "etc/x/y cannot be in the image: etc/x is a file, not a directory",
        ),
        (
            files(File("etc", link="/usr/etc")),
            f"{SPEC_PATH} cannot be in the image: etc is a link, not a directory",
        ),
        (
            files(File("etc/nix-seed", text="")),
            f"{SPEC_PATH} cannot be in the image: etc/nix-seed is a file, not a directory",
        ),
        (files(File("a"), File("a")), "a is given twice among the files of the image"),
        (files(File("a", text=""), File("a", link="b")), "a is given twice among"),
        (files(File(SPEC_PATH, text="{}")), f"{SPEC_PATH} is given twice among"),
        (files(File("a", text="", link="b")), "a is given as a text and as a link"),
    ],
)
def test_files_that_collide_are_refused(given: list[File], why: str) -> None:
    for order in (given, given[::-1]):
        with pytest.raises(InputError) as caught:
            check_files(order)
        assert why in caught.value.message


def test_directories_hold_files_whether_they_are_named_or_not() -> None:
    check_files(
        [
            File("etc", mode="0755"),
            File("etc/nix-seed"),
            File("etc/passwd", text="root"),
            File("bin", link="usr/bin"),
            File("bin-more/x", text=""),
            File("tmp", mode="1777"),
        ]
    )
