from __future__ import annotations

import hashlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from nix_seed.core.digests import NarHash
from nix_seed.core.errors import CheckedFalse
from nix_seed.formats.nix.nar import (
    NarEntry,
    NarHasher,
    nar_hash_of_file,
    read_nar,
    strip_case_hack,
)
from support.nars import Directory, NarFile, Symlink, Tree, dump, nar_hash
from support.programs import need, run
from support.trees import AWKWARD, make

names = st.binary(min_size=1, max_size=40).filter(
    lambda name: name not in (b".", b"..") and not set(name) & {0, 0x2F}
)
leaves = st.builds(NarFile, st.binary(max_size=50), st.booleans()) | st.builds(
    Symlink, st.binary(min_size=1, max_size=50).filter(lambda target: 0 not in target)
)
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves, lambda inner: st.builds(Directory, st.dictionaries(names, inner, max_size=4))
)


def real_dump(tree: Tree) -> bytes:
    with TemporaryDirectory() as directory:
        path = os.fsencode(directory) + b"/tree"
        make(tree, path)
        return run(need("nix-store"), "--dump", path)


def test_awkward_tree_dumps_as_nix_dumps_it() -> None:
    assert b"".join(dump(AWKWARD)) == real_dump(AWKWARD)


@pytest.mark.parametrize(
    "tree",
    [
        NarFile(b""),
        NarFile(b"x" * 8),
        NarFile(b"x", executable=True),
        Symlink(b"/a"),
        Directory({}),
    ],
)
def test_a_root_of_any_kind(tree: Tree) -> None:
    assert b"".join(dump(tree)) == real_dump(tree)


@given(trees)
@settings(max_examples=25, deadline=None)
def test_any_tree_dumps_as_nix_dumps_it(tree: Tree) -> None:
    nar = b"".join(dump(tree))
    assert nar == real_dump(tree)
    assert nar_hash(tree) == (NarHash(hashlib.sha256(nar).hexdigest()), len(nar))


def walked(tree: Tree, nar: NarHasher, depth: int = 0, name: bytes = b"") -> None:
    match tree:
        case NarFile(data, executable):
            nar.file(depth, name, len(data), executable)
            nar.add(data[:20])
            nar.add_now(memoryview(data)[20:])
            nar.end_file(len(data))
        case Symlink(target):
            nar.symlink(depth, name, target)
        case Directory(entries):
            nar.directory(depth, name)
            for each in sorted(entries):
                walked(entries[each], nar, depth + 1, each)


@given(trees)
@settings(deadline=None)
def test_any_walk_is_hashed_as_its_nar(tree: Tree) -> None:
    nar = NarHasher()
    walked(tree, nar)
    assert (nar.finish(), nar.size) == nar_hash(tree)


def test_hash_of_one_file_is_what_nix_says(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    path.write_bytes(b'{"format":1}')
    nix = (need("nix"), "--extra-experimental-features", "nix-command")
    said = run(*nix, "hash", "path", path).decode().strip()
    assert str(nar_hash_of_file(b'{"format":1}')) == said


def test_case_hack() -> None:
    assert strip_case_hack(b"xt_CONNMARK.h~nix~case~hack~1") == b"xt_CONNMARK.h"
    assert strip_case_hack(b"xt_connmark.h") == b"xt_connmark.h"


def entries_of(tree: Tree, path: bytes = b"") -> list[NarEntry]:
    """What a reader must find of *tree*."""
    if isinstance(tree, NarFile):
        kind = "program" if tree.executable else "file"
        digest = hashlib.sha256(tree.data).digest()
        return [NarEntry(path, kind, len(tree.data), digest, tree.data[:8])]  # type: ignore[arg-type]
    if isinstance(tree, Symlink):
        digest = hashlib.sha256(tree.target).digest()
        return [NarEntry(path, "symlink", len(tree.target), digest, tree.target[:8])]
    found = [NarEntry(path, "directory")]
    for name in sorted(tree.entries):
        found += entries_of(tree.entries[name], path + b"/" + name if path else name)
    return found


@given(tree=trees, step=st.integers(1, 100))
def test_what_is_read_is_what_was_dumped(tree: Tree, step: int) -> None:
    nar = b"".join(dump(tree))
    chunks = [nar[start : start + step] for start in range(0, len(nar), step)]
    assert list(read_nar(chunks, "it", head=8)) == entries_of(tree)


@given(tree=trees, data=st.data())
def test_what_is_no_nar_is_refused_or_another_tree(tree: Tree, data: st.DataObject) -> None:
    nar = bytearray(b"".join(dump(tree)))
    place = data.draw(st.integers(0, len(nar) - 1))
    nar[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([len(nar), place]))
    try:
        found = list(read_nar([bytes(nar[:cut])], "it", head=1 << 10))
    except CheckedFalse:
        return
    # What is read without an error is the NAR of what was read: there is one NAR for one tree.
    assert cut == len(nar)
    assert found != entries_of(tree)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_no_entry_has_a_name_that_no_file_can_have(name: bytes) -> None:
    nar = b"".join(dump(Directory({name: NarFile(b"x")})))
    with pytest.raises(CheckedFalse, match="the name"):
        list(read_nar([nar], "it"))


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a")])
def test_entries_come_in_order(names: tuple[bytes, bytes]) -> None:
    one = b"".join(dump(Directory({b"#": NarFile(b"x"), b"$": NarFile(b"x")})))
    head, second, rest = one.replace(b"#", names[0]).partition(b"$")
    with pytest.raises(CheckedFalse, match="after b'"):
        list(read_nar([head + second.replace(b"$", names[1]) + rest], "it"))


@pytest.mark.parametrize(
    ("nar", "problem"),
    [
        (b"", "cut short"),
        (b"\xff" * 16, "a string of"),
        (b"".join(dump(AWKWARD)) + b"\0", "something follows its end"),
        (
            b"".join(dump(NarFile(b"x"))).replace(b"regular\0", b"irregular"[:7] + b"\0"),
            "an object of the type",
        ),
    ],
)
def test_what_is_wrong_with_a_nar_is_named(nar: bytes, problem: str) -> None:
    with pytest.raises(CheckedFalse, match=problem):
        list(read_nar([nar], "it"))
