"""Who signed a store path, with real caches, signatures and lies about them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix_seed.flake.nix import Nix
from nix_seed.flake.provenance import count_origins, read_provenance, read_signers
from nix_seed.flake.rules.signatures import Signers
from nix_seed.formats.nix.store_path import StorePath
from support.distribution import EXAMPLES, build, nix, nix_env, require_nix
from support.seeds import nix_seed, remove_tree


@dataclass(frozen=True)
class Cache:
    """A binary cache of one built path, and a store that took it from there."""

    root: Path
    flake: str
    path: StorePath
    keys: dict[str, str]

    @property
    def store(self) -> Path:
        return self.root / "store"

    def sign(self, name: str) -> str:
        """Have Nix sign the path as *name*; return the signature."""
        key = self.root / f"{name}.key"
        nix("store", "sign", "--store", f"file://{self.root / 'cache'}", "-k", key, str(self.path))
        return next(each for each in self.signatures() if each.startswith(f"{name}:"))

    @property
    def _info(self) -> Path:
        return self.root / "cache" / f"{self.path.hash_part}.narinfo"

    def signatures(self) -> list[str]:
        lines = self._info.read_text().splitlines()
        return [line.removeprefix("Sig: ") for line in lines if line.startswith("Sig: ")]

    def serve(self, *signatures: str) -> None:
        """Have the cache say that these are its signatures, and the store take it over."""
        lines = self._info.read_text().splitlines()
        kept = [line for line in lines if not line.startswith("Sig: ")]
        kept += [f"Sig: {each}" for each in signatures]
        self._info.write_text("".join(f"{line}\n" for line in kept))
        nix(
            *("copy", "--no-check-sigs", "--from", f"file://{self.root / 'cache'}"),
            *("--to", str(self.store), str(self.path)),
        )

    def signers(self, monkeypatch: pytest.MonkeyPatch, *trusted: str) -> Signers:
        """Ask the store, whose Nix trusts the keys of these names."""
        keys = " ".join(self.keys[name] for name in trusted)
        config = nix_env(trusted_public_keys=keys)["NIX_CONFIG"]
        monkeypatch.setenv("NIX_CONFIG", config)
        asked = Nix(store=self.store)
        known = read_provenance(asked, [self.path])
        assert set(known) == {self.path}
        return read_signers(asked, known).get(self.path, Signers())


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    require_nix()
    shutil.copytree(EXAMPLES / "bootstrap", tmp_path / "bootstrap")
    flake = f"path:{tmp_path / 'bootstrap'}"
    path = build(f"{flake}#greeting")
    keys = {}
    for name in ("one", "two"):
        made = subprocess.run(
            ["nix", "key", "generate-secret", "--key-name", name],
            env=nix_env(),
            capture_output=True,
            check=True,
        ).stdout
        (tmp_path / f"{name}.key").write_bytes(made)
        keys[name] = (
            subprocess.run(
                ["nix", "key", "convert-secret-to-public"],
                input=made,
                env=nix_env(),
                capture_output=True,
                check=True,
            )
            .stdout.decode()
            .strip()
        )
    nix("copy", "--to", f"file://{tmp_path / 'cache'}", str(path))
    yield Cache(tmp_path, flake, StorePath.parse(str(path)), keys)
    remove_tree(tmp_path / "store")


def test_a_signature_counts_if_a_trusted_key_made_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = cache.sign("one"), cache.sign("two")
    cache.serve(one, two)
    assert cache.signers(monkeypatch, "one", "two") == Signers(("one", "two"))
    assert cache.signers(monkeypatch, "one") == Signers(("one",), (), ("two",))
    assert count_origins(Nix(store=cache.store), [cache.path]).signed_by == (("one", 1),)
    assert cache.signers(monkeypatch) == Signers((), (), ("one", "two"))
    counts = count_origins(Nix(store=cache.store), [cache.path])
    assert (counts.substituted, counts.unexplained, counts.signed_by) == (0, 1, ())


def test_another_name_on_a_signature_is_no_signature(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a cache may write it: Nix stores every signature once one of them is good."""
    two = cache.sign("two")
    cache.serve(two, f"one:{two.partition(':')[2]}", "stranger:AAAA", "one:no-base64!")
    found = cache.signers(monkeypatch, "one", "two")
    assert found == Signers(("two",), ("one",), ("stranger",))
    config = nix_env(trusted_public_keys=f"{cache.keys['one']} {cache.keys['two']}")["NIX_CONFIG"]
    ran = nix_seed(
        *("roots", "--outputs", f"{cache.flake}#greeting", "--store", cache.store),
        *("--policy", "built-here"),
        cache=tmp_path,
        env={"NIX_CONFIG": config},
    )
    assert ran.code == 1, ran.err
    words = (
        "signed by two; a signature of one does not verify; a signature of stranger was not checked"
    )
    assert f"  1 not built here: {words}\n" in ran.out
    assert f"built-here: {cache.path} was not built here: {words}" in ran.err
    ran = nix_seed(
        *("roots", "--outputs", f"{cache.flake}#greeting", "--store", cache.store, "--json"),
        cache=tmp_path,
        env={"NIX_CONFIG": config},
    )
    assert json.loads(ran.out)["substituted"] == [
        {
            "path": str(cache.path),
            "keys": ["two"],
            "unverified": ["one"],
            "unchecked": ["stranger"],
        }
    ]


def test_a_path_without_a_signature_was_copied(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.serve()
    found = cache.signers(monkeypatch, "one")
    assert found.words == "copied, with no signature"


def test_the_database_says_what_nix_says(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a path that was built, of one with signatures, of one that was added, and of none."""
    cache.serve(*cache.signatures(), cache.sign("one"), cache.sign("two"))
    (cache.root / "file").write_text("added")
    added = nix("store", "add-file", str(cache.root / "file"))
    absent = StorePath.parse(f"/nix/store/{'0' * 32}-absent")
    built = json.loads(nix("path-info", "--json", "--recursive", str(cache.path)))
    for asked, paths in (
        (Nix(store=cache.store), [cache.path, absent]),
        (Nix(), [absent, *(StorePath.parse(each) for each in [added, *map(_path_of, built)])]),
    ):
        there = [each for each in paths if each != absent]
        read = read_provenance(asked, paths), asked.path_infos(there)
        with monkeypatch.context() as patch:
            patch.setattr(Nix, "records", lambda *_: None)
            assert read == (read_provenance(asked, paths), asked.path_infos(there))
        assert set(read[0]) == {*there}
    assert len(read_provenance(Nix(store=cache.store), [cache.path])[cache.path].signatures) == 2


def _path_of(info: dict[str, str]) -> str:
    return info["path"]
