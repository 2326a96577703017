"""Small images of the assembler's own layers, ready to be stored."""

from __future__ import annotations

from pathlib import Path

from nix_seed.core import canonical_json
from nix_seed.core.digests import Digest
from nix_seed.formats.oci.manifest import Descriptor, Manifest, MediaType, Platform
from nix_seed.image.assemble import StoreFiles, assemble_layers
from nix_seed.image.layer_cache import LayerCache
from nix_seed.image.rules.frames import Compressor
from nix_seed.registry.layout import ImageFiles, Layout
from nix_seed.registry.layout_store import LayoutStore
from support.nars import Tree
from support.trees import put


def image(directory: Path, trees: dict[str, Tree], compressor: Compressor) -> ImageFiles:
    """An image of one layer a tree, its blobs in a cache below *directory*."""
    infos = [put(directory / "root", name, tree) for name, tree in trees.items()]
    cache = LayerCache(directory / "cache")
    store = StoreFiles(directory / "root")
    layers = [one.layer for one in assemble_layers([[i] for i in infos], compressor, store, cache)]
    config = canonical_json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        }
    )
    return ImageFiles(
        manifest=Manifest(
            config=Descriptor(MediaType.CONFIG, Digest.of(config), len(config)),
            layers=tuple(layer.descriptor for layer in layers),
        ),
        config=config,
        blobs={
            layer.descriptor.digest: cache.blob_path(layer.descriptor.digest) for layer in layers
        },
        platform=Platform("linux", "amd64"),
    )


def check_image(layout: Layout, described: Descriptor) -> Manifest:
    """Read manifest, config and layers of an image of *layout*, each to its end; its manifest."""
    manifest = Manifest.parse(layout.read_blob(described), "the image")
    for blob in (manifest.config, *manifest.layers):
        for _ in LayoutStore(layout).open_blob(blob):
            pass
    return manifest
