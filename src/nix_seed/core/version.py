"""The version, which documents that are written here name."""

__all__ = ["__version__"]

__version__ = "0.1.0"
