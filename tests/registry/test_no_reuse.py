"""An upload that may reuse nothing sends what it makes, whatever a cache holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from nix_seed.core.digests import DiffID, Digest
from nix_seed.flake.nix import Nix
from nix_seed.formats.oci.manifest import Descriptor, MediaType
from nix_seed.image.build import Assembly
from nix_seed.image.layer_cache import LayerCache, LayerRecords
from nix_seed.image.push import UploadTarget
from nix_seed.image.rules.frames import Sink
from nix_seed.image.rules.layer import FinishedLayer
from nix_seed.registry.credentials import Credential, Keyring
from support.quirks import PASSWORD, USER, quirky_registry
from support.repositories import Registry

US = Keyring(given=Credential("the test", USER, PASSWORD))


@pytest.mark.parametrize("reuse", [True, False])
def test_a_cached_layer_is_sent_only_where_it_may_be(tmp_path: Path, reuse: bool) -> None:
    made: list[bytes] = []

    def produce(data: bytes, sink: Sink) -> FinishedLayer:
        made.append(data)
        sink.write(data)
        described = Descriptor(MediaType.LAYER_ZSTD, Digest.of(data), len(data))
        return FinishedLayer(described, DiffID("0" * 64), len(data), ())

    cache = LayerCache(tmp_path / "cache")
    old = cache.write("key", lambda sink: produce(b"of an earlier build", sink))
    with quirky_registry(lambda query, go: go(), api=False) as running:
        repository = Registry(running.host, keyring=US).repository("q/seed")
        records = LayerRecords(tmp_path / "records")
        how = Assembly(Nix(), cache, reuse=reuse)
        target = UploadTarget(repository, records, how.reusable, MediaType.LAYER_ZSTD)
        sent = target.write("key", lambda sink: produce(b"made anew", sink))
        assert repository.has_blob(sent.descriptor.digest)
        assert repository.has_blob(old.descriptor.digest) is reuse
    assert made[1:] == ([] if reuse else [b"made anew"])
