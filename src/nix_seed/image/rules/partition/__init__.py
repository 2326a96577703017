"""Which store path lies in which layer."""

from typing import Final

DEFAULT_BUDGET: Final = 64
"""Layers at most, the last, small one not counted."""
