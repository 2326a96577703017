"""Outputs in every family of registries that tests know: kept by two, taken, compared, cleaned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.verdict import Fate
from nix_seed.formats.intoto.statement import Commit
from nix_seed.formats.oci.manifest import Index, fallback_tag, own_tag
from nix_seed.formats.oci.reference import Reference
from nix_seed.logs.embedded import EmbeddedLog
from nix_seed.outputs.check import check_outputs
from nix_seed.outputs.clean import clean_outputs
from nix_seed.outputs.kept import find_kept
from nix_seed.outputs.open import fresh_key, open_cache
from nix_seed.outputs.rules.statement import outputs_subject
from nix_seed.outputs.sign import list_statement, sign_outputs
from nix_seed.registry.credentials import Credential, Keyring
from nix_seed.registry.errors import Patience
from nix_seed.registry.open import Stores
from nix_seed.release.load import load_policy, verifiers_of
from nix_seed.trust.sign import KeySigner
from support.families import FAMILIES
from support.output_world import policy_text, twenty
from support.outputs import OutputsWorld, store_path
from support.quirks import PASSWORD, USER, Quirky, quirky_registry
from support.repositories import Registry
from support.trust import COMMIT

US = Keyring(given=Credential("the test", USER, PASSWORD))
QUICK = Patience(attempts=4, base=0.001, stall=5)
WRITABLE = sorted(name for name, each in FAMILIES.items() if "push" not in dict(each.refused))


@pytest.fixture
def registry(family: str) -> Iterator[Quirky]:
    known = FAMILIES[family]
    with quirky_registry(known.quirk, api=known.api, **known.server) as running:
        yield running


@pytest.mark.parametrize("family", WRITABLE)
def test_outputs_in_every_family(family: str, registry: Quirky, tmp_path: Path) -> None:
    asked = Registry(registry.host, keyring=US, patience=QUICK).repository("q/outputs")
    world = OutputsWorld(tmp_path, asked)
    world.build("alice")
    if "immutable" in family:
        with pytest.raises(CouldNotCheck, match="out-") as caught:
            world.build("bob")
        assert "exempt the tags out-*" in str(caught.value.hint)
        with pytest.raises(CouldNotCheck) as caught:
            clean_outputs(asked, datetime.now(UTC))
        assert "exempt the tags out-*" in str(caught.value.hint)
        return
    world.build("bob")
    paths = [store_path(name) for name in world.trees]
    assert [len(find_kept(asked, path.hash_part).kept) for path in paths] == [2, 2, 2]
    stores = Stores(US, patience=QUICK)
    by = verifiers_of(load_policy(world.write_policy(), datetime.now(UTC)), stores)
    reference = Reference(registry.host, "q/outputs")
    cache = open_cache(by, reference, fresh_key())
    for path in paths:
        found = cache.find(path.hash_part)
        assert found is not None
        assert b"".join(cache.nar(path.hash_part, found.blobs[0].digest))
    report = check_outputs(by, [reference], COMMIT)
    if reason := dict(FAMILIES[family].refused).get("verify"):
        assert (report.fate, reason in str(report.unchecked)) == (Fate.UNCHECKED, True)
    else:
        assert {each.state.value for each in report.outputs} == {"reproducible"}
    # Of a commit that changed nothing there is but a statement.
    said = world.states("alice", commit=Commit("9" * 40))
    (signed,) = sign_outputs(said, world.keys["alice"], [world.log])
    list_statement(asked, signed)
    done = clean_outputs(asked, datetime.now(UTC))
    # What lists no tags says so; what lists no statements keeps them.
    assert (done.dropped, done.kept) == ((0, 0) if family == "no-list-of-tags" else (6, 0))
    gone = not any(find_kept(asked, path.hash_part).kept for path in paths)
    assert gone == (done.dropped == 6)
    # No client can take it off a list that the registry itself makes.
    subject = outputs_subject(said.commit).digest
    lists = [asked.get_manifest(tag(subject)) for tag in (fallback_tag, own_tag)]
    left = [each for item in lists if item for each in Index.parse(item.body, "").manifests]
    assert bool(left) == (not gone or bool(done.troubles)), done.troubles
    if gone and not FAMILIES[family].api:
        assert asked.referrers(subject) == ()


@pytest.mark.parametrize("family", ["harbor-has-immutable-tags"])
def test_where_lists_cannot_grow_nothing_is_signed(
    registry: Quirky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIX_SEED_REGISTRY_USERNAME", USER)
    monkeypatch.setenv("NIX_SEED_REGISTRY_PASSWORD", PASSWORD)
    first, bob = twenty(), KeySigner.generate()
    (tmp_path / "bob.key").write_bytes(bob.pem())
    log = EmbeddedLog.create(tmp_path / "log", "log.example")
    (tmp_path / "trust.toml").write_text(policy_text({"alice": first.signer, "bob": bob}, log))
    alice = replace(first, policy=tmp_path / "trust.toml")
    target = f"{registry.host}/q/outputs"
    assert alice.push(target).code == 0
    logged = sorted((tmp_path / "log").rglob("*"))
    done = replace(alice, key=tmp_path / "bob.key", signer=bob).push(target)
    assert (done.code, "exempt the tags out-*" in done.err) == (3, True), done.err
    assert sorted((tmp_path / "log").rglob("*")) == logged
