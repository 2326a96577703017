"""The tree in which what code asks of its files has another answer; a stranger's may hold links."""

import os
from pathlib import Path

import pytest

from nix_seed.flake import experiment
from nix_seed.flake.experiment import altered, answered_otherwise, read_questions
from nix_seed.flake.rules.existence import Questions

CODE = """{
  a = builtins.pathExists ./link/kept;
  b = builtins.pathExists ./link/directory;
  c = builtins.pathExists ./link/absent;
  d = builtins.fromJSON (builtins.readFile ./link/values.json);
  e = builtins.pathExists ./loop/absent;
}
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "directory").mkdir(parents=True)
    for name in ("kept", "directory/kept"):
        (place / name).write_text("text\n")
    (place / "values.json").write_text('{"port": 80}')
    return place


def state(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize("absolute", [True, False])
def test_links_that_lead_out_of_the_flake_are_not_followed(
    absolute: bool, outside: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "flake.nix").write_text(CODE)
    # From wherever the copy is made.
    where = outside if absolute else Path("../" * 20 + str(outside).lstrip("/"))
    (tree / "link").symlink_to(where)
    (tree / "loop").symlink_to("loop")
    before = state(outside)
    asked = read_questions(tree)
    assert asked.paths == {"link/kept", "link/directory", "link/absent", "loop/absent"}
    assert not asked.data
    # A forgotten check is not enough.
    asked = Questions(paths=asked.paths, data=frozenset({"link/values.json"}))
    with answered_otherwise(tree, asked) as other:
        assert os.readlink(other / "link") == str(where)
    assert state(outside) == before


def test_links_within_the_flake_are(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/kept").write_text("text\n")
    (tmp_path / "src/values.json").write_text('{"port": 80, "debug": true}')
    (tmp_path / "link").symlink_to("src")
    # One file by two names is changed once.
    paths = frozenset({"link/kept", "src/kept", "link/absent"})
    asked = Questions(paths, data=frozenset({"link/values.json", "src/values.json"}))
    with answered_otherwise(tmp_path, asked) as other:
        assert state(other / "src") == {
            "absent": b"\n",
            "values.json": b'{"port": 81, "debug": true}',
        }


def test_what_no_text_names_may_be_any_file_of_values(tmp_path: Path) -> None:
    code = "lib.pipe ./a.json [ builtins.readFile builtins.fromJSON ]"
    for name, text in {
        "flake.nix": code,
        "a.json": '{"port": 80}',
        "package-lock.json": '{"port": 80}',
        "VERSION": "1.2\n",
        "main.c": "int main;\n",
    }.items():
        (tmp_path / name).write_text(text)
    asked = read_questions(tmp_path)
    assert asked.guessed == {"a.json", "VERSION"}
    assert asked.reads == ("flake.nix:1",)


def test_a_file_that_memory_may_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "_LARGEST", 9)
    for name in ("large.json", "large.c"):
        (tmp_path / name).write_text('{"a": 1}  ')
    with altered(tmp_path, further=False) as other:
        assert state(other) == {
            "large.json": b'{"a": 1}  \n',
            "large.c": b'{"a": 1}  \n//\n',
        }
    with answered_otherwise(tmp_path, Questions()) as other:
        assert state(other) == state(tmp_path)
