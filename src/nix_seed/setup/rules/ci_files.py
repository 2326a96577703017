"""The CI configuration that ``nix-seed init`` writes."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from nix_seed.setup.rules.forge import OURS

RUNNERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "x86_64-linux": "ubuntu-24.04",
        "aarch64-linux": "ubuntu-24.04-arm",
        "aarch64-darwin": "macos-15",
        "x86_64-darwin": "macos-15-intel",
    }
)
# actions/checkout, as the project's own workflows pin it.
_CHECKOUT = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"

_GROUP = (
    "${{ github.workflow }}-${{ github.event_name == 'pull_request' && github.ref || github.sha }}"
)

_GITHUB = """\
# Seeds for {about}, and builds that start in them with no network. Written by `nix-seed init`.
name: Seed

on:
  push:
    branches: [{branch}]
  pull_request:

permissions: {{}}

# A newer push to a pull request ends the run of the older. Every commit of a branch has a run of
# its own: in one group GitHub would drop those that wait, but the newest.
concurrency:
  group: {group}
  cancel-in-progress: ${{{{ github.event_name == 'pull_request' }}}}

jobs:
  seed:
    uses: {ours}/.github/workflows/seed.yml@{ref}
    permissions:
      contents: read # to check out
      packages: write # to publish the seed
      id-token: write # to sign what was built
    with:
      systems: '{systems}'
{seed_with}
  build:
    name: Build (${{{{ matrix.runner }}}})
    needs: seed
    # Where a seed is missing, Nix fetches and builds as ever.
    if: ${{{{ !cancelled() }}}}
    strategy:
      fail-fast: false
      matrix:
        runner: [{runners}]
    runs-on: ${{{{ matrix.runner }}}}
    permissions:
      contents: read # to check out
      packages: read # to pull the seed
    steps:
      - uses: {checkout}
        with:
          persist-credentials: false
      - uses: {ours}/use@{ref}
        with:
          registry_token: ${{{{ github.token }}}}
{use_with}      - run: nix flake check
{run_in}"""

# The tags of gitlab.com's own runners. Those for macOS are not for everyone.
GITLAB_TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {"x86_64-linux": "saas-linux-small-amd64", "aarch64-linux": "saas-linux-small-arm64"}
)
_GITLAB = """\
# Seeds for {about}, and builds that start in them with no network. Written by `nix-seed init`.
# The jobs take the inputs of the GitHub Action, as variables.
stages: [seed, promote, build]

variables:
  NIX_SEED_TOOLS: $CI_PROJECT_DIR/.nix-seed-tools
  SEED_REGISTRY: $CI_REGISTRY
  SEED_REGISTRY_USER: $CI_REGISTRY_USER
  SEED_SYSTEMS: {systems}
  SEED_FLAKE: {flake}
  SEED_TAGS: latest

default:
  # Its nix-bin is 2.26: a current nixpkgs wants 2.18 or newer.
  image: python:3.13-trixie
  # What the first job installs, later ones find.
  cache:
    key: nix-seed-{ref}
    paths: [.nix-seed-tools/]

.nix-seed:
  id_tokens:
    SIGSTORE_ID_TOKEN:
      aud: sigstore
  before_script:
    - apt-get update -q && apt-get install -yq git nix-bin
    - git init -q /tmp/nix-seed
    - git -C /tmp/nix-seed fetch -q --depth 1 https://github.com/{ours} {ref}
    - git -C /tmp/nix-seed checkout -q FETCH_HEAD
    - export SEED_REGISTRY_TOKEN="$CI_REGISTRY_PASSWORD"

.systems:
  extends: .nix-seed
  parallel:
    matrix:
{matrix}  tags: [$RUNNER]

seed:
  extends: .systems
  stage: seed
  # The index over all systems gets the tags, not one system's image.
  variables:
    SEED_TAGS: ""
  script:
    - /tmp/nix-seed/bin/publish

promote:
  extends: .nix-seed
  stage: promote
  rules:
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
  script:
    - /tmp/nix-seed/bin/nix-seed ci promote

build:
  extends: .systems
  stage: build
  variables:
    SEED_ENV: use.env
  script:
    - /tmp/nix-seed/bin/nix-seed ci use
    - . ./use.env
    - cd "$SEED_FLAKE"
    - nix --extra-experimental-features "nix-command flakes" flake check
"""


def render_github(*, ref: str, branch: str, systems: Sequence[str], directory: str = "") -> str:
    """Return ``.github/workflows/seed.yml``: it calls the reusable workflow of nix-seed at *ref*.

    *systems* are those of ``RUNNERS`` to serve, *directory* where in the repository the flake lies.
    """
    quoted = json.dumps(directory)
    return _GITHUB.format(
        about=", ".join(systems),
        branch=json.dumps(branch),
        group=_GROUP,
        ours=OURS,
        ref=ref,
        systems=json.dumps(list(systems), separators=(",", ":")),
        seed_with=f"      flake: {quoted}\n" if directory else "",
        runners=", ".join(RUNNERS[system] for system in systems),
        checkout=_CHECKOUT,
        use_with=f"          flake: {quoted}\n" if directory else "",
        run_in=f"        working-directory: {quoted}\n" if directory else "",
    )


def render_gitlab(*, ref: str, systems: Sequence[str], directory: str = "") -> str:
    """Return ``.gitlab-ci.yml``: what the GitHub workflow does, by the same commands.

    *systems* are those of ``GITLAB_TAGS`` to serve.
    """
    matrix = "".join(
        f"      - SYSTEM: {system}\n        RUNNER: {GITLAB_TAGS[system]}\n" for system in systems
    )
    return _GITLAB.format(
        about=", ".join(systems),
        ours=OURS,
        ref=ref,
        flake=json.dumps(directory or "."),
        matrix=matrix,
        systems=" ".join(systems),
    )
