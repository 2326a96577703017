"""``nix-seed key``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nix_seed.cli.command import PATH, argument, option, seed_group
from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import json_option
from nix_seed.cli.say import answer, manner, say, warn
from nix_seed.core.errors import CouldNotCheck
from nix_seed.core.words import members

with lazily():
    from nix_seed.flake import checkout
    from nix_seed.trust import sign
    from nix_seed.trust.rules import signer as signers


PASSPHRASE = "NIX_SEED_KEY_PASSPHRASE"
_ALGORITHMS = ("ecdsa-p256", "ed25519")


@seed_group("key")
def command() -> None:
    """Make and show keys that sign attestations.

    A passphrase is read from the environment variable NIX_SEED_KEY_PASSPHRASE, never from the
    command line.
    """


@command.command("generate", short_help="Make a key that signs attestations.")
@argument("file", default="nix-seed.key", type=PATH)
@option(
    "--algorithm",
    "ECDSA is what every log takes; Rekor v2 does not take Ed25519.",
    type=click.Choice(_ALGORITHMS),
    default=_ALGORITHMS[0],
)
@json_option
def generate(file: Path, algorithm: str) -> None:
    """Write a new private key to FILE (nix-seed.key), and its public key beside it (.pub).

    Neither is ever overwritten. The private key is encrypted if NIX_SEED_KEY_PASSPHRASE is set.
    """
    passphrase = os.environ.get(PASSPHRASE)
    signer = sign.KeySigner.generate("ed25519" if algorithm == "ed25519" else "ecdsa-p256")
    public = sign.write_key_pair(signer, file, passphrase)
    _warn_of_git(file)
    fingerprint = signer.public_key.fingerprint
    value = {
        "private": str(file),
        "public": str(public),
        "algorithm": algorithm,
        "fingerprint": fingerprint,
        "encrypted": bool(passphrase),
    }
    lines = [
        f"private key: {file}{'' if passphrase else ' (not encrypted)'}",
        f"public key:  {public}",
        f"fingerprint: {fingerprint}",
    ]
    answer(value, lines)


def _warn_of_git(file: Path) -> None:
    """Warn where ``git add`` would publish the key; whoever has no Git needs no warning."""
    try:
        tree = checkout.seen_by_git(file)
    except CouldNotCheck:
        return
    if tree is not None:
        name = file.resolve().relative_to(tree)
        warn(
            f"{file} lies in the Git work tree {tree}: `git add` would publish it\n"
            f"  move it out:  mv {file} {tree.parent}/\n"
            f"  or hide it:   echo /{name} >> {tree}/.gitignore"
        )


@command.command("show", short_help="Print the public key of a key file.")
@argument("file", type=PATH)
@json_option
def show(file: Path) -> None:
    """Print the public key of FILE, which holds a private or a public key."""
    key = _public_key(file)
    if manner().json:
        say(members(key, "algorithm", "fingerprint", "hint") | {"pem": key.pem.decode()})
        return
    say(f"algorithm:   {key.algorithm}", err=True)
    say(f"fingerprint: {key.fingerprint}", err=True)
    say(key.pem.decode(), nl=False)


def _public_key(file: Path) -> signers.PublicKey:
    text = sign.read_key_file(file)
    if b"PUBLIC KEY" in text:
        return signers.PublicKey.from_pem(text, str(file))
    return sign.KeySigner.from_pem(text, str(file), os.environ.get(PASSPHRASE)).public_key
