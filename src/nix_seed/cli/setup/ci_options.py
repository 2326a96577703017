"""What the steps of a CI job share: inputs, secrets, who publishes where, how to reach it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nix_seed.cli.trust.key import PASSPHRASE

if TYPE_CHECKING:
    from nix_seed.flake.checkout import Login
    from nix_seed.formats.oci.reference import Reference
    from nix_seed.registry.open import Stores
    from nix_seed.setup.ci_host import CiHost
    from nix_seed.trust.sign import Signer

Command = TypeVar("Command", bound=Callable[..., Any])

# Never seen by Nix or anything else that is started: a build that may use the network (a download
# by hash) can read its builder's variables.
KEPT_FROM_CHILDREN = (
    "SEED_REGISTRY_TOKEN",
    "SEED_KEY",
    PASSPHRASE,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_RUNTIME_TOKEN",
    "SIGSTORE_ID_TOKEN",
    "CI_REGISTRY_PASSWORD",
    "SEED_SOURCE_TOKEN",
)


def ci_option(name: str, help: str, **more: Any) -> Callable[[Command], Command]:
    """Add the option *name*, which is the variable ``SEED_NAME`` as well."""
    bare = name.removeprefix("--").replace("-", "_")
    variable = "SEED_" + bare.removeprefix("seed_").upper()
    return click.option(
        name, bare, envvar=variable, help=help, default="", show_default=False, **more
    )


def _all(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


ci_options = _all(
    ci_option("--registry", "Host of the registry [ghcr.io; GitLab's own]."),
    ci_option("--registry-user", "Whose token SEED_REGISTRY_TOKEN is."),
    ci_option("--image", "Repository in the registry [the project's own]."),
    ci_option("--flake", "Directory of the flake [.]."),
    ci_option("--policy", "Whom to believe [trust.toml beside the flake, if there]."),
    ci_option("--ca-file", "Accept certificates signed by these authorities."),
)

seed_attr_option = ci_option("--seed-attr", "The seed, as DIRECTORY#ATTRIBUTE [.#seed].")

flake_options = _all(
    seed_attr_option,
    ci_option("--layers", "Layers at most [64]."),
    ci_option("--nix-conf", "Lines for nix.conf."),
)

sign_options = _all(
    ci_option("--signing", "keyless, key or none [keyless]."),
    ci_option("--sigstore", "ClientTrustConfig of a private Sigstore [the public one]."),
)


@dataclass(frozen=True, slots=True)
class JobFlake:
    """The flake that a job is about: its *directory*, absolute, and the *attr* of its seed.

    *attr* is None for the default, *policy* the file that says whom to believe, if there is one.
    """

    directory: Path
    attr: str | None
    policy: Path | None


def flake_of(options: dict[str, Any]) -> JobFlake:
    """Return the flake that ``flake`` and ``seed_attr`` name: the same one for every step.

    Its policy is the one named, or ``trust.toml`` beside it, where ``seed_attr`` starts, or here.
    """
    from nix_seed.release.load import DEFAULT_POLICY
    from nix_seed.setup.rules.ci_inputs import parse_seed_attr

    start, named = Path(options["flake"] or "."), parse_seed_attr(options["seed_attr"] or ".#seed")
    directory = start / named.directory
    places = (each / DEFAULT_POLICY for each in (directory, start, Path()))
    found = next((place for place in places if place.is_file()), None)
    policy = Path(options["policy"]) if options["policy"] else found
    return JobFlake(directory.absolute(), named.attr, policy)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The job's secrets, out of the environment: nothing that is started inherits them."""

    values: dict[str, str] = field(repr=False)

    def get(self, name: str) -> str:
        """Return the secret, empty if there is none."""
        return self.values.get(name, "")

    def stores(self, options: dict[str, Any], repository: Reference) -> Stores:
        """Return what opens stores; the token is for *repository*'s registry and no other."""
        from nix_seed.registry.credentials import Keyring
        from nix_seed.registry.open import Stores

        environ = dict(os.environ)
        if token := self.get("SEED_REGISTRY_TOKEN"):
            environ |= {
                "NIX_SEED_REGISTRY": repository.registry,
                "NIX_SEED_REGISTRY_USERNAME": options["registry_user"] or "x-access-token",
                "NIX_SEED_REGISTRY_PASSWORD": token,
            }
        return Stores(Keyring(environ, Path.home()), ca_file=options["ca_file"] or None)

    def login(self) -> Login | None:
        """Return what GitHub lets this job read the repository with, None without."""
        from nix_seed.flake.checkout import Login

        server, token = os.environ.get("GITHUB_SERVER_URL", ""), self.get("SEED_SOURCE_TOKEN")
        return Login(server, token) if server.startswith("https://") and token else None

    def signer(self, options: dict[str, Any], host: CiHost) -> Signer | None:
        """Return who signs; ``InputError`` names the permission or secret that lacks."""
        match options["signing"] or "keyless":
            case "none":
                return None
            case "key":
                return self._key_signer()
            case "keyless":
                return self._keyless_signer(options, host)
        from nix_seed.core.errors import InputError

        raise InputError(f"signing is {options['signing']!r}, not keyless, key or none")

    def _key_signer(self) -> Signer:
        from nix_seed.core.errors import InputError
        from nix_seed.trust.sign import KeySigner

        key, passphrase = self.get("SEED_KEY"), self.get(PASSPHRASE) or None
        if not key:
            raise InputError(
                "signing is key, and there is no key",
                hint="set the input key (SEED_KEY) from a secret that holds the PEM of "
                "`nix-seed key generate`",
            )
        if key.lstrip().startswith("-----BEGIN"):
            return KeySigner.from_pem(key.encode(), "the key in SEED_KEY", passphrase)
        return KeySigner.open(Path(key), passphrase)

    def _keyless_signer(self, options: dict[str, Any], host: CiHost) -> Signer:
        from nix_seed.core.errors import InputError
        from nix_seed.trust.sigstore import KeylessSigner, ambient_token

        asked = "SIGSTORE_ID_TOKEN" if host.kind == "gitlab" else "ACTIONS_ID_TOKEN_REQUEST_URL"
        if host.kind != "other" and not self.get(asked):
            raise InputError(
                f"this job may not ask for an identity to sign with: {asked} is not set",
                hint=_LACKS_IDENTITY[host.kind],
            )

        def token() -> str | None:
            os.environ.update(self.values)
            try:
                return ambient_token()
            finally:
                for name in self.values:
                    os.environ.pop(name, None)

        config = Path(options["sigstore"]).read_bytes() if options["sigstore"] else None
        return KeylessSigner(config, token)


_LACKS_IDENTITY = {
    "github": "give the job `permissions: id-token: write`, or sign with a key (signing: key), "
    "or not at all (signing: none)",
    "gitlab": "give the job `id_tokens: SIGSTORE_ID_TOKEN: aud: sigstore`, or sign with a key "
    "(SEED_SIGNING: key), or not at all (SEED_SIGNING: none)",
}


def take_secrets() -> Secrets:
    """Take the secrets out of this process's environment."""
    found = {name: os.environ.pop(name, "") for name in KEPT_FROM_CHILDREN}
    return Secrets({name: value for name, value in found.items() if value})
