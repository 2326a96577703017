"""A step of a CI job: its inputs and secrets, whose job it is, what it may do, and its log.

What signing, policies and evaluation take is imported by those steps that come to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from nix_seed.cli.command import exit_with
from nix_seed.cli.lazily import lazily
from nix_seed.cli.say import error_lines
from nix_seed.cli.setup.ci_machine import take_secrets
from nix_seed.cli.trust.key import PASSPHRASE
from nix_seed.core.errors import InputError, NixSeedError
from nix_seed.core.events import Stage, listening
from nix_seed.core.files import home, read_given
from nix_seed.core.values import dataclass
from nix_seed.flake.checkout import DEFAULT_POLICY, Login, find_line
from nix_seed.flake.rules.choice import FlakeChoice
from nix_seed.flake.rules.nix_log import NixSaid, NixWork
from nix_seed.formats.oci.reference import Reference
from nix_seed.image.request import Request
from nix_seed.image.rules.partition.plan import check_budget
from nix_seed.registry.credentials import Keyring
from nix_seed.registry.errors import Denied
from nix_seed.registry.open import Stores
from nix_seed.setup.ci_host import CiHost
from nix_seed.setup.rules.ci_inputs import (
    Decision,
    evaluate_event,
    parse_seed_attr,
    repository_of,
    why_unknown,
)
from nix_seed.setup.rules.ci_words import build_summary, find_mismatches, verbatim

with lazily():
    from nix_seed.release import load
    from nix_seed.trust import github as forges, sign, sigstore
    from nix_seed.trust.rules import policy as policies, signer as signers


_LACKS_IDENTITY = {
    "github": "give the job `permissions: id-token: write`, or sign with a key (signing: key), "
    "or not at all (signing: none)",
    "gitlab": "give the job `id_tokens: SIGSTORE_ID_TOKEN: aud: sigstore`, or sign with a key "
    "(SEED_SIGNING: key), or not at all (SEED_SIGNING: none)",
}


@dataclass(frozen=True, slots=True)
class JobFlake:
    """The flake that a job is about: its *directory*, absolute, and the *attr* of its seed.

    *attr* is None for the default, *policy* the file that says whom to believe, if there is one.
    """

    directory: Path
    attr: str | None
    policy: Path | None


class CiJob:
    """What a step was given; what that stands for is found out when it is first asked for."""

    def __init__(
        self,
        options: dict[str, Any],
        host: CiHost | None = None,
        secrets: dict[str, str] | None = None,
    ) -> None:
        self.options = options
        self.host = host or CiHost()
        self._secrets = take_secrets() if secrets is None else secrets

    @cached_property
    def decision(self) -> Decision:
        """What the event that started the job lets it do."""
        return evaluate_event(os.environ, self.host.event())

    @cached_property
    def repository(self) -> Reference:
        """Where the seeds are."""
        image, registry = self.options["image"], self.options["registry"]
        return repository_of(image, registry, self.decision, os.environ)

    @cached_property
    def flake(self) -> JobFlake:
        """The flake that ``flake`` and ``seed_attr`` name: the same one for every step.

        Its policy is the one named, or ``trust.toml`` beside it, where ``seed_attr`` starts, or
        here.
        """
        start = Path(self.options["flake"] or ".")
        below, attr = parse_seed_attr(self.options["seed_attr"] or ".#seed")
        directory = start / below
        places = (each / DEFAULT_POLICY for each in (directory, start, Path()))
        found = next((place for place in places if place.is_file()), None)
        policy = Path(self.options["policy"]) if self.options["policy"] else found
        return JobFlake(directory.absolute(), attr, policy)

    @cached_property
    def policy(self) -> load.LoadedPolicy | None:
        """The policy of the flake, None where it has none."""
        path = self.flake.policy
        if path is None:
            return None

        return load.load_policy(path)

    @cached_property
    def stores(self) -> Stores:
        """What opens stores; the token is for the registry of the seeds and no other."""
        environ = dict(os.environ)
        if self.token:
            environ |= {
                "NIX_SEED_REGISTRY": self.repository.registry,
                "NIX_SEED_REGISTRY_USERNAME": self.user,
                "NIX_SEED_REGISTRY_PASSWORD": self.token,
            }
        return Stores(Keyring(environ, home()), ca_file=self.options["ca_file"] or None)

    @property
    def token(self) -> str:
        """What the registry lets this job in with; empty where it was given nothing."""
        return self._secrets.get("SEED_REGISTRY_TOKEN", "")

    @property
    def user(self) -> str:
        """Whose token it is."""
        return self.options["registry_user"] or "x-access-token"

    @property
    def github(self) -> forges.GitHubStore | None:
        """GitHub's store of attestations, where this job was given a token for it."""
        token = self._secrets.get("SEED_ATTESTATIONS_TOKEN")
        if self.host.kind != "github" or not token:
            return None
        api, repository = (
            os.environ.get(f"GITHUB_{name}", "") for name in ("API_URL", "REPOSITORY")
        )
        return forges.GitHubStore(api, repository, token)

    def login(self) -> Login | None:
        """Return what GitHub lets this job read the repository with, None without."""
        server = os.environ.get("GITHUB_SERVER_URL", "")
        token = self._secrets.get("SEED_SOURCE_TOKEN")
        return Login(server, token) if server.startswith("https://") and token else None

    def request(self) -> Request:
        """Return the request for the seed of the flake."""
        layers = self.options["layers"] or "64"
        if not layers.isascii() or not layers.isdigit():
            raise InputError(f"layers is {layers!r}, which is no number")
        check_budget(int(layers))
        directory, system = str(self.flake.directory), self.options.get("system") or None
        return Request(directory, FlakeChoice("seed", self.flake.attr, system), budget=int(layers))

    def signer(self) -> sign.Signer | None:
        """Return who signs; ``InputError`` names the permission or secret that lacks."""
        signing = self.options["signing"] or "keyless"
        if signing == "none":
            return None
        if signing == "key":
            key, passphrase = self._secrets.get("SEED_KEY"), self._secrets.get(PASSPHRASE)
            if not key:
                raise InputError(
                    "signing is key, and there is no key",
                    hint="set the input key (SEED_KEY) from a secret that holds the PEM of "
                    "`nix-seed key generate`",
                )
            if key.lstrip().startswith("-----BEGIN"):
                return sign.KeySigner.from_pem(key.encode(), "the key in SEED_KEY", passphrase)
            return sign.KeySigner.open(Path(key), passphrase)
        if signing == "keyless":
            return self._keyless_signer()
        raise InputError(f"signing is {signing!r}, not keyless, key or none")

    def _keyless_signer(self) -> sign.Signer:
        kind = self.host.kind
        asked = "SIGSTORE_ID_TOKEN" if kind == "gitlab" else "ACTIONS_ID_TOKEN_REQUEST_URL"
        if kind != "other" and not self._secrets.get(asked):
            raise InputError(
                f"this job may not ask for an identity to sign with: {asked} is not set",
                hint=_LACKS_IDENTITY[kind],
            )

        def token() -> str | None:
            os.environ.update(self._secrets)
            try:
                return sigstore.ambient_token()
            finally:
                take_secrets()

        path = self.options["sigstore"]
        return sigstore.KeylessSigner(read_given(Path(path)) if path else None, token)

    def why_stranger(self, signer: sign.Signer | None) -> str | None:
        """Return why this job's own identity is rightly none that the policy knows, a fork's say.

        A key is a secret that somebody gave it: one that the policy does not know is a mistake.
        """
        if self.policy is None or signer is None:
            return None
        policy, who = self.policy.policy, signer.who
        known = [each.signer for each in policy.builders]
        known += [each.signer for each in policy.promoters]
        if not isinstance(who, signers.CertificateIdentity):
            return None
        if any(policies.is_signer(each, who) for each in known):
            return None
        why = why_unknown(self.decision, policy.source)
        identity = signer.identity
        return f"{why}, whose identity, {identity}, the policy does not know" if why else None

    def explain(self, error: NixSeedError, *, writes: bool = False) -> str | None:
        """Return what to do about *error*: the permission, if one lacks, to read or to write."""
        if not isinstance(error, Denied):
            return error.hint
        if self.host.kind == "github":
            return (
                f"give the job `permissions: packages: {'write' if writes else 'read'}` and the "
                "input registry_token: ${{ github.token }}; a package that another repository made "
                "must let this one in: its settings, Manage Actions access"
            )
        if self.host.kind == "gitlab":
            return (
                "set SEED_REGISTRY_USER: $CI_REGISTRY_USER and SEED_REGISTRY_TOKEN: "
                "$CI_REGISTRY_PASSWORD, or a deploy token that may "
                f"{'write' if writes else 'read'}_registry"
            )
        may = "push" if writes else "pull"
        return f"set SEED_REGISTRY_USER and SEED_REGISTRY_TOKEN to who may {may}"

    @contextmanager
    def reported(self, label: str, *, writes: bool = True) -> Iterator[None]:
        """Listen to flows; annotate the failure of *label*, and end with its exit code.

        *writes*: it is to publish, so whom the registry turns away lacks the right to write.
        """
        try:
            with ExitStack() as parts, listening(Stages(self.host, parts)):
                yield
        except NixSeedError as error:
            error.hint = self.explain(error, writes=writes)
            mismatches = find_mismatches(error.detail or "")
            for mismatch in mismatches:
                at = find_line(Path(self.options["flake"] or "."), mismatch.wanted) or (None, None)
                self.host.annotate("error", "Hash mismatch", str(mismatch), file=at[0], line=at[1])
            text = "\n".join(error_lines(error))
            self.host.say(text)
            self.host.annotate("error", f"{label}: {_TITLES[error.exit_code]}", text)
            lines = (*map(str, mismatches), *text.splitlines())
            self.host.add_summary(
                build_summary(f"{label} failed", [verbatim("What went wrong", lines)])
            )
            exit_with(error.exit_code)


