"""The one error this tool raises on purpose."""

from __future__ import annotations


class Failure(Exception):
    """Something the user can act on: what went wrong, and what to do next."""

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(f"{what}\n  {next_step}" if next_step else what)
