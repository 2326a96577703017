"""The version, which documents that are written here name, and the format of images."""

from typing import Final

__all__ = ["FORMAT", "__version__"]

__version__ = "0.1.0"

FORMAT: Final = 2
"""The one number that stands for every byte the assembler writes.

It rises with any change to the bytes a given spec yields: tar headers, frame cuts, the Nix
database, the order of anything. ``tests/image/golden`` holds vectors that notice.
"""
