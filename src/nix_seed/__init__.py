"""Nix Seed: layered, offline OCI build images from Nix flakes, that anyone can check."""

__version__ = "0.1.0"
