"""The one number that stands for every byte the assembler writes.

It rises with any change to the bytes a given spec yields: tar headers, frame cuts, the Nix
database, the order of anything. ``tests/image/golden`` holds vectors that notice.
"""

from typing import Final

FORMAT: Final = 2
