"""A forge of one repository: its events run its workflows, with a registry and a Sigstore beside.

Everything is the real thing on loopback but the forge itself, of which ``support.act`` and
``support.github`` play the parts that matter: what is checked out, the runner, the events and the
tokens. As on GitHub, anyone may pull, and only who has a token that may write pushes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support.act import Outcome, Run, product_repository
from support.apt import CACHE
from support.distribution import NIX_SETTINGS, commit
from support.engines import Started, docker
from support.fulcio import RealSigstore, real_sigstore
from support.github import REPOSITORY, identity_service, pull_request, push
from support.registries import PASSWORD, USER, Running, docker_registry
from support.runner import as_origin
from support.tokens import READER, READERS_PASSWORD, token_server

__all__ = ["PRODUCT", "WORKFLOW", "Forge", "Stored", "forge"]

PRODUCT = "0compute/nix-seed"
# Who signs where a reusable workflow runs: that one, whosever repository called it.
WORKFLOW = f"{PRODUCT}/.github/workflows/seed.yml@refs/tags/v0.1.0"
_USES = re.compile(r"uses: ([\w-]+/[\w-]+)(/[\w./-]+)?@(\S+)")
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
# What actions/checkout does, as far as workflows here ask: clone another repository of the forge.
_CHECKOUT = """\
name: Checkout
inputs:
  repository: {default: "${{ github.repository }}"}
  ref: {default: ""}
  path: {default: .}
  persist-credentials: {default: "true"}
runs:
  using: composite
  steps:
    - shell: bash
      env:
        REPOSITORY: ${{ inputs.repository }}
        REF: ${{ inputs.ref }}
        INTO: ${{ inputs.path }}
      run: |
        git -c advice.detachedHead=false clone -q --depth 1 --branch "$REF" \\
          "file://$FORGE/$REPOSITORY" "$INTO"
"""
_ABSENT = """\
name: Not here
runs:
  using: composite
  steps: [{shell: bash, run: "echo this machine has what that installs; exit 1"}]
"""


@dataclass(frozen=True)
class Stored:
    """What a registry holds: its blobs' sizes by digest, and its tags."""

    blobs: Mapping[str, int]
    tags: Mapping[str, str]

    def since(self, before: Stored) -> Mapping[str, int]:
        """Return the blobs that *before* lacks."""
        return {name: size for name, size in self.blobs.items() if name not in before.blobs}