# Stages that begin a part of the log; others are lines in it.
_PARTS = {
    "evaluate": "Evaluate the flake",
    "realise": "Build what the image is to hold",
    "assemble": "Write the layers",
    "unpack": "Prove the seed complete",
    "publish": "Push the image",
    "compare": "Attest the image",
    "verify": "Verify the image",
    "layers": "Fetch and unpack",
    "image": "Publish the index",
    "outputs": "Build the outputs, and keep them",
}
_TITLES = {1: "Checked, and false", 2: "Wrong input", 3: "Could not check", 4: "Nix failed"}


class Stages:
    """Listens to flows, and has a part of the log for each stage, that folds away.

    In it is what Nix builds, with the builders' logs: a job that says nothing for long gets killed.
    """

    def __init__(self, host: CiHost, parts: ExitStack) -> None:
        self._host = host
        self._open = parts
        self._seen: set[str] = set()
        self._running: frozenset[str] = frozenset()

    def __call__(self, event: Any) -> None:
        """Tell of *event*, if it is a stage, or Nix at work."""
        if isinstance(event, NixSaid) and event.name:
            self._host.say(f"{event.name}> {event.text}")
        elif isinstance(event, NixWork):
            for each in event.running:
                if each not in self._running and each.startswith("building "):
                    self._host.say(each)
            self._running = frozenset(event.running)
        if not isinstance(event, Stage):
            return
        if event.name in _PARTS and event.name not in self._seen:
            # Work that comes twice (attesting writes the layers again) is part of what it is for.
            self._seen.add(event.name)
            self._open.close()
            self._open.enter_context(self._host.group(_PARTS[event.name]))
        self._host.say(f"nix-seed: {event.text}")
