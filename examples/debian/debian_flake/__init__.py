"""Debian packages as a Nix flake: resolve, download, lock. Standard library only.

Rooms: ``apt`` asks apt, ``resolve`` decides (pure), ``licence`` reads copyright files, ``store``
talks to Nix, ``distribution`` and ``project`` are the two verbs, ``cli`` is the command line.
"""