@dataclass
class Forge:
    """The forge, with *project* as its repository, whose commits it runs workflows on."""

    root: Path
    project: Path
    registry: Running
    sigstore: RealSigstore
    engine: Started
    repositories: Mapping[str, Path]
    image: str = f"{REPOSITORY}-seed"
    runs: int = 0
    more: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> str:
        """The repository of the project's images."""
        return f"{self.registry.host}/{self.image}"

    def push(self, **how: Any) -> Outcome:
        """Push the project's commit to ``main``, by someone who may write packages."""
        checkout = self._check_out("origin/main", "-B", "main")
        run = self._run(checkout, "push", push(checkout), token=PASSWORD, actor=USER)
        sha = run.event["after"]
        with identity_service(self.sigstore.workflows, WORKFLOW, sha) as identity:
            return replace(run, env={**run.env, **identity.variables}, **how)()

    def pull_request(self, *, trusted: bool = False, **how: Any) -> Outcome:
        """Open a pull request from a fork, of which the jobs may write nothing and sign nothing.

        A *trusted* one is given all that a push is, by a mistake of the repository's owner.
        """
        checkout = self._check_out("pull/7/merge", "--detach")
        event = pull_request(checkout, fork=True)
        token, actor = (PASSWORD, USER) if trusted else (READERS_PASSWORD, READER)
        run = replace(self._run(checkout, "pull_request", event, token=token, actor=actor), **how)
        if not trusted:
            return run()
        sha = event["pull_request"]["head"]["sha"]
        with identity_service(self.sigstore.workflows, WORKFLOW, sha) as identity:
            return replace(run, env={**run.env, **identity.variables})()

    def stored(self) -> Stored:
        """Return what the registry holds now."""
        data = self.registry.log.parent / "data/docker/registry/v2"
        blobs = {
            f"sha256:{path.parent.name}": path.stat().st_size
            for path in data.glob("blobs/sha256/*/*/data")
        }
        links = data.glob(f"repositories/{self.image}/_manifests/tags/*/current/link")
        return Stored(blobs, {link.parents[1].name: link.read_text() for link in links})

    def writes(self) -> int:
        """Return how many requests to write the registry has had, whatever it answered."""
        lines = self.registry.log.read_text().splitlines()
        return sum(any(f'] "{verb} ' in line for verb in _WRITES) for line in lines)

    def _run(
        self, checkout: Path, name: str, event: Mapping[str, Any], *, token: str, actor: str
    ) -> Run:
        settings = NIX_SETTINGS | {"extra-platforms": "aarch64-linux"}
        config = "".join(f"{key} = {value}\n" for key, value in settings.items())
        env = {"NIX_CONFIG": config, "FORGE": str(self.root / "forge")}
        # What the first run on this machine installs, as each of a real runner's would.
        env |= {"NIX_SEED_TOOLS": str(CACHE / "runner-tools")}
        env |= as_origin(self.project, f"https://github.com/{REPOSITORY}")
        return Run(
            checkout, checkout.with_name("run"), event, name, token=token, actor=actor,
            repositories=self.repositories, env=env | self.engine.env | self.more,
        )  # fmt: skip

    def _check_out(self, ref: str, *how: str) -> Path:
        """Do what actions/checkout does: the newest commit alone, without history."""
        self.runs += 1
        directory = self.root / f"run-{self.runs}" / REPOSITORY.rpartition("/")[2]
        directory.mkdir(parents=True)
        git, kept = ["git", "-C", str(directory)], f"refs/remotes/{ref}"
        for words in (
            ("init", "-q"),
            ("fetch", "-q", "--depth", "1", f"file://{self.project}", f"HEAD:{kept}"),
            ("checkout", "-q", *how, kept),
            ("remote", "add", "origin", f"https://github.com/{REPOSITORY}"),
        ):
            subprocess.run([*git, *words], check=True, capture_output=True)
        return directory


@contextmanager
def forge(root: Path, project: Path) -> Iterator[Forge]:
    """Start everything below *root*."""
    with ExitStack() as stack:
        start = stack.enter_context
        tokens = start(token_server(root / "tokens"))
        tokens.anonymous = ("pull",)
        registry = start(docker_registry(root / "registry", tokens=tokens.trust))
        sigstore = start(real_sigstore(root / "sigstore"))
        (root / "sigstore.json").write_bytes(sigstore.trust_config())
        (root / "engine").mkdir()
        engine = start(docker(root / "engine"))
        repositories = _repositories(root / "forge")
        yield Forge(root, project, registry, sigstore, engine, repositories)


def _repositories(root: Path) -> dict[str, Path]:
    """Make the product's repository and stand-ins for others, by ``owner/name@ref``."""
    product = product_repository(root / PRODUCT)
    found: dict[str, Path] = {}
    for file in (*product.rglob("action.yml"), *product.glob(".github/workflows/*.yml")):
        for name, _, ref in _USES.findall(file.read_text()):
            found[f"{name}@{ref}"] = root / name
    for name, text in (("actions/checkout", _CHECKOUT), ("cachix/install-nix-action", _ABSENT)):
        (root / name).mkdir(parents=True)
        (root / name / "action.yml").write_text(text)
    for ref in ("v0.1.0",):
        found[f"{PRODUCT}@{ref}"] = product
        _tag(product, ref)
    return found


def _tag(repository: Path, ref: str) -> None:
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    commit(repository, "Release")
    subprocess.run(["git", "-C", str(repository), "tag", ref], check=True)
