"""What is remembered of a finished layer, so that it need not be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nix_seed.clients.files import write_atomically
from nix_seed.formats.nix.store_path import StorePath
from nix_seed.formats.oci.descriptor import Descriptor
from nix_seed.formats.seekable import Frame
from nix_seed.ground import canonical_json
from nix_seed.ground.digests import DiffID
from nix_seed.ground.errors import InputError
from nix_seed.rules.layer import FinishedLayer

__all__ = ["LayerRecords", "dump_record", "parse_record"]


class LayerRecords:
    """Records by layer key in *directory*, without blobs: those are elsewhere, in a registry."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, key: str) -> FinishedLayer | None:
        """Return what is remembered under *key*; a damaged record counts as none."""
        path = self._directory / f"{key}.json"
        try:
            return parse_record(path.read_bytes(), str(path))
        except (OSError, InputError):
            return None

    def save(self, key: str, layer: FinishedLayer) -> None:
        """Remember *layer* under *key*."""
        write_atomically(self._directory / f"{key}.json", dump_record(layer))


def dump_record(layer: FinishedLayer) -> bytes:
    """Return the record of *layer*."""
    return canonical_json.dumps(
        {
            "descriptor": layer.descriptor.to_json(),
            "diffId": str(layer.diff_id),
            "tarSize": layer.tar_size,
            "frames": [[frame.compressed, frame.size] for frame in layer.frames],
            "starts": [[str(path), number] for path, number in layer.starts],
        }
    )


def parse_record(text: bytes, what: str) -> FinishedLayer:
    """Read a record; ``InputError`` for anything else."""
    value: Any = canonical_json.loads(text, what=what)
    try:
        return FinishedLayer(
            descriptor=Descriptor.from_json(value["descriptor"], what),
            diff_id=DiffID.parse(value["diffId"]),
            tar_size=int(value["tarSize"]),
            frames=tuple(Frame(int(one), int(other)) for one, other in value["frames"]),
            starts=tuple((StorePath.parse(path), int(number)) for path, number in value["starts"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{what} is not a record of this cache") from error
