"""Write ``layers.json``: digests and diffIDs of layers of the trees in ``tests/support/trees.py``.

Run it, from the project's root, only together with a new FORMAT number::

    PYTHONPATH=tests .venv/bin/python tests/image/golden/make_layers.py
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nix_seed.core.version import FORMAT
from nix_seed.formats.nix.store_path import PathInfo
from nix_seed.formats.oci import tar
from nix_seed.formats.zstd import SeekTable
from nix_seed.image.assemble import StoreFiles
from nix_seed.image.rules.frames import FRAME_SIZE, Compressor, locate_paths
from nix_seed.image.rules.layer import FinishedLayer, layer_key, write_entries_layer, write_layer
from support.nars import Directory, NarFile, Symlink, Tree
from support.trees import AWKWARD, put_all

VECTORS = Path(__file__).parent / "layers.json"
# Text that a compressor has something to do with, over two frames long.
LONG = b"".join(b"%d squared is %d\n" % (number, number**2) for number in range(350_000))
TREES: dict[str, Tree] = {
    "awkward": AWKWARD,
    "file": NarFile(b"a path that is a file"),
    "program": NarFile(b"#!/bin/sh\n", executable=True),
    "symlink": Symlink(b"/nix/store"),
    "long": Directory({b"bin": Directory({b"long": NarFile(LONG[: FRAME_SIZE * 2 + 5])})}),
}
ENTRIES = (
    tar.TarEntry(b"etc/passwd", tar.FILE, 0o644, b"root:x:0:0::/root:/bin/sh\n"),
    tar.TarEntry(b"tmp", tar.DIRECTORY, 0o1777),
    tar.TarEntry(b"bin/sh", tar.SYMLINK, 0o777, b"/nix/store/x/bin/sh"),
)
COMPRESSORS = (
    Compressor("zstd", "1.5.7", 3),
    Compressor("zstd", "1.5.7", 9),
    Compressor("gzip", "0.9.0", 6),
)


def describe(key: str, layer: FinishedLayer, infos: Sequence[PathInfo] = ()) -> dict[str, object]:
    table = SeekTable(layer.frames)
    places = locate_paths(table, [info.path for info in infos]) or {}
    return {
        "key": key,
        "digest": str(layer.descriptor.digest),
        "size": layer.descriptor.size,
        "diffId": str(layer.diff_id),
        "frames": [[frame.compressed, frame.size] for frame in layer.frames],
        "starts": [table.offsets().index(start) for start, _ in places.values()],
        "contents": hashlib.sha256(layer.contents).hexdigest(),
    }


def vectors() -> dict[str, object]:
    found: dict[str, object] = {"format": FORMAT}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        infos = put_all(root, TREES)
        for compressor in COMPRESSORS:
            name = f"{compressor.name} {compressor.version} -{compressor.level}"
            layer = write_layer(infos, compressor, StoreFiles(root), io.BytesIO())
            found[name] = describe(layer_key(infos, compressor), layer, infos)
            layer = write_entries_layer(ENTRIES, compressor, io.BytesIO())
            found[f"{name}, entries"] = describe("", layer)
    return found


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=1) + "\n")
