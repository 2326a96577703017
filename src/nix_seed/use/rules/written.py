"""What evaluating writes into a store, sent beside an image: derivations, and files they name.

A new store has them then, and evaluation writes none of them. A hint that anyone may have written:
each file is proved by its own name, and what is not proved, or refers to what is not there, is
passed over. As bytes: a msgpack map of names to contents, compressed by zstd.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec
import zstandard

from nix_seed.core.errors import InputError
from nix_seed.core.reach import reach
from nix_seed.formats.nix.addressed import AddressedFile
from nix_seed.formats.nix.store_path import StorePath, closure_in

MEDIA_TYPE: Final = "application/vnd.nix-seed.written.v1+zstd"
LARGEST: Final = 2 << 20
"""Bytes of a hint at most: on a slow line, more would take longer than writing does."""

_LARGEST_PLAIN: Final = 64 << 20
_MOST: Final = 50_000  # files
_LEVEL: Final = 12
_DECODER: Final = msgspec.msgpack.Decoder(dict[str, bytes])


def dump_written(files: Iterable[AddressedFile]) -> bytes:
    """Return *files* as a hint; nothing where it would be larger than any that is read."""
    named = sorted((file.info.path.base_name, file.data) for file in files)
    plain = msgspec.msgpack.encode(dict(named))
    data = zstandard.ZstdCompressor(level=_LEVEL).compress(plain)
    fits = len(named) <= _MOST and len(plain) <= _LARGEST_PLAIN and len(data) <= LARGEST
    return data if fits else b""


def parse_written(data: bytes) -> dict[str, bytes]:
    """Read the names and contents of a hint, none of them proved; ``InputError`` for no hint."""
    try:
        # Decoding takes at once the memory that a frame claims to need.
        if not 0 <= zstandard.frame_content_size(data) <= _LARGEST_PLAIN:
            raise InputError("a hint of what evaluating writes is larger than any")
        files = _DECODER.decode(zstandard.ZstdDecompressor().decompress(data))
    except (zstandard.ZstdError, msgspec.DecodeError, ValueError) as error:
        raise InputError(f"a hint of what evaluating writes cannot be read: {error}") from error
    if len(files) > _MOST:
        raise InputError("a hint of what evaluating writes names more files than any")
    return files


def prove_written(
    files: Mapping[str, bytes], valid: Collection[StorePath]
) -> tuple[AddressedFile, ...]:
    """Return those of *files* that are what their names say, and refer to one another or *valid*.

    What is *valid* itself is left out.
    """
    proved: dict[StorePath, AddressedFile] = {}
    for name, data in files.items():
        try:
            file = AddressedFile.parse(name, data)
        except InputError:
            continue
        if file.info.path not in valid:
            proved[file.info.path] = file
    referrers: dict[StorePath, list[StorePath]] = {}
    for path, file in proved.items():
        for each in file.info.references:
            referrers.setdefault(each, []).append(path)
    absent = [each for each in referrers if each not in proved and each not in valid]
    lacking = reach(absent, lambda path: referrers.get(path, ()))
    return tuple(file for path, file in proved.items() if path not in lacking)


def choose_sent(files: Iterable[AddressedFile], held: Collection[StorePath]) -> list[AddressedFile]:
    """Return those of *files* that make what an image has *held*, and all that these refer to.

    What else was evaluated is the project's own, as are its recipes.
    """
    known = {file.info.path: file for file in files}
    infos = {path: file.info for path, file in known.items()}
    wanted = [path for path, file in known.items() if _makes(file, held)]
    found = closure_in(infos, wanted)
    return [file for path, file in known.items() if path in found]


def _makes(file: AddressedFile, held: Collection[StorePath]) -> bool:
    outputs = {} if file.derivation is None else file.derivation.outputs
    return any(output.path in held for output in outputs.values())
