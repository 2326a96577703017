"""The CI configuration that ``nix-seed init`` writes; ``templates`` has its text."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from nix_seed.setup.rules.forge import OURS

RUNNERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "x86_64-linux": "ubuntu-24.04",
        "aarch64-linux": "ubuntu-24.04-arm",
        "aarch64-darwin": "macos-15",
        "x86_64-darwin": "macos-15-intel",
    }
)
# The tags of gitlab.com's own runners. Those for macOS are not for everyone.
GITLAB_TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {"x86_64-linux": "saas-linux-small-amd64", "aarch64-linux": "saas-linux-small-arm64"}
)


def render_github(*, ref: str, branch: str, systems: Sequence[str], directory: str = "") -> str:
    """Return ``.github/workflows/seed.yml``: it calls the reusable workflow of nix-seed at *ref*.

    *systems* are those of ``RUNNERS`` to serve, *directory* where in the repository the flake lies.
    """
    return _render("github.yml", ref=ref, branch=branch, systems=systems, directory=directory)


def render_gitlab(*, ref: str, systems: Sequence[str], directory: str = "") -> str:
    """Return ``.gitlab-ci.yml``: what the GitHub workflow does, by the same commands.

    *systems* are those of ``GITLAB_TAGS`` to serve.
    """
    return _render("gitlab.yml", ref=ref, systems=systems, directory=directory)


def _render(name: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    # Its usual marks are GitHub's own.
    made = Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "json": lambda value: json.dumps(value, separators=(",", ":")),
        "runner": RUNNERS.__getitem__,
        "tag": GITLAB_TAGS.__getitem__,
    }
    text = (files("nix_seed.setup") / "templates" / name).read_text("utf-8")
    return made.from_string(text).render(ours=OURS, **values)
