"""Copying attestations to GitHub's own store: what it takes, what it refuses, what it never does.

That `gh attestation verify` accepts what is there is shown with a real Fulcio: tests/interop.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nix_seed.core.errors import CouldNotCheck, InputError
from nix_seed.formats.intoto.statement import build_statement
from nix_seed.registry.errors import Denied, Patience, Unreachable
from nix_seed.trust.github import GitHubStore
from nix_seed.trust.sign import KeySigner
from support.attestations import IMAGE, predicate, signed
from support.github_store import DENIED, TOKEN, Store, github_store
from support.private_sigstore import PrivateSigstore
from support.registries import free_port

REPOSITORY = "owner/project"


@pytest.fixture
def store() -> Iterator[Store]:
    with github_store() as running:
        yield running


@pytest.fixture
def client(store: Store) -> GitHubStore:
    return GitHubStore(f"{store.url}/", REPOSITORY, TOKEN, Patience(sleep=lambda _: None))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    sigstore = PrivateSigstore(tmp_path_factory.mktemp("sigstore"))
    return json.dumps(sigstore.bundle(build_statement(predicate(), "x").dump())).encode()


def test_it_is_found_by_the_image(store: Store, client: GitHubStore, bundle: bytes) -> None:
    client.add(bundle)
    [held] = store.held[f"{REPOSITORY}/{IMAGE}"]
    assert held["bundle"] == json.loads(bundle)


def test_busy_is_waited_for(store: Store, client: GitHubStore, bundle: bytes) -> None:
    store.fails = [(503, "busy"), (429, "slow down")]
    slept: list[float] = []
    replace(client, patience=Patience(sleep=slept.append)).add(bundle)
    assert len(store.seen) == 3
    assert slept[1] >= 7, "as long as it asked"
    assert store.held


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (401, "Bad credentials", Denied),
        (403, DENIED, Denied),
        (404, "Not Found", Denied),
        (413, "too large", CouldNotCheck),
        (422, "the bundle is no attestation", CouldNotCheck),
        (302, "", CouldNotCheck),
    ],
)
def test_a_refusal_is_quoted(
    store: Store,
    client: GitHubStore,
    bundle: bytes,
    status: int,
    said: str,
    kind: type[CouldNotCheck],
) -> None:
    store.fails = [(status, said)]
    with pytest.raises(kind) as caught:
        client.add(bundle)
    assert f"{REPOSITORY}'s attestations: GitHub answered {status}: {said}" in str(caught.value)
    assert (kind is Denied) == ("attestations: write" in (caught.value.hint or ""))
    assert len(store.seen) == 1
    assert not store.held


def test_its_words_do_not_repeat_the_token(
    store: Store, client: GitHubStore, bundle: bytes
) -> None:
    store.fails = [(403, f"{TOKEN} may not")]
    with pytest.raises(Denied) as caught:
        client.add(bundle)
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(client)


def test_what_a_key_signed_is_not_sent(store: Store, client: GitHubStore) -> None:
    with pytest.raises(InputError, match="a key signed it"):
        client.add(signed(KeySigner.generate(), predicate()))
    assert store.seen == []


def test_a_store_out_of_reach(client: GitHubStore, bundle: bytes, tmp_path: Path) -> None:
    gone = replace(client, api=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match="no connection could be made"):
        gone.add(bundle)
